"""MLP Memory (arXiv 2508.01832): a stack of gated MLPs beside the backbone, trained to say what kNN-LM would say.

The network has no attention. It reads, token by token, the vector x that enters the MLP of the backbone's last layer
and gives next-token probabilities, which are mixed with the backbone's: p = (1 - λ) p_LM + λ p_mem. Its targets are the
kNN-LM distributions of a datastore over the training contexts, keys x and values the tokens that came next. It keeps
nothing of a history; what it holds is the training corpus.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.episodes import Episode, History, Message, Query
from harness.errors import HarnessError
from harness.method import Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.mlp_memory._knn import Datastore
    from harness.backbones import Backbone
    from harness.experiment import Budget
    from harness.progress import Progress
    from harness.training import FitReport

PART = 1024
"""Tokens whose vocabulary logits are held at once in training."""


class Settings(MethodConfig):
    """Defaults: the paper's row on Qwen3-4B, 3,078,648,320 parameters, with the official data of the method."""

    READING: ClassVar[frozenset[str]] = frozenset({"lam"})

    blocks: int | None = Field(
        None,
        ge=1,
        description="Gated MLP blocks; None is the backbone's number of layers (paper: 36 on Qwen3-4B). Official: 8 "
        "beside 7B models.",
    )
    head: Literal["own", "tied"] = Field(
        "own",
        description="Vocabulary head: trained, starting from the backbone's, or the backbone's own, frozen. Official "
        "and paper: own.",
    )
    k: int = Field(
        1024, ge=1, description="Neighbours a key, exact; all others where there are fewer. Official: 1024, by IVF-PQ."
    )
    temperature: float | None = Field(
        None,
        gt=0,
        description="T: a neighbour at squared distance d² weighs exp(-d²/T). Official: 16; distances grow with the "
        "width, so None takes the T at which the median entropy of the weights is log 10 nats.",
    )
    alpha: float = Field(
        0.5, ge=0, le=1, description="Loss: α KL(kNN || memory) + (1 - α) cross-entropy. Official: 0.5."
    )
    datastore_tokens: int = Field(
        1_000_000,
        ge=2,
        description="Keys at most; episodes beyond them, in order, are left out of the datastore and of the training. "
        "Official: the whole corpus, some 10^8.",
    )
    lam: float = Field(
        0.25,
        ge=0,
        le=1,
        description="λ, the memory's share of the next token's probability; 0 is the backbone alone. Official: 0.25 "
        "for language modelling, 0.5 for questions; the paper's is not known.",
    )


class MLPMemory(MemoryMethod):
    """A static memory network whose probabilities are mixed with the backbone's."""

    name = "mlp_memory"
    summary = "gated MLPs trained toward kNN-LM over the training contexts, mixed at λ, history in the prompt"
    Config = Settings
    presets: ClassVar = {
        "mlp_memory": {},
        "mlp_memory_small": {"blocks": 4, "head": "tied", "k": 64, "datastore_tokens": 200_000, "lam": 0.1},
    }
    capabilities = Capabilities(
        family="outside_channel", arms={"replayed": ("own",), "removed": ("own",)}, fits="replayed"
    )

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        super().__init__(config, backbone, seed)
        self.network = _network(config, backbone, seed)
        self.temperature: float | None = None
        """T of the last fit."""
        reader = _Reader(self)
        self.steering = (
            Steering(hooks=reader.watching, logits_processor=reader, notes={"lambda": config.lam})
            if config.lam
            else Steering(notes={"lambda": 0.0})
        )

    # --- learning ---

    def fit(self, episodes: Sequence[Episode], budget: Budget, workdir: Path, progress: Progress) -> FitReport:
        """Toward kNN-LM on every token of the training prompts and their answers; of longer ones the end is kept.

        The backbone reads each prompt once, for the datastore, which is made again where a fit resumes. A batch is
        the tokens of its episodes. The report's seconds include the datastore; its tokens do not.
        """
        import time

        import torch

        from harness import training

        start = time.monotonic()
        store, spans = self._datastore(episodes, budget.max_write_tokens + budget.max_read_tokens, progress)
        self.temperature = self.config.temperature or store.calibrated(self.config.k, self.seed)
        seconds = time.monotonic() - start

        def collate(batch: list[tuple[int, int]]) -> _Batch:
            at = torch.cat([torch.arange(*span) for span in batch]).to(store.keys.device)
            return _Batch(store.keys[at].float(), store.values[at], *store.targets(at, self.config.k, self.temperature))

        report = training.fit(
            self.network,
            spans,
            collate,
            lambda _, batch: (self._loss(batch), len(batch.keys)),
            backbone=self.backbone,
            budget=budget,
            seed=self.seed,
            workdir=workdir,
            progress=progress,
        )
        return replace(report, seconds=round(report.seconds + seconds, 1))

    def _datastore(
        self, episodes: Sequence[Episode], limit: int, progress: Progress
    ) -> tuple[Datastore, list[tuple[int, int]]]:
        """Keys and next tokens of the episodes' prompts, and the range of each episode that is in it.

        Of further questions of one history, only their own tokens are taken.
        """
        import torch

        from baselines.mlp_memory._knn import Datastore
        from harness import training

        backbone, keys, values, spans, size = self.backbone, [], [], [], 0
        with torch.no_grad(), _watching(backbone.model) as seen:
            for n, e in enumerate(episodes):
                written = len(backbone.encode(e.history.messages, system=e.history.system)[0])
                begin = size
                for i, q in enumerate(e.questions):
                    asked = [*e.history.messages, Message(q.text)]
                    ids, _ = training.answer_ids(backbone, asked, e.history.system, q.answers[0])
                    kept = torch.tensor(ids[-limit:], device=backbone.device)
                    fresh = max(0, written - (len(ids) - len(kept))) if i else 0
                    backbone.model.get_decoder()(input_ids=kept[None], use_cache=False)
                    keys.append(seen[-1][0, fresh:-1].half())
                    values.append(kept[fresh + 1 :])
                    size += len(values[-1])
                    seen.clear()
                spans.append((begin, size))
                progress.update("datastore", n + 1, len(episodes), tokens=size)
                if size >= self.config.datastore_tokens:
                    break
        if size < 2:
            raise HarnessError(
                f"the training episodes give a datastore of {size} tokens, and a neighbour needs two; train on more"
            )
        return Datastore(torch.cat(keys), torch.cat(values)), spans

    def _loss(self, batch: _Batch) -> Tensor:
        """α KL(kNN || memory) + (1 - α) cross-entropy, nats a token."""
        import torch
        from torch.utils.checkpoint import checkpoint

        parts = list(zip(*(tensor.split(PART) for tensor in vars(batch).values()), strict=True))
        if len(parts) == 1:
            return self._part_loss(*parts[0]) / len(batch.keys)
        losses = [checkpoint(self._part_loss, *part, use_reentrant=False) for part in parts]
        return torch.stack(losses).sum() / len(batch.keys)

    def _part_loss(self, keys: Tensor, following: Tensor, near: Tensor, weights: Tensor) -> Tensor:
        """The loss of [B] tokens, summed."""
        import torch

        logs = self.predict(keys)
        entropy = -torch.xlogy(weights, weights).sum()
        divergence = -(weights * logs.gather(1, near)).sum() - entropy
        ce = torch.nn.functional.nll_loss(logs, following, reduction="sum")
        return self.config.alpha * divergence + (1 - self.config.alpha) * ce

    # --- reading ---

    def predict(self, keys: Tensor) -> Tensor:
        """The memory's log-probabilities [B, V] of the next tokens, from keys [B, d] in fp32."""
        import torch
        from torch.nn.functional import linear, silu

        x = keys
        for block in self.network["blocks"]:
            h = block["norm"](x)
            x = x + block["down"](silu(block["gate"](h)) * block["up"](h))
        own = self.network["head"].weight if self.config.head == "own" else None
        head = self.backbone.model.get_output_embeddings().weight if own is None else own
        return torch.log_softmax(linear(self.network["norm"](x).to(head.dtype), head).float(), -1)

    def write(self, history: History, state: MemoryState | None = None) -> None:
        return None

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        return self.steering

    # --- counts and files ---

    def trainable_parameters(self) -> int:
        """L (3 d f + d) + d, and V d more with a head of its own."""
        return sum(p.numel() for p in self.network.parameters())

    def extra_parameters(self) -> int:
        return self.trainable_parameters()

    def save(self, directory: Path) -> None:
        from harness import fits

        fits.save_module(self.network, directory, temperature=repr(self.temperature))

    def load(self, directory: Path) -> None:
        from harness import fits

        fits.load_module(self.network, directory)


def _network(config: Settings, backbone: Backbone, seed: int) -> Any:
    """The blocks, the final norm and, where it is the memory's own, the head; fp32 on the backbone's device.

    Blocks start as a transformer's do, at the backbone's initializer range; final norm and head as the backbone's.
    """
    import torch
    from torch import nn

    lm = backbone.model.config
    d, f, std = lm.hidden_size, lm.intermediate_size, getattr(lm, "initializer_range", 0.02)
    last_mlp(backbone.model)

    def block() -> nn.ModuleDict:
        shapes = {"gate": (d, f), "up": (d, f), "down": (f, d)}
        linears = {name: nn.Linear(*shape, bias=False) for name, shape in shapes.items()}
        for layer in linears.values():
            nn.init.normal_(layer.weight, std=std)
        return nn.ModuleDict({"norm": nn.RMSNorm(d, eps=lm.rms_norm_eps), **linears})

    with torch.random.fork_rng(), torch.device(backbone.device):
        torch.manual_seed(seed)
        depth = config.blocks or lm.num_hidden_layers
        parts = {"blocks": nn.ModuleList([block() for _ in range(depth)]), "norm": nn.RMSNorm(d, eps=lm.rms_norm_eps)}
        if config.head == "own":
            parts["head"] = nn.Linear(d, lm.vocab_size, bias=False)
            parts["head"].weight.data.copy_(backbone.model.get_output_embeddings().weight)
        parts["norm"].weight.data.copy_(backbone.model.get_decoder().norm.weight)
        return nn.ModuleDict(parts).float().eval()


def last_mlp(model: Any) -> Any:
    """The module whose input is the key.

    Raises:
        HarnessError: the backbone has none by that name.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if not layers or not hasattr(layers[-1], "mlp"):
        raise HarnessError(
            f"mlp_memory reads what enters layers[-1].mlp, which a '{model.config.model_type}' backbone has not; "
            "take a backbone of the Llama or Qwen kind"
        )
    return layers[-1].mlp


@contextlib.contextmanager
def _watching(model: Any) -> Iterator[list[Tensor]]:
    """A list of what entered the last MLP, a tensor [B, T, d] a forward."""
    seen: list[Tensor] = []
    handle = last_mlp(model).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    try:
        yield seen
    finally:
        handle.remove()


class _Reader:
    """Watches the forward passes of an answer, and mixes each one's scores with what the memory says.

    A logits processor, and one object a method, so that all its questions share a batch.
    """

    def __init__(self, method: MLPMemory) -> None:
        self.method = method
        self.seen: list[Tensor] = []

    @contextlib.contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        with _watching(model) as self.seen:
            yield

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Log-probabilities [B, V] of the mixture; prompts are padded on the left, so the last position counts."""
        import torch

        lam, key = self.method.config.lam, self.seen[-1][:, -1].float()
        self.seen.clear()
        memory = self.method.predict(key) + math.log(lam)
        if lam == 1:
            return memory
        return torch.logaddexp(torch.log_softmax(scores.float(), -1) + math.log1p(-lam), memory)


@dataclass
class _Batch:
    """B tokens to learn from."""

    keys: Tensor
    """[B, d], fp32."""
    following: Tensor
    """[B], the tokens that came next."""
    near: Tensor
    """[B, k], the tokens of the kNN distribution."""
    weights: Tensor
    """[B, k], their probabilities; each token once, the rest 0."""
