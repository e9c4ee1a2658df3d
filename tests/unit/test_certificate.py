"""Gates on answers: a method that breaks one is refused, whatever it is made of; the healthy ones pass."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest
import torch

from harness import certificate
from harness.gates import GateError
from harness.method import Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering


class Text(MemoryState):
    def __init__(self, messages):
        self.messages = messages

    def nbytes(self):
        return 1

    def describe(self):
        return {}

    def save(self, directory):
        raise NotImplementedError

    @classmethod
    def load(cls, directory):
        raise NotImplementedError


class PutBack(MemoryMethod):
    """Puts the whole history back, and shifts the first layer's output by a constant."""

    name = "put_back"
    summary = "for tests"
    capabilities = Capabilities(family="textual", arms={"own_text": ("own",)})

    def write(self, history, state=None):
        return Text(history.messages)

    def steer(self, state, query, *, writes=False):
        return Steering(messages=state.messages, hooks=self.shifted)

    def shift(self, output):
        return output + 0.1

    @contextlib.contextmanager
    def shifted(self, model):
        hook = model.get_decoder().layers[0].register_forward_hook(lambda m, a, output: self.shift(output))
        try:
            yield
        finally:
            hook.remove()


class Remembers(PutBack):
    """What was written before stays in what is written next."""

    told: tuple = ()

    def steer(self, state, query, *, writes=False):
        Remembers.told = (*Remembers.told, *state.messages)[-3:]
        return Steering(messages=Remembers.told)


class Drifts(PutBack):
    """The same history, another memory each time."""

    count = 0

    def write(self, history, state=None):
        self.count += 1
        return Text((*history.messages, replace(history.messages[0], content=f"{self.count} times.")))


class Mixes(PutBack):
    """Rows of a batch see each other."""

    def shift(self, output):
        return output + torch.linspace(-1, 1, len(output)).reshape(-1, 1, 1) * output.mean()


class CountsPads(PutBack):
    """What acts on a token depends on where it stands in the padded row."""

    def shift(self, output):
        return output + 0.05 * torch.arange(output.shape[1]).reshape(1, -1, 1).flip(1).remainder(5) * (len(output) - 1)


class Stays(PutBack):
    """Leaves its hook behind."""

    @contextlib.contextmanager
    def shifted(self, model):
        model.get_decoder().layers[0].register_forward_hook(lambda m, a, output: output + 0.1)
        yield


def gates(cls, tiny, episodes, **run):
    return certificate.run(cls(MethodConfig(), tiny(**run), 1), episodes[:2], "own_text")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_healthy_method_passes(tiny, episodes, dtype):
    found = gates(PutBack, tiny, episodes, dtype=dtype)
    assert {g.name: g.status for g in found} == dict.fromkeys(
        ("isolation.answers", "isolation.written_anew", "equality.answers_batch", "equality.answers_padding",
         "equality.answers_eager", "isolation.backbone"), "pass"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "gate"),
    [
        (Remembers, "isolation.answers"),
        (Drifts, "isolation.written_anew"),
        (Mixes, "equality.answers_batch"),
        (CountsPads, "equality.answers"),
        (Stays, "isolation"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_broken_method_is_refused(broken, gate, tiny, episodes):
    with pytest.raises(GateError, match=f"gate {gate}"):
        gates(broken, tiny, episodes)


def test_a_probe_that_is_refused_proves_nothing_and_says_so(tiny, episodes, monkeypatch):
    monkeypatch.setattr(PutBack, "write", lambda self, history, state=None: 1 / 0)
    (found,) = gates(PutBack, tiny, episodes)
    assert (found.status, found.note) == ("warn", "not proven, for the probe met ZeroDivisionError")


def test_equal_configurations_have_equal_certificates(tiny):
    method = PutBack(MethodConfig(), tiny(), 1)
    made = certificate.certify(method, [], "", 16)
    assert made == certificate.certify(PutBack(MethodConfig(), tiny(), 1), [], "", 16)
    others = [
        certificate.certify(method, [], "another fit", 16),
        certificate.certify(method, [], "", 8),
        certificate.certify(PutBack(MethodConfig(), tiny(dtype="bfloat16"), 1), [], "", 16),
        certificate.certify(PutBack(MethodConfig(), tiny(attention="eager"), 1), [], "", 16),
    ]
    assert len({c.digest for c in (made, *others)}) == 5
