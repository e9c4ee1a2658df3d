"""δ-mem (arXiv 2605.12357): an online state beside frozen attention, written by a gated delta rule, read as
low-rank corrections. The three variants TSW, SSW and MSW are presets of one method.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.episodes import Episode, History, Query
from harness.errors import HarnessError
from harness.method import AdapterMethod, Capabilities, MemoryState, MethodConfig, Steering, Unit

if TYPE_CHECKING:
    from harness.backbones import Backbone
    from harness.experiment import Budget
    from harness.gates import GateOutcome
    from harness.progress import Progress
    from harness.training import FitReport


def _added(default: Any, **options: Any) -> Any:
    """A setting that came after fits were published: at its default it leaves their addresses as they are."""
    return Field(default, exclude_if=lambda value: value == default, **options)


class Settings(MethodConfig):
    """Hyper-parameters of δ-mem; defaults are the paper's and the release's (specification 1.10, 2)."""

    rank: int = Field(8, ge=1, description="r: a state is r x r. Paper: 8.")
    alpha: float = Field(16.0, gt=0, description="Corrections are scaled by alpha / r. Paper: 16.")
    states: int = Field(1, ge=1, description="N, independent states a layer. TSW and SSW 1, MSW 4.")
    writes: Literal["token", "message_mean", "sentence_mean"] = Field(
        "token", description="What is written: each token, or means of messages or sentences."
    )
    heads: tuple[Literal["q", "k", "v", "o"], ...] = Field(
        ("q", "o"), min_length=1, description="Projections corrected."
    )
    layers: tuple[int, ...] | Literal["front", "middle", "back"] | None = Field(
        None, description="Layers with a memory, by index or a third of all; None is all."
    )
    rankwise_gates: bool = Field(True, description="A gate a row of S; false: one a state.")
    couple_lambda: bool = Field(True, description="Keep gate = 1 - write gate.")
    normalize_qk: bool = Field(True, description="tanh and unit norm of q and k.")
    update: Literal["standard", "lambda_outside", "no_lambda"] = Field("standard", description="Form of the update.")
    beta_bias: float = Field(-1.5, description="Initial bias of the write gate (sigmoid of it: 0.18).")
    output_init: Literal["zero", "random", "base_slice", "base_slice_fixed"] = Field(
        "base_slice_fixed", description="How the correction heads start."
    )
    online_gain: float = Field(0.05, ge=0, description="Scale of their initial columns.")
    write_chunk: int = Field(
        2048, ge=1, description="History tokens a forward while writing; does not change the result."
    )
    base_slice_ref_width: int = _added(8, ge=1, description="Columns that base_slice_fixed copies at most.")
    delta_o_rmsnorm: bool = _added(False, description="RMSNorm of the output correction. Release: off.")
    trainable_delta_scale: Literal["layer", "head"] | None = _added(
        None, description="A learned factor on the corrections, one a layer or one a head. Release: none."
    )
    delta_scale_init: float = _added(1.0, gt=0, description="That factor at the start, below its maximum.")
    delta_scale_max: float = _added(2.0, gt=0, description="Its upper bound.")
    state_dtype: Literal["float32", "bfloat16"] = _added(
        "float32", description="How S is stored between calls; it is computed in float32 or wider."
    )
    answer_writes: bool = _added(
        True, description="Whether, under `replayed`, the answer's tokens are written too, as in the release."
    )
    objective: Literal["paper", "release"] = _added(
        "paper", description="paper: cross-entropy on the answer; release: with its header and write sparsity."
    )
    write_sparsity: float = _added(
        0.01, ge=0, description="Weight of write sparsity in the release's objective. Qwen3: 0.01, SmolLM3: 0."
    )

    def write_load(self, tokens: int, device: str) -> float:
        return tokens

    recompute: int | None = _added(
        None, ge=1, description="Tokens a part of a training write, recomputed in the backward pass; None keeps all."
    )


class DeltaMem(AdapterMethod):
    """A memory beside each self-attention module of a frozen backbone."""

    name = "delta_mem"
    summary = "an r x r online state a layer, written by a gated delta rule, read as corrections of attention"
    Config = Settings
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "delta_mem_tsw": {},
        "delta_mem_ssw": {"writes": "message_mean"},
        "delta_mem_msw": {"states": 4},
        "delta_mem_tsw_release": {"objective": "release"},
    }
    capabilities = Capabilities(
        family="online_state",
        arms={
            "replayed": ("own", "donor", "mean", "zero"),
            "windowed": ("own", "donor", "mean", "shuffled", "zero"),
            "removed": ("own", "donor", "mean", "shuffled", "zero"),
        },
        fits="removed",
    )
    FIT_VERSION = 1

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        from methods.delta_mem._model import DeltaMemConfig

        super().__init__(config, backbone, seed)
        self.unit: Unit = "sentence" if config.writes == "sentence_mean" else "message"
        self.peft = backbone.attach(
            DeltaMemConfig(
                r=config.rank,
                alpha=config.alpha,
                num_state_heads=config.states,
                memory_write_granularity=config.writes,
                delta_heads=list(config.heads),
                layers_to_transform=_indices(config.layers, backbone.model.config.num_hidden_layers),
                rankwise_gates=config.rankwise_gates,
                couple_lambda=config.couple_lambda,
                normalize_qk=config.normalize_qk,
                state_update_mode=config.update,
                beta_bias_init=config.beta_bias,
                output_init=config.output_init,
                base_slice_ref_width=config.base_slice_ref_width,
                online_gain=config.online_gain,
                delta_o_rmsnorm=config.delta_o_rmsnorm,
                trainable_delta_scale=config.trainable_delta_scale is not None,
                delta_scale_granularity=config.trainable_delta_scale or "layer",
                delta_scale_init=config.delta_scale_init,
                delta_scale_max=config.delta_scale_max,
                state_dtype=config.state_dtype,
                seed=seed,
            ),
            self.name,
        )
        self.memory = self.peft.base_model

    def fit(self, episodes: Sequence[Episode], budget: Budget, workdir: Path, progress: Progress) -> FitReport:
        from methods.delta_mem._fit import fit

        return fit(self, episodes, budget, workdir, progress)

    def write(self, history: History, state: MemoryState | None = None) -> MemoryState:
        """One logical call, fed in chunks on a KV cache; continued online, positions start again at 0.

        A history longer than the backbone's window is read in contexts that the window holds: each begins without
        keys and values of the one before and at position 0, with the state, and of message writes the open segment,
        carried on. Keys and values are never more than a window's, however long the history is.
        """
        from methods.delta_mem._cache import Tally
        from methods.delta_mem._state import DeltaState, Gates, stacked

        before = state if isinstance(state, DeltaState) else None
        cache = self.memory.memory_cache(before.rows() if before else None)
        cache.tallies = [Tally() for _ in cache.states]
        ids, owner = self.backbone.encode(history.messages, system=history.system, unit=self.unit)
        for part in self._contexts(history, len(ids)):
            cache.reset()
            self.feed(cache, ids[part], owner[part])
        self.memory.commit(cache)
        tokens = len(ids) + (before.tokens if before else 0)
        gates = Gates.of(cache.tallies, self.config.couple_lambda)
        return DeltaState(stacked(cache.states), tokens, gates + before.gates if before and before.gates else gates)

    def _contexts(self, history: History, tokens: int) -> list[slice]:
        """What is read in one context: whole messages, and of one beyond the window as much as it holds."""
        window = self.backbone.window
        if tokens <= window:
            return [slice(0, tokens)]
        _, message = self.backbone.encode(history.messages, system=history.system)
        begins = [t for t in range(1, tokens) if message[t] != message[t - 1]]
        cuts = [0]
        while tokens - cuts[-1] > window:
            within = begins[bisect_right(begins, cuts[-1]) : bisect_right(begins, cuts[-1] + window)]
            cuts.append(within[-1] if within else cuts[-1] + window)
        return [slice(*pair) for pair in pairwise([*cuts, tokens])]

    def feed(self, cache: Any, ids: list[int], owner: list[int], chunk: int | None = None) -> Any:
        """Run tokens through the steered backbone, in chunks (``write_chunk``), without vocabulary logits.

        Returns:
            Hidden states of the last chunk, [1, T, H]; None where there are no tokens.
        """
        import torch

        decoder, chunk, hidden = self.backbone.model.get_decoder(), chunk or self.config.write_chunk, None
        with torch.no_grad(), self.backbone.active(self.name):
            for at in range(0, len(ids), chunk):
                part = slice(at, at + chunk)
                cache.announce(torch.tensor([owner[part]], device=self.backbone.device))
                tokens = torch.tensor([ids[part]], device=self.backbone.device)
                hidden = decoder(input_ids=tokens, past_key_values=cache).last_hidden_state
        return hidden

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        """Reads from ``state`` (without one, from zero); a trace replaces what is read, position by position."""
        from methods.delta_mem._state import Start

        start = Start(self.memory, state, writes, self.config.answer_writes)
        return Steering(adapter=self.name, past_key_values=start, unit=self.unit)

    def trace(self, history: History, query: Query) -> MemoryState:
        """The reads over another episode's prompt and greedy answer, streamed from a zero state."""
        from methods.delta_mem._trace import trace

        return trace(self, history, query)

    def mean(self, memories: Sequence[MemoryState], own: MemoryState | None) -> MemoryState:
        """The mean state, with each of ``own``'s norms a layer and head; of traces, their one mean read a layer."""
        from methods.delta_mem._mean import mean

        return mean(memories, own)

    def gates(self, probe: Sequence[Episode]) -> list[GateOutcome]:
        from methods.delta_mem._gates import run

        return run(self, probe)

    def trainable_parameters(self) -> int:
        return sum(p.numel() for layer in self.memory.layers for p in layer.memory.parameters())

    @classmethod
    def adapter_tools(cls) -> Any:
        from methods.delta_mem import _tools

        return _tools


def _indices(layers: tuple[int, ...] | str | None, count: int) -> list[int] | None:
    """Layer indices that a setting means on a backbone of ``count`` layers."""
    if layers is None:
        return None
    if isinstance(layers, str):
        if count < 3:
            raise HarnessError(f"a backbone of {count} layers has no thirds; name layers by index")
        third = ("front", "middle", "back").index(layers)
        return list(range(third * count // 3, (third + 1) * count // 3))
    strange = [n for n in layers if not 0 <= n < count]
    if strange:
        raise HarnessError(f"the backbone has no layer {strange[0]}; name layers from 0 to {count - 1}")
    return list(layers)
