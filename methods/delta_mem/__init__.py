"""δ-mem (arXiv 2605.12357): an online state beside frozen attention, written by a gated delta rule, read as
low-rank corrections. The three variants TSW, SSW and MSW are presets of one method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.episodes import Episode, History, Query
from harness.method import AdapterMethod, Capabilities, MemoryState, MethodConfig, Steering

if TYPE_CHECKING:
    from harness.backbones import Backbone
    from harness.experiment import Budget
    from harness.gates import GateOutcome
    from harness.progress import Progress
    from harness.training import FitReport


class Settings(MethodConfig):
    """Hyper-parameters of δ-mem; defaults are the paper's and the release's (specification 1.10, 2)."""

    rank: int = Field(8, ge=1, description="r: a state is r x r. Paper: 8.")
    alpha: float = Field(16.0, gt=0, description="Corrections are scaled by alpha / r. Paper: 16.")
    states: int = Field(1, ge=1, description="N, independent states a layer. TSW and SSW 1, MSW 4.")
    writes: Literal["token", "message_mean"] = Field(
        "token", description="What is written: each token, or message means."
    )
    heads: tuple[Literal["q", "k", "v", "o"], ...] = Field(
        ("q", "o"), min_length=1, description="Projections corrected."
    )
    layers: tuple[int, ...] | None = Field(None, description="Layers with a memory; None is all.")
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


class DeltaMem(AdapterMethod):
    """A memory beside each self-attention module of a frozen backbone."""

    name = "delta_mem"
    summary = "an r x r online state a layer, written by a gated delta rule, read as corrections of attention"
    Config = Settings
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "delta_mem_tsw": {},
        "delta_mem_ssw": {"writes": "message_mean"},
        "delta_mem_msw": {"states": 4},
    }
    capabilities = Capabilities(
        family="online_state",
        arms={"replayed": ("own", "donor"), "removed": ("own", "donor")},
        fits="removed",
    )
    FIT_VERSION = 1

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        from methods.delta_mem._model import DeltaMemConfig

        super().__init__(config, backbone, seed)
        self.peft = backbone.attach(
            DeltaMemConfig(
                r=config.rank,
                alpha=config.alpha,
                num_state_heads=config.states,
                memory_write_granularity=config.writes,
                delta_heads=list(config.heads),
                layers_to_transform=None if config.layers is None else list(config.layers),
                rankwise_gates=config.rankwise_gates,
                couple_lambda=config.couple_lambda,
                normalize_qk=config.normalize_qk,
                state_update_mode=config.update,
                beta_bias_init=config.beta_bias,
                output_init=config.output_init,
                online_gain=config.online_gain,
                seed=seed,
            ),
            self.name,
        )
        self.memory = self.peft.base_model

    def fit(self, episodes: Sequence[Episode], budget: Budget, workdir: Path, progress: Progress) -> FitReport:
        from methods.delta_mem._fit import fit

        return fit(self, episodes, budget, workdir, progress)

    def write(self, history: History, state: MemoryState | None = None) -> MemoryState:
        """One logical call, fed in chunks on a KV cache; continued online, positions start again at 0."""
        from methods.delta_mem._state import DeltaState, stacked

        before = state if isinstance(state, DeltaState) else None
        cache = self.memory.memory_cache(before.rows() if before else None)
        ids, owner = self.backbone.encode(history.messages, system=history.system)
        self.feed(cache, ids, owner)
        self.memory.commit(cache)
        return DeltaState(stacked(cache.states), len(ids) + (before.tokens if before else 0))

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

        return Steering(adapter=self.name, past_key_values=Start(self.memory, state, writes))

    def trace(self, history: History, query: Query) -> MemoryState:
        """The reads over another episode's prompt and greedy answer, streamed from a zero state."""
        from methods.delta_mem._trace import trace

        return trace(self, history, query)

    def gates(self, probe: Sequence[Episode]) -> list[GateOutcome]:
        from methods.delta_mem._gates import run

        return run(self, probe)

    def trainable_parameters(self) -> int:
        return sum(p.numel() for layer in self.memory.layers for p in layer.memory.parameters())
