"""The closed forms behind a plan: what a backbone of so many parameters takes to read, to write and to answer.

Three things take time:

- **Operations.** A token costs twice the backbone's parameters, and what it attends to: four operations a width, a
  layer and a token looked back at. A history in sight is read once for all its questions, text put back once a
  question. A training step costs two forward passes, for the weights are frozen.
- **Bytes.** A decoding step reads the weights once for a whole batch, and each row's keys and values, which a growing
  cache also copies. A CPU multiplies a few rows hardly faster than one after the other.
- **Calls.** A forward pass takes a least time a layer, however little it computes.

Speeds are what one CPU thread (SmolLM2-135M, fp32) and one H100-class GPU (bf16) may be expected to do. Widths follow
from the number of parameters, as in the shapes of :mod:`harness.shapes`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError
from harness.experiment import BackboneSpec, Experiment, RunSpec

Device = Literal["cpu", "cuda"]

OPERATIONS = {"cpu": 5e10, "cuda": 2e14}
"""Operations a second in prefill, a CPU thread and a GPU."""
DECODING = {"cpu": 5.5e9, "cuda": 2e14}
"""Operations a second in decoding, where few rows are multiplied at a time."""
BYTES = {"cpu": 1.3e10, "cuda": 2e12}
"""Bytes of weights, keys and values read a second in decoding."""
LEAST = {"cpu": 1e-3, "cuda": 8e-4}
"""Seconds a layer and forward pass at least: a program in Python calls operators, and launches kernels."""
CACHE_COPIES = 3
"""A cache that grows by a token is read, written anew, and read by attention."""
ASPECT = 80
"""Width over layers of a backbone: from 19 (SmolLM2-135M) to 114 (Qwen3-8B)."""
TRAINED_PARAMETERS = 1e5
"""About what a recipe under harness/recipes has."""


@dataclass(frozen=True)
class Load:
    """What is fed: tokens, pairs of a token with one that it looks back at, and the forward passes that feed them."""

    tokens: float = 0.0
    pairs: float = 0.0
    calls: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(self.tokens + other.tokens, self.pairs + other.pairs, self.calls + other.calls)

    def __mul__(self, times: float) -> Load:
        return Load(self.tokens * times, self.pairs * times, self.calls * times)


def writing(histories: int, fed: float, tokens: float) -> Load:
    """``fed`` tokens a history of ``tokens`` are written, or trained on; no more of them than it has look back at all
    of it.
    """
    return Load(histories * fed, histories * min(fed, tokens) * tokens / 2, histories * bool(fed))


@dataclass(frozen=True)
class Forms:
    """Seconds that one worker of ``run`` takes with a backbone of ``count`` parameters."""

    count: float
    run: RunSpec

    @classmethod
    def of(cls, experiment: Experiment, backbone: str) -> Forms:
        """Of a backbone of an experiment."""
        return cls(parameters(experiment.backbones[backbone]), experiment.run)

    @property
    def device(self) -> Device:
        return "cuda" if self.run.gpus_per_worker else "cpu"

    @property
    def width(self) -> float:
        """Of a layer: twelve times its square a layer makes the parameters; a third of it for keys or values."""
        return (self.count * ASPECT / 12) ** (1 / 3)

    @property
    def layers(self) -> float:
        return self.width / ASPECT

    def asking(self, histories: int, answers: int, context: float, question: float, *, shared: bool = True) -> Load:
        """Prompts of ``context`` tokens before a question of ``question``; ``shared``, they are read once a history."""
        times = histories if shared else answers
        asked, passes = answers * question, self._batches(histories, answers) + times * bool(context)
        return Load(times * context + asked, times * context**2 / 2 + asked * context, passes)

    def operations(self, load: Load) -> float:
        """Of a forward pass."""
        return 2 * self.count * load.tokens + 4 * self.layers * self.width * load.pairs

    def reading(self, load: Load) -> float:
        """Seconds of forward passes."""
        return self.operations(load) / self._speed(OPERATIONS) + load.calls * self.layers * LEAST[self.device]

    def training(self, load: Load) -> float:
        """Seconds of forward passes, and of the passes back."""
        return 2 * self.reading(load)

    def decoding(self, histories: float, answers: float, context: float, length: float) -> float:
        """Seconds of answers of ``length`` tokens after ``context``; the first one comes from reading the prompt."""
        steps, batches = max(0.0, length - 1), self._batches(histories, answers)
        width = 4 if self.run.dtype == "float32" else 2
        cache = CACHE_COPIES * answers * context * 2 * self.layers * self.width / 3
        read = width * (batches * self.count + cache) / self._speed(BYTES)
        rows = 2 * self.count * answers / self._speed(DECODING)
        return steps * (read + rows + batches * self.layers * LEAST[self.device])

    def _batches(self, histories: float, answers: float) -> float:
        """The questions of one history are answered together, so many at most."""
        return histories * math.ceil(answers / histories / self.run.batch_size) if answers else 0.0

    def _speed(self, table: dict[str, float]) -> float:
        return table[self.device] * (self.run.gpus_per_worker or math.ceil(self.run.cpus_per_worker))


def parameters(spec: BackboneSpec) -> float:
    """Rough number of parameters, without opening the model.

    Raises:
        HarnessError: a hub id that does not say its size, or a package or shape that is not there.
    """
    if spec.hub:
        found = re.search(r"(\d+(?:\.\d+)?)([BM])(?![A-Za-z])", spec.hub)
        return float(found[1]) * {"B": 1e9, "M": 1e6}[found[2]] if found else 1e9
    if spec.folder:
        return sum(file.stat().st_size for file in Path(spec.folder).glob("*.safetensors")) / 2
    if spec.gguf:
        package = importlib.util.find_spec(spec.gguf.replace("-", "_"))
        if package is None or not package.submodule_search_locations:
            raise HarnessError(f"the package '{spec.gguf}' is not installed; run `make env`")
        files = Path(package.submodule_search_locations[0]).glob("*.gguf")
        return sum(file.stat().st_size for file in files) / 0.7  # four to six bits a weight, embeddings more
    if spec.trained:
        return TRAINED_PARAMETERS
    shapes = Path(__file__).with_name("shapes")
    if not (shapes / f"{spec.random}.json").is_file():
        known = ", ".join(sorted(p.stem for p in shapes.glob("*.json")))
        raise HarnessError(f"unknown shape '{spec.random}'; known: {known}")
    shape = json.loads((shapes / f"{spec.random}.json").read_text(encoding="utf-8"))
    layer = 4 * shape["hidden_size"] ** 2 + 3 * shape["hidden_size"] * shape["intermediate_size"]
    return shape["vocab_size"] * shape["hidden_size"] + shape["num_hidden_layers"] * layer
