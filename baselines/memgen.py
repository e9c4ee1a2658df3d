"""MemGen (arXiv 2509.24704): latent tokens that a second reader of the prompt puts behind it.

The weaver is the backbone with a LoRA adapter. It reads everything so far and K learned queries behind it; its last
hidden states at the queries, mapped back by a linear layer, are K latent tokens that the frozen backbone, the reasoner,
reads on from: once at the end of the prompt, and after the first delimiters of its answer. A trigger, a second adapter
with a head of two logits, is there to decide at delimiters; it is trained by reinforcement, which is out of scope here,
and as in every released configuration it always says yes. Nothing is kept of a history.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.episodes import Episode, History, Message, Query
from harness.errors import HarnessError
from harness.method import Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering, Weaver

if TYPE_CHECKING:
    from torch import Tensor

    from harness.backbones import Backbone
    from harness.experiment import Budget
    from harness.progress import Progress
    from harness.training import FitReport

DELIMITERS = (",", ".", "\n")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
WEAVER, TRIGGER = "default", "trigger"
"""The adapters' names in PEFT."""


class Settings(MethodConfig):
    """Defaults: the shape that gives the paper's 46,198,788 parameters on Qwen3-4B, with the official latents."""

    rank: int = Field(8, ge=1, description="r of both adapters. Paper: 8. Official: 16.")
    alpha: int = Field(
        16, ge=1, description="Updates are scaled by alpha / r. Official: 32 at rank 16; the paper's is not known."
    )
    targets: tuple[str, ...] = Field(
        ALL_LINEAR, min_length=1, description="Linear layers adapted. Paper: all seven. Official: q and v."
    )
    prompt_latents: int = Field(
        8, ge=0, description="K at the end of the prompt, latent tokens; 0 for none. Official: 8; 4 for SmolLM."
    )
    inference_latents: int = Field(
        8, ge=0, description="K after a delimiter of the answer, latent tokens; 0 for none. Official: 8; 4 for SmolLM."
    )
    max_insertions: int = Field(
        5, ge=0, description="N, insertions an answer at most, beside the prompt's; 0 for none. Official: 5."
    )
    trigger: Literal["always"] = Field(
        "always",
        description="What decides at a delimiter. Official: always in every released configuration; the trained one "
        "needs reinforcement learning, which is out of scope.",
    )

    @property
    def inserts(self) -> bool:
        """Whether latents may come into the answer; else there is neither a trigger nor queries for it."""
        return bool(self.inference_latents and self.max_insertions)


class MemGen(MemoryMethod):
    """Latents woven into the stream by the backbone under an adapter."""

    name = "memgen"
    summary = "latent tokens woven behind the prompt and its answer's delimiters, history in the prompt"
    Config = Settings
    presets: ClassVar = {
        "memgen": {},
        "memgen_prompt": {
            "rank": 16,
            "alpha": 32,
            "targets": ("q_proj", "v_proj"),
            "inference_latents": 0,
            "max_insertions": 0,
        },
    }
    capabilities = Capabilities(
        family="outside_channel", arms={"replayed": ("own",), "removed": ("own",)}, fits="replayed"
    )

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        import torch

        super().__init__(config, backbone, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.peft = self._adapters()
            self.parts = self._parts()
        weaves = config.prompt_latents or config.inserts
        self.steering = Steering(weave=self.weaver) if weaves else Steering()

    def _adapters(self) -> Any:
        """One PEFT model with the weaver's adapter active and the trigger's beside it, both off."""
        from peft import LoraConfig

        c = self.config
        lora = LoraConfig(r=c.rank, lora_alpha=c.alpha, target_modules=list(c.targets), task_type="CAUSAL_LM")
        peft = self.backbone.attach(lora, self.name)
        if c.inserts:
            peft.add_adapter(TRIGGER, lora)
            peft.base_model.disable_adapter_layers()
        return peft

    def _parts(self) -> Any:
        """All that is learned, fp32 on the backbone's device; the adapters' weights in it are PEFT's own.

        The two linears start as the identity, the queries with the size of the backbone's embeddings.
        """
        import torch
        from torch import nn

        c, d = self.config, self.backbone.model.config.hidden_size

        def linear() -> nn.Linear:
            layer = nn.Linear(d, d)
            nn.init.eye_(layer.weight)
            nn.init.zeros_(layer.bias)
            return layer

        def queries(count: int) -> nn.ModuleDict:
            scale = self.backbone.model.get_input_embeddings().weight.detach().float().square().mean().sqrt()
            drawn = torch.randn(count, d)
            return nn.ModuleDict(
                {"norm": nn.LayerNorm(d), "learned": nn.ParameterDict({"queries": drawn, "scale": scale})}
            )

        with torch.device(self.backbone.device):
            parts: dict[str, Any] = {"to_weaver": linear(), "to_reasoner": linear()}
            if c.prompt_latents:
                parts["prompt"] = queries(c.prompt_latents)
            if c.inserts:
                parts["inference"] = queries(c.inference_latents)
                parts["trigger_head"] = nn.Linear(d, 2)
        weights = {n.replace(".", "/"): p for n, p in self.backbone.model.named_parameters() if "lora_" in n}
        return nn.ModuleDict({**parts, "lora": nn.ParameterDict(weights)})

    # --- learning ---

    def fit(self, episodes: Sequence[Episode], budget: Budget, workdir: Path, progress: Progress) -> FitReport:
        """Cross-entropy on the answer, latents woven in as they are when it is decoded; of longer prompts the end.

        The trigger's parameters stay where they start.
        """
        import torch

        from harness import training

        if self.steering.weave is None:
            raise HarnessError("memgen without latents has nothing to learn; raise prompt_latents or inference_latents")
        limit = budget.max_write_tokens + budget.max_read_tokens

        def collate(batch: list[Episode]) -> list[tuple[Tensor, int]]:
            rows = []
            for e in batch:
                for q in e.questions:
                    asked = [*e.history.messages, Message(q.text)]
                    ids, start = training.answer_ids(self.backbone, asked, e.history.system, q.answers[0])
                    kept = torch.tensor([ids[-limit:]], device=self.backbone.device)
                    rows.append((kept, max(1, start - (len(ids) - kept.shape[1]))))
            return rows

        with self.backbone.active(self.name):
            return training.fit(
                self.parts,
                episodes,
                collate,
                lambda _, batch: (self._loss(batch), sum(ids.shape[1] for ids, _ in batch)),
                backbone=self.backbone,
                budget=budget,
                seed=self.seed,
                workdir=workdir,
                progress=progress,
            )

    def _loss(self, batch: list[tuple[Tensor, int]]) -> Tensor:
        """Nats a token of the answers; rows are read one by one, for each has its own places of latents."""
        import torch

        layers = self.peft.base_model
        layers.disable_adapter_layers()
        try:
            logits = torch.cat([self._logits(ids, start) for ids, start in batch])
        finally:
            layers.enable_adapter_layers()  # PEFT lets no gradient into an adapter that is off
        return torch.nn.functional.cross_entropy(logits.float(), torch.cat([ids[0, start:] for ids, start in batch]))

    def _logits(self, ids: Tensor, start: int) -> Tensor:
        """The reasoner's logits [A, V] of the tokens ``ids[0, start:]``, given all that stands before each."""
        import torch

        model = self.backbone.model
        embed, weaver = model.get_input_embeddings(), self.weaver()
        stream, at = [embed(ids[:, :start])], []
        for t in range(start, ids.shape[1]):
            woven = weaver(ids[:, :t])
            stream += [] if woven is None else [woven]
            at.append(sum(piece.shape[1] for piece in stream) - 1)
            stream.append(embed(ids[:, t : t + 1]))
        hidden = model.get_decoder()(inputs_embeds=torch.cat(stream[:-1], 1), use_cache=False).last_hidden_state
        return model.get_output_embeddings()(hidden[0, at])

    # --- reading ---

    def write(self, history: History, state: MemoryState | None = None) -> None:
        return None

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        return self.steering

    def weaver(self) -> Weaver:
        """A reader of one prompt and its answer."""
        return _Reader(self)

    def delimits(self, token: int) -> bool:
        """Whether an insertion may follow: the token's text ends in a delimiter."""
        return self.backbone.tokenizer.decode([token]).rstrip(" ").endswith(DELIMITERS)

    def latents(self, fresh: Tensor, queries: Any, cache: Any) -> Tensor:
        """K latents [1, K, d] after ``fresh`` [1, T, d], embeddings the weaver has not read, and what is in its cache.

        The queries leave the cache again, ``fresh`` stays.
        """
        import torch

        learned = queries["learned"]
        asked = learned["scale"] * queries["norm"](learned["queries"])
        count, dtype = len(asked), fresh.dtype
        read = torch.cat([self.parts["to_weaver"](fresh.float()), asked[None]], 1).to(dtype)
        with self.backbone.active(self.name):
            decoder = self.backbone.model.get_decoder()
            hidden = decoder(inputs_embeds=read, past_key_values=cache).last_hidden_state[:, -count:]
        cache.crop(-count)
        self.effort.lm_calls += 1
        self.effort.tokens_read += read.shape[1]
        return self.parts["to_reasoner"](hidden.float()).to(dtype)

    # --- counts and files ---

    def trainable_parameters(self) -> int:
        """Weaver and trigger, as the paper counts.

        Two adapters, 2 (d² + d) of the linears, K d + 2 d + 1 a set of queries, 2 d + 2 of the head.
        """
        return sum(p.numel() for p in self.parts.parameters())

    def save(self, directory: Path) -> None:
        from harness import fits

        fits.save_module(self.parts, directory)

    def load(self, directory: Path) -> None:
        from harness import fits

        fits.load_module(self.parts, directory)

    def close(self) -> None:
        self.backbone.detach(self.name)


class _Reader:
    """The weaver along one prompt and its answer; keys and values of what it has read are kept."""

    def __init__(self, method: MemGen) -> None:
        from transformers import DynamicCache

        self.method = method
        self.cache = DynamicCache(config=method.backbone.model.config)
        self.fresh: list[Tensor] = []
        self.seen = self.insertions = 0

    def __call__(self, ids: Tensor) -> Tensor | None:
        """Latents [1, K, d] that follow ``ids`` [1, T], or None."""
        import torch

        method, config = self.method, self.method.config
        embed = method.backbone.model.get_input_embeddings()
        self.fresh.append(embed(ids[:, self.seen :]))
        begins, self.seen = not self.seen, ids.shape[1]
        if begins and config.prompt_latents:
            queries = method.parts["prompt"]
        elif begins or not self._inserts(int(ids[0, -1])):
            return None
        else:
            queries = method.parts["inference"]
            self.insertions += 1
        woven = method.latents(torch.cat(self.fresh, 1), queries, self.cache)
        self.fresh = [woven]
        return woven

    def _inserts(self, token: int) -> bool:
        config = self.method.config
        return config.inserts and self.insertions < config.max_insertions and self.method.delimits(token)
