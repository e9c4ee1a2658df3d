"""The Python face: written piece by piece, asked, saved and taken up again."""

import json
import subprocess
import sys

import pytest
import torch

from harness import Session, fits, seals
from harness.errors import HarnessError
from harness.experiment import Budget
from harness.progress import Progress
from harness.records import write_sealed

SHORT = {"max_new_tokens": 4}


def opened(method="delta_mem_tsw", **options):
    return Session.open("random:tiny-llama", method, **options)


def noisy(session):
    """Corrections large enough to be seen in the answers of random weights."""
    for layer in session.method.memory.layers:
        for name, parameter in layer.memory.named_parameters():
            if name.startswith("delta_"):
                torch.nn.init.normal_(parameter, std=1.0, generator=torch.Generator().manual_seed(0))
    return session


def test_importing_the_package_imports_no_torch():
    code = "import sys, harness\nassert 'Session' in harness.__all__ and 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_attribute_of_the_package_is_refused():
    import harness

    with pytest.raises(AttributeError, match="Sesion"):
        harness.Sesion  # noqa: B018


@pytest.mark.parametrize(
    ("method", "condition"),
    [
        ("frozen", "replayed"),
        ("question_only", "removed"),
        ("bm25_rag", "own_text"),
        ("lora", "replayed"),
        ("delta_mem_ssw", "removed"),
    ],
)
def test_every_kind_of_memory_answers_in_its_own_condition(method, condition):
    with opened(method) as session:
        assert session.condition == condition
        session.write("Ada's boat is red.")
        assert session.ask_all(["What colour?", "Whose boat?"], **SHORT) == [
            session.ask("What colour?", **SHORT),
            session.ask("Whose boat?", **SHORT),
        ]
        assert session.ask_all([]) == []


def test_what_was_written_acts_on_the_answer_and_clearing_forgets_it():
    with noisy(opened()) as session:
        before = session.ask("What colour?", max_new_tokens=8)
        session.write("Ada's boat is red.", "Ben's hat is blue.")
        written = session.ask("What colour?", max_new_tokens=8)
        assert session.ask("What colour?", max_new_tokens=8) == written != before
        session.clear()
        assert session.ask("What colour?", max_new_tokens=8) == before


def test_the_state_alone_is_kept_where_the_history_is_removed():
    with opened() as session:
        session.write("Ada's boat is red.")
        session.write("Ben's hat is blue.")
        assert session.messages == ()
        assert session.state.tokens > len("Ada's boat is red. Ben's hat is blue.")


@pytest.mark.parametrize("method", ["frozen", "bm25_rag", "delta_mem_msw"])
def test_a_saved_memory_answers_alike_in_another_session(method, tmp_path):
    with opened(method) as session:
        session.write("Ada's boat is red.", "Ben's hat is blue.")
        said = session.ask("What colour is Ada's boat?", **SHORT)
        session.save(tmp_path)
    with opened(method) as session:
        session.load(tmp_path)
        assert session.ask("What colour is Ada's boat?", **SHORT) == said
    assert ("red" in (tmp_path / "session.json").read_text()) == (method == "frozen")


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"method": "delta_mem_msw"}, "method"),
        ({"seed": 7}, "fit"),
        ({"condition": "replayed"}, "condition"),
        ({"system": "Be brief."}, "instruction"),
    ],
)
def test_a_memory_of_another_making_is_refused(other, what, tmp_path):
    with opened() as session:
        session.write("Ada's boat is red.")
        session.save(tmp_path)
    with opened(**other) as session, pytest.raises(HarnessError, match=f"another {what}"):
        session.load(tmp_path)


def test_a_saved_state_names_no_code_outside_its_method(tmp_path):
    with opened() as session:
        session.write("Ada's boat is red.")
        session.save(tmp_path)
        file = tmp_path / "session.json"
        write_sealed(file, {**seals.read(file), "state": ["subprocess", "Popen"]})
        with pytest.raises(HarnessError, match="is no state of method 'delta_mem'"):
            session.load(tmp_path)


def test_a_saved_memory_of_which_a_bit_has_changed_is_refused(tmp_path):
    with opened() as session:
        session.write("Ada's boat is red.")
        session.save(tmp_path)
        for file in (tmp_path / "state" / "state.safetensors", tmp_path / "session.json"):
            content = file.read_bytes()
            file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
            with pytest.raises(
                HarnessError, match=r"(has changed since it was saved|seal does not hold).*save the session"
            ):
                session.load(tmp_path)
            file.write_bytes(content)
        session.load(tmp_path)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, episodes):
    """A results folder with one fit of TSW, and a job that used it."""
    results = tmp_path_factory.mktemp("results")
    budget = Budget(steps=1, batch_size=2, accumulation=1)
    with opened() as session:
        fit = fits.obtain(session.method, session.backbone, episodes, budget, results, Progress(None))
    job = results / "smoke" / "tiny" / "delta_mem_tsw" / "seed42"
    job.mkdir(parents=True)
    (job / "fit.json").write_text(json.dumps({**fit.facts(), "budget": {}}))
    return fit.folder, job


@pytest.mark.parametrize("place", [0, 1], ids=["of a fit", "of a job"])
def test_a_fit_is_opened_by_its_folder(fitted, place):
    with opened(fit=fitted[place]) as session:
        assert session.fit == fits.adapter_hash(fitted[0])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: opened("delta_mem_tws"), "did you mean 'delta_mem_tsw'"),
        (lambda: opened(rang=4), "did you mean 'rank'"),
        (lambda: opened("frozen", condition="removed"), "it serves: replayed"),
        (lambda: opened(fit="nowhere"), "nowhere holds no fit.json"),
        (lambda: Session.open("no-such-package", "frozen"), "pip install --no-deps no-such-package"),
        (lambda: Session.open("random:tiny-lama", "frozen"), "did you mean 'tiny-llama'"),
        (lambda: opened().write(" "), "nothing to write"),
        (lambda: opened("bm25_rag").ask("What?"), "call write first"),
        (lambda: opened().load("nowhere"), "nowhere holds no session.json"),
    ],
)
def test_mistakes_are_told_with_the_mend(call, said):
    with pytest.raises(HarnessError, match=said):
        call()


def test_a_fit_of_other_settings_is_refused(fitted):
    with pytest.raises(HarnessError, match="other settings"):
        opened("delta_mem_msw", fit=fitted[0])
