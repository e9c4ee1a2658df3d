# The whole DAG: prepare -> fit -> evaluate, measure -> tables, figures, audit, report -> manifest -> tables/main.tex
#
#   snakemake --cores all tables/main.tex
#   snakemake --cores all tables/main.tex --config experiment=smoke methods=my_memory set=run.executor=inline
import sys

from harness.disk import sentences
from harness.errors import HarnessError
from harness.pipeline import Pipeline, dry


def told(step, *arguments):
    """The value of a step, whose mistakes end the run in one sentence."""
    try:
        with sentences():
            return step(*arguments)
    except HarnessError as error:
        print(f"snakemake: {error}", file=sys.stderr)
        sys.exit(2)


RUN = told(Pipeline, config)
if dry(sys.argv):
    RUN.show_plan()
else:
    told(RUN.forget)

ON = (
    RUN.arguments
)  # the experiment and its changes, as every call of `harness` takes them
AT = str(RUN.folder)
JOB = AT + "/{backbone}/{row}/seed{seed}"
TABLES, FIGURES = RUN.tables, RUN.figures
FILES = expand(AT + "/tables/{file}", file=[*TABLES, "audit.md"]) + expand(
    AT + "/figures/{file}", file=FIGURES
)


report: "tables/templates/workflow.rst"  # what `snakemake --report` opens with


wildcard_constraints:
    backbone="[^/]+",
    row="[^/]+",
    seed=r"\d+",


onstart:
    told(RUN.begin)


onsuccess:
    RUN.end()


onerror:
    RUN.end()


rule publish:
    input:
        AT + "/manifest.json",
        files=FILES,
    output:
        expand("tables/{file}", file=[*TABLES, "audit.md", *FIGURES]),
    params:
        on=ON,
        aside=f"tables/.{RUN.experiment.name}",  # beside them, so that each file is moved as a whole
    message:
        "tables/main.tex <- {params.on}"
    shell:
        "rm -rf {params.aside:q} && mkdir {params.aside:q} && cp {input.files:q} {params.aside:q}/"
        " && mv {params.aside:q}/* tables/ && rmdir {params.aside:q}"


# What these five print goes to their log; what they complain of is shown too, for a full disk takes no log.
rule manifest:
    input:
        FILES,
        AT + "/report/index.html",  # holds text of benchmarks, so it stays where it is
    output:
        AT + "/manifest.json",
    log:
        AT + "/logs/manifest.log",
    resources:
        mem_mb=200,
    params:
        on=ON,
    message:
        "manifest of {params.on}"
    shell:
        "harness manifest {params.on:q} 2>&1 > {log:q} | tee -a {log:q} >&2"


rule tables:
    input:
        RUN.evaluated + RUN.measured,
    output:
        report(expand(AT + "/tables/{file}", file=TABLES), category="Tables"),
    log:
        AT + "/logs/tables.log",
    benchmark:
        AT + "/logs/tables.tsv"
    resources:
        mem_mb=500,
    params:
        on=ON,
        code=RUN.reporting,
    message:
        "tables of {params.on}"
    shell:
        "harness tables {params.on:q} 2>&1 > {log:q} | tee -a {log:q} >&2"


rule figures:
    input:
        RUN.evaluated + RUN.measured,
    output:
        report(expand(AT + "/figures/{file}", file=FIGURES), category="Figures"),
    log:
        AT + "/logs/figures.log",
    benchmark:
        AT + "/logs/figures.tsv"
    resources:
        mem_mb=500,
    params:
        on=ON,
        code=RUN.reporting,
    message:
        "figures of {params.on}"
    shell:
        "harness figures {params.on:q} 2>&1 > {log:q} | tee -a {log:q} >&2"


rule audit:
    input:
        RUN.evaluated,
    output:
        report(AT + "/tables/audit.md", category="Audit"),
    log:
        AT + "/logs/audit.log",
    benchmark:
        AT + "/logs/audit.tsv"
    resources:
        mem_mb=500,
    params:
        on=ON if RUN.evaluated else [],  # without answers the paper stands alone
        code=RUN.reporting,
    message:
        "audit of the paper beside {params.on}"
    shell:
        "harness audit {params.on:q} --out {output:q} 2>&1 > {log:q} | tee -a {log:q} >&2"


rule report:
    input:
        RUN.evaluated + RUN.measured,
    output:
        report(AT + "/report/index.html", category="Report"),
    log:
        AT + "/logs/report.log",
    benchmark:
        AT + "/logs/report.tsv"
    resources:
        mem_mb=1000,
    params:
        on=ON,
        code=RUN.reporting,
    message:
        "report of {params.on}"
    shell:
        "harness report {params.on:q} 2>&1 > {log:q} | tee -a {log:q} >&2"


rule evaluate:
    input:
        lambda w: RUN.before_evaluation(w.backbone, w.row, w.seed),
    output:
        JOB + "/evaluated.json",
    log:
        JOB + "/evaluate.log",
    benchmark:
        JOB + "/evaluate.tsv"
    priority: lambda w: RUN.priority(w.backbone, w.row, w.seed, "evaluate")
    resources:
        mem_mb=200,
    params:
        inputs=lambda w: RUN.fingerprint(w.backbone, w.row, w.seed, "evaluate"),
    message:
        "evaluate {wildcards.row} (seed {wildcards.seed}) on {wildcards.backbone}"
    shell:
        "harness evaluate {ON:q} --backbone {wildcards.backbone:q} --row {wildcards.row:q}"
        " --seed {wildcards.seed} 2>&1 | tee {log:q}"


rule measure:
    input:
        AT + "/{backbone}/backbone.json",
    output:
        AT + "/{backbone}/{row}/efficiency.json",
    log:
        AT + "/{backbone}/{row}/measure.log",
    benchmark:
        AT + "/{backbone}/{row}/measure.tsv"
    priority: -1  # when nothing else is left to do
    threads: 1024  # all that there are, so that nothing runs beside it
    resources:
        mem_mb=200,
    params:
        inputs=lambda w: RUN.fingerprint(w.backbone, w.row, 0, "measure"),
    message:
        "measure {wildcards.row} on {wildcards.backbone}"
    shell:
        "harness measure {ON:q} --backbone {wildcards.backbone:q} --row {wildcards.row:q}"
        " 2>&1 | tee {log:q}"


rule fit:
    input:
        AT + "/{backbone}/backbone.json",
    output:
        JOB + "/fit.json",
    log:
        JOB + "/fit.log",
    benchmark:
        JOB + "/fit.tsv"
    priority: lambda w: RUN.priority(w.backbone, w.row, w.seed, "fit")
    resources:
        mem_mb=200,
    params:
        inputs=lambda w: RUN.fingerprint(w.backbone, w.row, w.seed, "fit"),
    message:
        "fit {wildcards.row} (seed {wildcards.seed}) on {wildcards.backbone}"
    shell:
        "harness fit {ON:q} --backbone {wildcards.backbone:q} --row {wildcards.row:q}"
        " --seed {wildcards.seed} 2>&1 | tee {log:q}"


rule prepare:
    output:
        AT + "/{backbone}/backbone.json",
    log:
        AT + "/{backbone}/prepare.log",
    benchmark:
        AT + "/{backbone}/prepare.tsv"
    priority: 1000000  # all else waits for it; the others' are seconds
    resources:
        mem_mb=200,
    params:
        source=lambda w: RUN.experiment.backbones[w.backbone].model_dump_json(),
    message:
        "prepare {wildcards.backbone}"
    shell:
        "harness prepare {ON:q} --backbone {wildcards.backbone:q} 2>&1 | tee {log:q}"
