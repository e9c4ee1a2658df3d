"""Prefix tuning: p learned keys and values before every prompt, trained on the same episodes, history in the prompt.

Li and Liang's static prefix through PEFT (specification of baselines 6), without the reparametrisation by an MLP. It
keeps nothing of a history; it is `lora`'s partner at an equal number of parameters.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from harness.episodes import Episode, History, Query
from harness.errors import HarnessError
from harness.method import AdapterMethod, Capabilities, MemoryState, MethodConfig, Steering

if TYPE_CHECKING:
    from harness.backbones import Backbone
    from harness.experiment import Budget
    from harness.progress import Progress
    from harness.training import FitReport, Reads

TEXT = (
    "Read what you are given before you say anything.",
    "The answer is often a name, a number or a short phrase.",
    "A good reply uses the words of the text and no others.",
    "When two statements disagree, the later one holds.",
    "Dates and places are repeated as they were written.",
    "Some questions need two parts of the text at once.",
    "Long passages may hold a single sentence that matters.",
    "Say plainly when something was not mentioned.",
    "People are called by the names they have in the text.",
    "A list is given in the order in which it was told.",
    "Numbers keep their units, and quotations their wording.",
    "The reply is short and ends when the question is met.",
)
"""Neutral sentences whose keys and values are the start; a seed draws their order, so that seeds differ."""


class Settings(MethodConfig):
    """The length of the prefix. The learning rate is the budget's: prefixes want some 1e-3 to 5e-3, more than LoRA."""

    virtual_tokens: int = Field(
        80,
        ge=1,
        description="p, positions. 80 is the size of the rank-8 LoRA on SmolLM2 (921,600); 66 of δ-mem's 4.87M on "
        "Qwen3-4B. PEFT's comparison on MetaMathQA: 50 to 200.",
    )
    init: Literal["text", "random"] = Field(
        "text",
        description="text: keys and values of a real text (41.6% on MetaMathQA in PEFT's comparison, at 50 tokens and "
        "learning rate 5e-3); random: normal numbers (18.6%, at 200 tokens and 1e-3).",
    )


class PrefixTuning(AdapterMethod):
    """A static prefix; the history stays in the prompt, behind it."""

    name = "prefix_tuning"
    summary = "80 learned keys and values a layer before every prompt, trained on the same episodes"
    Config = Settings
    capabilities = Capabilities(family="parametric", arms={"replayed": ("own",), "removed": ("own",)}, fits="replayed")

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        import torch
        from peft import PrefixTuningConfig, initialize_kv_prefix_from_text

        super().__init__(config, backbone, seed)
        if config.virtual_tokens >= backbone.window:
            raise HarnessError(
                f"{config.virtual_tokens} virtual tokens leave no room in the backbone's window of {backbone.window}; "
                "lower virtual_tokens"
            )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.peft = backbone.attach(
                PrefixTuningConfig(num_virtual_tokens=config.virtual_tokens, task_type="CAUSAL_LM"), self.name
            )
        if config.init == "text" and backbone.device.type != "meta":  # an outline has nothing to read it with
            text = self._text(config.virtual_tokens)
            initialize_kv_prefix_from_text(self.peft, backbone.tokenizer, text=text)

    def _text(self, tokens: int) -> str:
        """Sentences in the seed's order, again and again until there are enough of them."""
        sentences: list[str] = []
        while self.backbone.count(" ".join(sentences)) < tokens:
            sentences += random.Random(f"{self.seed}/{len(sentences)}").sample(TEXT, len(TEXT))
        return " ".join(sentences)

    def fit(self, episodes: Sequence[Episode], budget: Budget, workdir: Path, progress: Progress) -> FitReport:
        """Cross-entropy on the answer after history and question, as `lora` is trained."""
        import torch

        from harness import training

        limit = budget.max_write_tokens + budget.max_read_tokens

        def loss(model: Any, batch: Reads) -> tuple[Any, int]:
            seen = torch.cat([batch.mask.new_ones(len(batch.mask), self.config.virtual_tokens), batch.mask], 1)
            prefix = model.get_prompt(batch_size=len(batch.mask))
            return training.answer_loss(model, replace(batch, mask=seen), past_key_values=prefix), int(batch.mask.sum())

        return training.fit(
            self.peft,
            episodes,
            lambda batch: training.replayed(self.backbone, batch, limit),
            loss,
            backbone=self.backbone,
            budget=budget,
            seed=self.seed,
            workdir=workdir,
            progress=progress,
        )

    def write(self, history: History, state: MemoryState | None = None) -> None:
        return None

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        return Steering(past_key_values=self._cache)

    def _cache(self) -> Any:
        """The prefix as a fresh cache of one row."""
        import torch

        with torch.no_grad():
            return self.peft.get_prompt(batch_size=1)

    def trainable_parameters(self) -> int:
        """p times layers times keys and values times key-value heads times the size of a head."""
        return sum(p.numel() for p in self.peft.prompt_encoder.parameters())
