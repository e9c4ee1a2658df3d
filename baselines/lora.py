"""LoRA: one static low-rank adapter, trained on the same episodes with the history in the prompt.

The paper's row "Context2LoRA" by the reading that the evidence favours (specification of baselines 5.2): rank 8 on
q, k, v, o; it keeps nothing of a history, so under ``removed`` it shows what an adapter learns of the format alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from harness.episodes import Episode, History, Query
from harness.method import AdapterMethod, Capabilities, MemoryState, MethodConfig, Steering

if TYPE_CHECKING:
    from harness.backbones import Backbone
    from harness.experiment import Budget
    from harness.progress import Progress
    from harness.training import FitReport


class Settings(MethodConfig):
    """The shape that gives the paper's 5.90M parameters on Qwen3-4B."""

    rank: int = Field(8, ge=1, description="r. Paper: 8.")
    alpha: int = Field(16, ge=1, description="The update is scaled by alpha / r. Paper: 16.")
    targets: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj"), min_length=1, description="Linear layers adapted."
    )


class Lora(AdapterMethod):
    """A static adapter; the history stays in the prompt."""

    name = "lora"
    summary = "one static rank-8 adapter trained on the same episodes, history in the prompt"
    Config = Settings
    capabilities = Capabilities(family="parametric", arms={"replayed": ("own",), "removed": ("own",)}, fits="replayed")

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        import torch
        from peft import LoraConfig

        super().__init__(config, backbone, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.peft = backbone.attach(
                LoraConfig(
                    r=config.rank,
                    lora_alpha=config.alpha,
                    target_modules=list(config.targets),
                    lora_dropout=0.0,
                    task_type="CAUSAL_LM",
                ),
                self.name,
            )

    def fit(self, episodes: Sequence[Episode], budget: Budget, workdir: Path, progress: Progress) -> FitReport:
        """Cross-entropy on the answer after history and question; of longer prompts the end is kept."""
        from harness import training

        limit = budget.max_write_tokens + budget.max_read_tokens

        with self.backbone.active(self.name):
            return training.fit(
                self.peft,
                episodes,
                lambda batch: training.replayed(self.backbone, batch, limit),
                lambda model, batch: (training.answer_loss(model, batch), int(batch.mask.sum())),
                backbone=self.backbone,
                budget=budget,
                seed=self.seed,
                workdir=workdir,
                progress=progress,
            )

    def write(self, history: History, state: MemoryState | None = None) -> None:
        return None

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        return Steering(adapter=self.name)

    def trainable_parameters(self) -> int:
        return sum(p.numel() for n, p in self.peft.named_parameters() if "lora_" in n)
