"""What docs/threats.md promises: nothing that is read can run, no name leaves its folder, no secret is told."""

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from harness import backbones, config, executor, fits, lm, registry, sources
from harness.data import files
from harness.errors import HIDDEN, HarnessError, redact
from harness.experiment import BackboneSpec, RunSpec, TaskSpec, is_slug
from harness.reporting import reported
from harness.tasks import Prompts

ROOMS = ("harness", "methods", "baselines", "benchmarks")
UNSAFE_MODULES = {
    "pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "tarfile", "zipfile",
}  # fmt: skip
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__"}
UNSAFE_CALLS = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "yaml.load", "yaml.load_all",
    "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle", "pandas.read_pickle", "shutil.unpack_archive",
}  # fmt: skip
UNSAFE_METHODS = {"to_pickle", "extractall"}
UNSAFE_OPTIONS = {"shell", "allow_pickle", "trust_remote_code"}
"""True may not be written for them."""


def unsafe(source: str) -> list[str]:
    """What of a file could run what it reads: line and words."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            found += [f"{node.lineno}: import {n}" for n in names if n.split(".")[0] in UNSAFE_MODULES]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        options = {k.arg: k.value for k in node.keywords}
        true = {k for k, v in options.items() if isinstance(v, ast.Constant) and v.value is True}
        if called == "torch.load" and "weights_only" not in true:
            found.append(f"{node.lineno}: torch.load without weights_only=True")
        method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        plain = isinstance(node.func, ast.Name) and called in UNSAFE_NAMES
        if plain or called in UNSAFE_CALLS or method in UNSAFE_METHODS or true & UNSAFE_OPTIONS:
            found.append(f"{node.lineno}: {called}")
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "import tarfile as t", "eval('1')", "exec(text)",
        "os.system('ls')", "torch.load(file)", "torch.load(file, weights_only=False)", "yaml.load(text)",
        "subprocess.run('ls', shell=True)", "np.load(file, allow_pickle=True)", "pd.read_pickle(file)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)", "archive.extractall(out)",
    ],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source):
    assert unsafe(source)


def test_no_file_of_the_project_can_run_what_it_reads():
    found = {
        f"{file}:{line}"
        for room in ROOMS
        for file in Path(room).rglob("*.py")
        for line in unsafe(file.read_text("utf-8"))
    }
    assert found == set()
    assert unsafe("model.eval(); ast.literal_eval(x); torch.load(f, weights_only=True); yaml.safe_load(x)") == []


def test_the_harness_says_of_every_model_that_its_code_is_not_run():
    calls = [
        (str(file), node.lineno, {k.arg for k in node.keywords}, ast.unparse(node))
        for file in Path("harness").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Call) and re.match(r"Auto\w+\.from_pretrained", ast.unparse(node.func))
    ]
    assert len(calls) >= 4
    for file, line, options, text in calls:
        assert "trust_remote_code" in options or re.search(r"\*\*(where|source)", text), f"{file}:{line}"


# --- payloads ---


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


@pytest.fixture
def payload(tmp_path):
    """Bytes of a pickle that leaves a mark when it is read; that it does is seen first."""
    mark = tmp_path / "mark"
    text = pickle.dumps(Payload(mark))
    pickle.loads(text)
    assert mark.exists()
    mark.unlink()
    yield text
    assert not mark.exists(), "a payload was executed"


@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "x.csv", "x.parquet", "x.json.gz"])
def test_a_pickle_in_the_place_of_data_is_refused(payload, tmp_path, name):
    (tmp_path / name).write_bytes(payload)
    with pytest.raises(HarnessError, match=re.escape(name)):
        files.read(tmp_path / name)


def test_a_pickle_in_the_place_of_parameters_is_refused(payload, tmp_path):
    (tmp_path / "adapter_model.safetensors").write_bytes(payload)
    with pytest.raises(Exception, match=r"[Hh]eader|adapter_model"):
        fits.load_module(torch.nn.Linear(2, 2), tmp_path)


def test_a_pickle_among_the_checkpoints_of_a_fit_is_refused(payload, tmp_path):
    """The Trainer writes its optimiser as `.pt`; it must read it as weights only."""
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    trainer = Trainer(torch.nn.Linear(2, 2), arguments)
    trainer.create_optimizer_and_scheduler(1)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"x": Payload(tmp_path / "mark")}, tmp_path / name)
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        trainer._load_optimizer_and_scheduler(str(tmp_path))
    with pytest.raises(pickle.UnpicklingError, match=r"[Ww]eights.only"):
        trainer._load_rng_state(str(tmp_path))


# --- code that comes with a model ---


@pytest.fixture
def bringing_code(tmp_path):
    """A model folder whose configuration names a Python file, which leaves a mark when it is imported."""
    folder = tmp_path / "own_model"
    llama = backbones.open_backbone(BackboneSpec(random="tiny-llama"))
    llama.model.save_pretrained(folder)
    llama.tokenizer.save_pretrained(folder)
    told = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps({**told, "model_type": "own_kind", "auto_map": auto_map}))
    (folder / "own.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'mark')!r}).touch()\n"
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class OwnConfig(LlamaConfig):\n    model_type = 'own_kind'\n"
        "class OwnModel(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    return folder


def test_code_that_comes_with_a_model_is_not_run(bringing_code, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # who is asked would say yes
    with pytest.raises(HarnessError, match="Python code of its own, which is not run"):
        backbones.open_backbone(BackboneSpec(folder=str(bringing_code)))
    from transformers import AutoModelForCausalLM

    with pytest.raises(ValueError, match="trust_remote_code"):  # nor by a method that says nothing of it
        AutoModelForCausalLM.from_pretrained(bringing_code)
    assert not (bringing_code.parent / "mark").exists()


def test_allowed_code_is_run_recorded_and_in_the_digest(bringing_code, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    spec = BackboneSpec(folder=str(bringing_code), remote_code=True)
    opened = backbones.open_backbone(spec, RunSpec())
    assert (bringing_code.parent / "mark").exists()
    assert opened.describe()["spec"]["remote_code"] is True
    with (bringing_code / "own.py").open("a") as file:
        file.write("# another line\n")
    assert sources.identity(spec, str(bringing_code), "main") != opened.digest
    assert "remote_code" not in BackboneSpec(random="tiny-llama").model_dump()


def test_rows_of_such_a_model_are_held_to_no_printed_number():
    spec = BackboneSpec(folder="x", remote_code=True, reported_as="Qwen3-4B-Instruct")
    reasons = list(reported.differences(spec, True, TaskSpec(task="hotpotqa@release"), [], 1, 1))
    assert reasons == ["remote code"]
    with pytest.raises(ValueError, match="give 'revision' the commit"):
        BackboneSpec(hub="a/b", remote_code=True)


# --- names ---

HOSTILE = [
    "..", "a/../b", "../x", "a..b", "/etc", "a/b", "a\0b", "a\n", "a\nb", "x" * 300, "$(touch x)", "`id`", "-rf",
    ".hidden", "a b", "a;b", "аdmin", "a\u202eb", "ａ", "a{b}", "a'b", 'a"b', "~", "", "a.", "a\\b", "%2e%2e", "a:b",
    "*",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_one_rule_refuses_every_hostile_name(name, tmp_path):
    assert not is_slug(name)
    written = json.dumps(name)
    plain = {"name": "x", "tiny": "tiny", "row": "frozen", "as": "a", "gguf": "tiny-llama"}
    for place in plain:
        words = {**{k: json.dumps(v) for k, v in plain.items()}, place: written}
        source = f"gguf: {written}" if place == "gguf" else 'random: "tiny-llama"'
        path = tmp_path / "x.yaml"
        path.write_text(
            f"name: {words['name']}\nbackbones: {{{words['tiny']}: {{{source}}}}}\n"
            f"rows: [{{row: {words['row']}, method: frozen}}]\n"
            f"tasks: [{{task: write_clear_read, as: {words['as']}}}]\ntraining: {{task: write_clear_read}}\n"
        )
        with pytest.raises(HarnessError, match=r"x\.yaml line \d: ") as caught:
            config.load(str(path))
        assert not re.search(r"[\x00-\x1f]", str(caught.value))
        assert len(str(caught.value)) < 400 + len(str(path))


def test_no_other_file_has_a_rule_of_its_own():
    """`re.match` of the pattern would let a newline and any length pass."""
    users = [str(f) for f in Path("harness").rglob("*.py") if re.search(r"\bSLUG\b", f.read_text("utf-8"))]
    assert users == ["harness/experiment.py"]


@pytest.mark.parametrize("name", ["x", "smoke", "qwen3-4b", "hotpotqa@release", "v1.2_b", "x" * 64])
def test_plain_names_keep_the_rule(name):
    assert is_slug(name)


@pytest.mark.parametrize("name", ["a b", "-x", "$(id)", "..x", "x" * 70])
def test_a_plugin_goes_by_the_same_rule(tmp_path, name):
    file = tmp_path / f"{name}.py"
    file.write_text("")
    with pytest.raises(HarnessError, match="has no plain name"):
        registry.plug([file])


def test_an_experiment_takes_no_folder_of_the_results(tmp_path):
    text = Path("config/smoke.yaml").read_text(encoding="utf-8")
    for name in ("fits", "reference"):
        (tmp_path / "x.yaml").write_text(text.replace("name: smoke", f"name: {name}"))
        with pytest.raises(HarnessError, match="is a folder of the results already"):
            config.load(str(tmp_path / "x.yaml"))


# --- YAML ---

BOMB = "a: &a [x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefghijk", "bcdefghijkl", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "anchors and aliases are not read"),
        ("a: !!python/object/apply:os.system ['touch mark']", "is not read; write a plain value"),
        ("a: !!binary aGk=", "is not read"),
        ("# " + "x" * config.MAX_BYTES, "larger than"),
        ("[" * 5000, "nested deeper"),
        ("a: 1\na: 2", "given twice"),
    ],
)
def test_every_yaml_file_goes_through_the_one_reader(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.yaml"
    file.write_text(text)
    from harness import overlay

    for read in (config.read, Prompts, lambda f: overlay.read(f, "locomo"), lambda f: config.load(str(f))):
        with pytest.raises(HarnessError, match=said) as caught:
            read(file)
        assert "x.yaml" in str(caught.value)
    assert not (tmp_path / "mark").exists()


def test_an_override_is_read_as_safely():
    for value in ("!!python/name:os.system", "&a [*a]", "[" * 50):
        with pytest.raises(HarnessError, match="override"):
            config.load("smoke", [f"title={value}"])


# --- shell ---


def test_every_value_in_a_shell_command_is_quoted():
    text = Path("Snakefile").read_text(encoding="utf-8")
    commands = re.findall(r'    shell:\n((?:        "[^\n]*\n)+)', text)
    assert len(commands) == text.count("shell:") >= 7
    for command in commands:
        for value in re.findall(r"\{([^}]*)\}", command):
            assert value.endswith(":q") or value == "wildcards.seed", command
    assert r'seed=r"\d+"' in text


# --- secrets ---

SENTINELS = {
    "HF_TOKEN": "hf_sentinelAAAAAAAAAAAA",
    "WANDB_API_KEY": "wandb-sentinel-BBBBBBBB",
    "AWS_SECRET_ACCESS_KEY": "aws/sentinel+CCCCCCCC",
}


@pytest.fixture
def sentinels(monkeypatch):
    for name, value in SENTINELS.items():
        monkeypatch.setenv(name, value)
    return list(SENTINELS.values())


def test_no_error_tells_a_secret(sentinels):
    said = f"401 for https://me:pass1234@hub/x with {' and '.join(sentinels)}"
    for text in (
        str(HarnessError(said)),
        str(executor.JobError(f"Traceback\n{said}")),
        lm._unanswered(OSError(said))["failure"]["reason"],
    ):
        assert HIDDEN in text
        assert not any(secret in text for secret in (*sentinels, "pass1234"))
        assert "401 for https://" in text


def test_a_short_value_and_a_token_from_elsewhere(monkeypatch):
    monkeypatch.setenv("SOME_KEY", "a")
    assert redact("a word") == "a word"
    assert redact("hf_" + "x" * 30) == HIDDEN
    monkeypatch.setenv("LONG_TOKEN", "abcdefgh-ij")
    monkeypatch.setenv("SHORT_TOKEN", "abcdefgh")
    assert redact("abcdefgh-ij") == HIDDEN


def test_a_hub_that_echoes_the_token_is_not_echoed(sentinels, monkeypatch):
    def refuse(*_, **__):
        raise OSError(f"401 Client Error: Bearer {sentinels[0]}\nmore")

    monkeypatch.setattr(backbones.AutoTokenizer, "from_pretrained", refuse)
    with pytest.raises(HarnessError, match=r"cannot be opened \(401 .*\*\*\*\)") as caught:
        backbones.open_backbone(BackboneSpec(hub="a/b"))
    assert sentinels[0] not in str(caught.value)


def test_an_inline_fault_is_told_without_secrets(sentinels, monkeypatch):
    from harness import jobs

    def broken(request):
        raise RuntimeError(f"at {sentinels[1]}")

    monkeypatch.setattr(jobs, "run", broken)
    with pytest.raises(executor.JobError, match=r"RuntimeError: at \*\*\*") as caught:
        executor.submit({"experiment": {"run": {"executor": "inline"}}})
    assert sentinels[1] not in str(caught.value)


def test_a_sentence_stays_one_line_and_speaks_to_no_terminal():
    assert str(HarnessError("a\x1b[2Jb\nc\r\0d\u2028e")) == "a [2Jb c d e"


def test_the_command_line_tells_no_secret(tmp_path):
    """A mistake that quotes the environment's own token."""
    secret = SENTINELS["HF_TOKEN"]
    done = subprocess.run(
        [sys.executable, "-m", "harness", "plan", f"no_{secret}"]
        if Path("harness/__main__.py").exists()
        else [str(Path(sys.executable).with_name("harness")), "plan", f"no_{secret}"],
        env={**os.environ, **SENTINELS}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert secret not in done.stdout + done.stderr
    assert HIDDEN in done.stderr


def test_parameters_of_a_folder_are_tensors_only(tmp_path):
    save_file({"weight": torch.ones(2, 2), "bias": torch.ones(2)}, tmp_path / "adapter_model.safetensors")
    module = torch.nn.Linear(2, 2)
    fits.load_module(module, tmp_path)
    assert bool((module.weight == 1).all())


def test_no_claim_rests_on_such_a_model():
    from types import SimpleNamespace

    from harness.reporting.summary import Place, Summary

    def leads(spec: dict) -> bool:
        record = SimpleNamespace(provenance=SimpleNamespace(backbone={"spec": spec}))
        return Summary.may_lead(SimpleNamespace(records_of=lambda place: [record]), Place("b", "r", "t", "removed"))  # type: ignore[arg-type]

    assert leads({"folder": "x"})
    assert not leads({"folder": "x", "remote_code": True})
