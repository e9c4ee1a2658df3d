"""A memory at hand: open a backbone, attach a method, write, ask, save. What a job does, for one history."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import fits, generation, seals
from harness.backbones import Backbone, open_backbone
from harness.episodes import History, Message, Query
from harness.errors import HarnessError
from harness.experiment import BackboneSpec, RunSpec
from harness.method import Condition, MemoryMethod, MemoryState
from harness.records import write_sealed
from harness.registry import resolve


class Session:
    """One history beside one backbone, written piece by piece and asked at any time.

    Answers are greedy and come through the same prompts as in an experiment.

    Args:
        method: Attached to its backbone; :meth:`open` makes one from names.
        condition: ``removed`` (the memory alone answers), ``own_text`` (what the method puts back) or ``replayed``
            (the history in the prompt); None takes what the method was trained for, else the first that it serves.
        system: The instruction under which history and questions are read.
        fit: Digest of the parameters in use, empty for none; a saved state belongs to them.
        batch_size: Questions decoded together at most.

    Raises:
        HarnessError: the method does not serve the condition.
    """

    def __init__(
        self,
        method: MemoryMethod,
        condition: Condition | None = None,
        *,
        system: str = "",
        fit: str = "",
        batch_size: int = 16,
    ) -> None:
        serves = [c for c in method.capabilities.arms if c != "windowed"]  # what is in sight is an experiment's to say
        self.method, self.system, self.fit, self.batch_size = method, system, fit, batch_size
        self.condition = condition or method.capabilities.fits or serves[0]
        if self.condition not in serves:
            raise HarnessError(
                f"method '{method.name}' does not serve the condition '{condition}'; it serves: {', '.join(serves)}"
            )
        self.clear()

    @classmethod
    def open(
        cls,
        backbone: str | BackboneSpec,
        method: str,
        *,
        fit: str | Path | None = None,
        condition: Condition | None = None,
        system: str = "",
        seed: int = 42,
        run: RunSpec | None = None,
        **settings: Any,
    ) -> Session:
        """Open a backbone and attach a memory method to it.

        Args:
            backbone: A local folder, a hub id, an installed package with a GGUF file, or ``random:<shape>``.
            method: Name of a method, or of a preset of one (see ``harness methods``).
            fit: Folder of a stored fit, or of a job that has one; None leaves the parameters as they start.
            settings: Settings of the method that differ from the preset.

        Raises:
            HarnessError: a name is unknown, the backbone is not to be had, or the fit is another method's.
        """
        spec = BackboneSpec(**source_of(backbone)) if isinstance(backbone, str) else backbone
        made, config = resolve(method, settings)
        run = run or RunSpec()
        attached = made(config, open_backbone(spec, run), seed)
        try:
            digest = _restore(attached, Path(fit)) if fit else ""
            return cls(attached, condition, system=system, fit=digest, batch_size=run.batch_size)
        except HarnessError:
            attached.close()
            raise

    @property
    def backbone(self) -> Backbone:
        return self.method.backbone

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take the method off; the backbone is then the frozen one again."""
        self.method.close()

    def clear(self) -> None:
        """Forget what was written."""
        self.state: MemoryState | None = None
        self.messages: tuple[Message, ...] = ()
        """The history itself, kept only where it stands in the prompt."""

    def write(self, *messages: str | Message) -> None:
        """Add to the history. One call is one logical write; the next one continues from its state."""
        said = tuple(m if isinstance(m, Message) else Message(m) for m in messages)
        if not any(m.content.strip() for m in said):
            raise HarnessError("there is nothing to write; give at least one message with some text")
        if self.condition == "replayed":
            self.messages += said
        else:
            self.state = self.method.write(History(said, self.system), self.state)

    def ask(self, question: str, *, max_new_tokens: int = 32) -> str:
        """The answer to one question; asking changes nothing."""
        return self.ask_all([question], max_new_tokens=max_new_tokens)[0]

    def ask_all(self, questions: Sequence[str], *, max_new_tokens: int = 32) -> list[str]:
        """Answers in order. Questions that the memory steers alike are decoded together."""
        if self.condition == "own_text" and self.state is None:
            raise HarnessError("nothing has been written that could be put back; call write first")
        queries = [Query(self.system, text, str(n)) for n, text in enumerate(questions)]
        steered = [(q, self.method.steer(self.state, q, writes=self.condition == "replayed")) for q in queries]
        answers: list[str] = []
        for _, alike in groupby(steered, key=lambda pair: pair[1].acts):
            batch = list(alike)
            prompts = [generation.prompt(self.backbone, s.messages or self.messages, q, s.unit) for q, s in batch]
            found, _ = generation.answer(
                self.backbone, prompts, batch[0][1], max_new_tokens=max_new_tokens, batch_size=self.batch_size
            )
            answers += [answer.text.strip() for answer in found]
        return answers

    # --- on disk ---

    def save(self, directory: str | Path) -> None:
        """Write the memory into a folder: the state, and the history only where it stands in the prompt."""
        directory = Path(directory)
        if self.state is not None:
            self.state.save(directory / "state")
        kind = None if self.state is None else [type(self.state).__module__, type(self.state).__name__]
        facts = {
            "state": kind,
            "files": seals.digests(directory / "state"),
            "messages": [asdict(m) for m in self.messages],
            "made_by": self._made_by(),
        }
        write_sealed(directory / "session.json", facts)

    def load(self, directory: str | Path) -> None:
        """Take up a memory that :meth:`save` wrote, in place of what was written here.

        Raises:
            HarnessError: there is none, it has changed since, or another backbone, method or fit made it.
        """
        file = Path(directory) / "session.json"
        if not file.is_file():
            raise HarnessError(f"{directory} holds no session.json; name a folder that a session was saved into")
        facts = seals.read(file, "save the session again")
        files = seals.digests(file.parent / "state")
        if facts.get("files", files) != files:
            raise HarnessError(f"the memory in {directory} has changed since it was saved; save the session again")
        for what, ours in self._made_by().items():
            if facts["made_by"][what] != ours:
                raise HarnessError(f"the memory in {directory} was made with another {what}; open a session with that")
        self.state = _state_class(self.method, *facts["state"]).load(file.parent / "state") if facts["state"] else None
        self.messages = tuple(Message(**m) for m in facts["messages"])

    def _made_by(self) -> dict[str, Any]:
        """Everything without which a state means nothing, or something else."""
        config = self.method.config.model_dump(mode="json")
        method = [self.method.name, config, self.method.FIT_VERSION]
        return {
            "backbone": self.backbone.digest,
            "method": method,
            "fit": self.fit or self.method.seed,
            "condition": self.condition,
            "instruction": self.system,
        }


def source_of(name: str) -> dict[str, str]:
    """Which kind of backbone a name means."""
    if name.startswith("random:"):
        return {"random": name.removeprefix("random:")}
    if Path(name).is_dir():
        return {"folder": name}
    return {"hub" if "/" in name else "gguf": name}


def _restore(method: MemoryMethod, folder: Path) -> str:
    """Load a stored fit, or the one that a job's ``fit.json`` names; gives the digest of its parameters."""
    if not (folder / "fit.json").is_file():
        raise HarnessError(f"{folder} holds no fit.json; name a folder under results/fits, or a job's folder")
    report = seals.read(folder / "fit.json")
    if (report["method"], report["config"]) != (method.name, method.config.learned_with()):
        raise HarnessError(
            f"{folder} is a fit of method '{report['method']}' with other settings; open that one, or another fit"
        )
    stores = [folder] if (folder / "adapter_model.safetensors").is_file() else []
    stores += [found for above in folder.resolve().parents if (found := fits.find(above, report["address"]))]
    if not stores:
        raise HarnessError(f"the fit that {folder / 'fit.json'} names is not stored; run the experiment again")
    fits.restore(method, stores[0], report["address"])
    return str(report["adapter_hash"])


def _state_class(method: MemoryMethod, module: str, name: str) -> type[MemoryState]:
    """The class of a saved state, looked for in the method's own modules and nowhere else."""
    home = type(method).__module__
    found = getattr(importlib.import_module(module), name, None) if f"{module}.".startswith(f"{home}.") else None
    if not (isinstance(found, type) and issubclass(found, MemoryState)):
        raise HarnessError(f"'{module}.{name}' is no state of method '{method.name}'; save the session again")
    return found
