"""MEMIT: facts written into a few ``down_proj`` matrices, in closed form toward optimised hidden states.

Meng et al. (specification of baselines 7), our own and by forward hooks: no weight is touched, so leaving is exact.
State: low-rank factors (R, A) a layer, Delta = R A^T. Read: the question alone, each edited layer adds x A R^T. One
layer and one fact at a time, without moments, is ROME: the preset ``rome``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from harness.episodes import History, Query
from harness.errors import HarnessError, UnsupportedError
from harness.method import STATEMENT_TOKENS, Capabilities, MemoryMethod, MemoryState, MethodConfig, Steering
from harness.triples import VERBS, Triple, newest, parse, triples

if TYPE_CHECKING:
    from harness.backbones import Backbone

FILE = "edits.safetensors"


LEAST_TOKENS = 16
"""From fewer no second moments are made."""


class Settings(MethodConfig):
    """EasyEdit's numbers for Llama-3.2-3B and Qwen2.5-7B, but for lambda and the text behind the moments."""

    layers: tuple[int, ...] = Field((), description="Blocks edited, from 0; empty: `count` from a fifth of the depth.")
    count: int = Field(5, ge=1, description="Blocks edited where `layers` is empty. EasyEdit: 4 to 8 of 28; ROME: 5.")
    strength: float = Field(
        1500.0, ge=0, description="lambda, weight of the second moments. EasyEdit: 15000; less for 1536-wide layers."
    )
    moment_tokens: int = Field(
        12_288,
        ge=0,
        description="Tokens that the backbone samples for the second moments; 0: the identity, as ROME in EasyEdit. "
        "MEMIT in EasyEdit: 100,000 texts of Wikipedia.",
    )
    steps: int = Field(25, ge=1, description="Adam's steps toward a fact's hidden state. EasyEdit: 25.")
    learning_rate: float = Field(0.5, gt=0, description="Adam's. EasyEdit: 0.5.")
    enough: float = Field(0.05, ge=0, description="Loss below which a fact is done, nats. EasyEdit: 0.05.")
    clamp: float = Field(4.0, gt=0, description="Largest change, in norms of the hidden state. EasyEdit: 4.")
    weight_decay: float = Field(1e-3, ge=0, description="Times ||change|| / ||hidden||^2. EasyEdit: 1e-3.")
    kl: float = Field(0.0625, ge=0, description="Weight of the divergence on '{subject} is a'. EasyEdit: 0.0625.")
    prefixes: int = Field(5, ge=0, description="Sampled beginnings before a prompt, beside none. EasyEdit: 5 or more.")
    prefix_tokens: int = Field(10, ge=1, description="Their length. EasyEdit: 10.")
    order: Literal["newest", "told"] = Field(
        "newest", description="newest: the last fact of each subject and relation, all together; told: one by one."
    )
    batch_size: int = Field(8, ge=1, description="Facts whose hidden states are optimised together.")

    def write_load(self, tokens: int, device: str) -> float:
        """Of each fact's copies, for half of the steps: the others find it likely enough."""
        copies = (self.prefixes + 2) * (self.prefix_tokens + 2 * STATEMENT_TOKENS)
        return tokens / STATEMENT_TOKENS * copies * self.steps


@dataclass(frozen=True, eq=False)
class Edits(MemoryState):
    """Factors of the change of each edited layer: R [d, facts] and A [ffn, facts], in fp32."""

    factors: dict[int, tuple[Any, Any]]

    def nbytes(self) -> int:
        """Four bytes for each of ffn + d numbers a fact and layer."""
        return sum(f.numel() * f.element_size() for pair in self.factors.values() for f in pair)

    def describe(self) -> dict[str, Any]:
        norms = {str(n): round(float((r.T @ r * (a.T @ a)).sum().sqrt()), 4) for n, (r, a) in self.factors.items()}
        return {"kind": "weights", "facts": next(iter(self.factors.values()))[0].shape[1], "norms": norms}

    def save(self, directory: Path) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        named = {f"{n}.{name}": f for n, pair in self.factors.items() for name, f in zip("RA", pair, strict=True)}
        save_file({name: f.cpu().contiguous() for name, f in named.items()}, directory / FILE)

    @classmethod
    def load(cls, directory: Path) -> Edits:
        from safetensors.torch import load_file

        stored = load_file(directory / FILE)
        layers = sorted({int(name.split(".")[0]) for name in stored})
        return cls({n: (stored[f"{n}.R"], stored[f"{n}.A"]) for n in layers})

    @contextlib.contextmanager
    def worn(self, model: Any) -> Iterator[None]:
        """The edited layers add their change inside this block, and only there."""
        with contextlib.ExitStack() as stack:
            for n, factors in self.factors.items():
                projection = model.get_decoder().layers[n].mlp.down_proj
                r, a = (f.to(projection.weight.device) for f in factors)

                def add(_: Any, inputs: Any, out: Any, r: Any = r, a: Any = a) -> Any:
                    return out + ((inputs[0].to(a.dtype) @ a) @ r.T).to(out.dtype)

                stack.enter_context(projection.register_forward_hook(add))
            yield

    def with_more(self, layer: int, r: Any, a: Any) -> Edits:
        """The same with more facts in one layer."""
        import torch

        old = self.factors.get(layer)
        pair = (r, a) if old is None else (torch.cat([old[0], r], 1), torch.cat([old[1], a], 1))
        return Edits({**self.factors, layer: pair})


@dataclass
class _Copies:
    """Prompts of several facts, ready for a forward pass: each fact's copies, then its '{subject} is a'."""

    ids: Any
    """[facts * copies, T], padded on the right, where no token of a causal model sees it."""
    at: Any
    """Position of the subject's last token [facts * copies]."""
    target: Any
    """Next tokens that are the object, -100 elsewhere [facts * copies, T]."""
    last: Any
    """Position of the last token [facts * copies]."""
    copies: int

    @property
    def of(self) -> Any:
        """The fact of each row [facts * copies]."""
        import torch

        return torch.arange(len(self.ids), device=self.ids.device) // self.copies

    def tokens(self) -> int:
        return int((self.last + 1).sum())


class Memit(MemoryMethod):
    """Facts in the weights."""

    name = "memit"
    summary = "the history's facts, written into the weights of five MLPs in closed form"
    Config = Settings
    presets: ClassVar = {
        "memit": {},
        "rome": {"count": 1, "strength": 0.0, "moment_tokens": 0, "order": "told", "batch_size": 1},
    }
    capabilities = Capabilities(family="parametric", arms={"windowed": ("own", "donor"), "removed": ("own", "donor")})

    config: Settings

    def __init__(self, config: Settings, backbone: Backbone, seed: int) -> None:
        super().__init__(config, backbone, seed)
        blocks = backbone.model.get_decoder().layers
        first = len(blocks) // 5
        end = max(first + 1, min(first + config.count, len(blocks) - 1))
        self.layers = sorted(set(config.layers)) or [*range(first, end)]
        if not 0 <= self.layers[0] <= self.layers[-1] < len(blocks):
            raise HarnessError(f"'memit' is to edit layers {self.layers} of {len(blocks)}; name layers that there are")
        if not all(hasattr(getattr(blocks[n], "mlp", None), "down_proj") for n in self.layers):
            raise HarnessError("'memit' finds no mlp.down_proj in this backbone; choose one of the Llama family")
        if config.order == "newest" and config.strength == 0:
            raise HarnessError("'memit' cannot solve many facts exactly; set strength above 0, or order to told")
        if 0 < config.moment_tokens < LEAST_TOKENS:
            raise HarnessError(
                f"'memit' has no second moments in {config.moment_tokens} tokens; sample {LEAST_TOKENS} at least, or 0"
            )
        self._moments: dict[int, Any] = {}
        self._beginnings: list[list[int]] | None = None

    def write(self, history: History, state: MemoryState | None = None) -> Edits | None:
        """Edit the history's facts in; with a state, on top of its edits. None of an empty history.

        Raises:
            UnsupportedError: no message is a fact of a form that is understood.
        """
        if not history.messages:
            return state if isinstance(state, Edits) else None
        facts = [_reworded(fact) for fact in triples(history)]
        if not facts:
            raise UnsupportedError(
                "'memit' finds no fact such as 'The capital of Peru is Lima.' in the history; give it statements of "
                "one subject, relation and object each"
            )
        edits = state if isinstance(state, Edits) else Edits({})
        if self.config.order == "newest":
            return self._edited(newest(facts), edits)
        for fact in facts:
            edits = self._edited([fact], edits)
        return edits

    def steer(self, state: MemoryState | None, query: Query, *, writes: bool = False) -> Steering:
        return Steering(hooks=state.worn) if isinstance(state, Edits) else Steering()

    # --- editing ---

    def _edited(self, facts: Sequence[Triple], edits: Edits) -> Edits:
        """``edits`` and these facts: each layer takes an equal part of what is still missing at the last one."""
        import torch

        size = self.config.batch_size
        batches = [self._copies(facts[at : at + size]) for at in range(0, len(facts), size)]
        with torch.no_grad():
            self._learn_moments()
        with edits.worn(self.backbone.model), torch.enable_grad():
            wanted = torch.cat([self._wanted(batch) for batch in batches])
        for n, layer in enumerate(self.layers):
            with edits.worn(self.backbone.model), torch.no_grad():
                seen = [self._seen(batch, layer) for batch in batches]
            keys, hidden = (torch.cat(part) for part in zip(*seen, strict=True))
            missing = (wanted - hidden) / (len(self.layers) - n)
            a = solved(keys.double().T, self._moments.get(layer), self.config.strength)
            edits = edits.with_more(layer, missing.float().T.contiguous(), a.float())
        return edits

    def _wanted(self, batch: _Copies) -> Any:
        """Hidden states after the last edited layer that make the objects likely [facts, d]; Adam, a fact a row."""
        import torch

        settings, hidden, normal = self.config, None, None
        facts = len(batch.ids) // batch.copies
        change = torch.zeros(facts, self.backbone.model.config.hidden_size, device=batch.ids.device)
        change.requires_grad_()
        optimiser = torch.optim.Adam([change], lr=settings.learning_rate)
        going = torch.ones(facts, dtype=torch.bool, device=batch.ids.device)
        for step in range(settings.steps + 1):
            hidden_now, told, essence = self._scored(batch, change)
            if hidden is None or normal is None:
                hidden, normal = hidden_now.detach(), essence.detach()
            kl = (normal.exp() * (normal - essence)).sum(-1)
            decay = change.norm(dim=-1) / hidden.norm(dim=-1) ** 2
            loss = told + settings.kl * kl + settings.weight_decay * decay
            going &= loss.detach() >= settings.enough
            if step == settings.steps or not going.any():
                break
            optimiser.zero_grad()
            loss.sum().backward()
            before = change.detach().clone()
            optimiser.step()
            self.effort.gradient_steps += 1
            with torch.no_grad():
                most = settings.clamp * hidden.norm(dim=-1, keepdim=True)
                change *= (most / change.norm(dim=-1, keepdim=True).clamp(min=1e-9)).clamp(max=1)
                change[~going] = before[~going]
        return (hidden + change).detach()

    def _scored(self, batch: _Copies, change: Any) -> tuple[Any, Any, Any]:
        """With a change after the last edited layer at each subject's end: the hidden state before it [facts, d], the
        mean NLL of the object [facts], and the log-probabilities after '{subject} is a' [facts, V].
        """
        import torch

        rows, seen = torch.arange(len(batch.ids), device=batch.ids.device), {}

        def add(_: Any, inputs: Any, out: Any) -> Any:
            hidden = out[0] if isinstance(out, tuple) else out
            seen["hidden"] = hidden[rows[:: batch.copies], batch.at[:: batch.copies]].float()
            moved = hidden.index_put((rows, batch.at), change[batch.of].to(hidden.dtype), accumulate=True)
            return (moved, *out[1:]) if isinstance(out, tuple) else moved

        with self._decoder.layers[self.layers[-1]].register_forward_hook(add):
            states = self._forward(batch)
        head, told = self.backbone.model.get_output_embeddings(), batch.target != -100
        logs = torch.nn.functional.cross_entropy(head(states[told]).float(), batch.target[told], reduction="none")
        by_row = torch.zeros(len(rows), device=logs.device).index_add(0, told.nonzero()[:, 0], logs)
        nll = (by_row / told.sum(1).clamp(min=1)).view(-1, batch.copies)[:, :-1].mean(1)
        essence = rows[batch.copies - 1 :: batch.copies]
        return seen["hidden"], nll, head(states[essence, batch.last[essence]]).float().log_softmax(-1)

    def _seen(self, batch: _Copies, layer: int) -> tuple[Any, Any]:
        """At the subjects' ends: keys of a layer, a mean over the copies [facts, ffn], and hidden states after the
        last edited layer without a prefix [facts, d].
        """
        import torch

        rows, found = torch.arange(len(batch.ids), device=batch.ids.device), {}

        def keep(name: str, value: Any) -> None:
            found[name] = value[rows, batch.at].float().view(-1, batch.copies, value.shape[-1])

        def keep_hidden(_: Any, inputs: Any, out: Any) -> None:
            keep("hidden", out[0] if isinstance(out, tuple) else out)

        projection, last = self._decoder.layers[layer].mlp.down_proj, self._decoder.layers[self.layers[-1]]
        with (
            projection.register_forward_hook(lambda m, inputs, out: keep("key", inputs[0])),
            last.register_forward_hook(keep_hidden),
        ):
            self._forward(batch)
        return found["key"][:, :-1].mean(1), found["hidden"][:, 0]

    @property
    def _decoder(self) -> Any:
        return self.backbone.model.get_decoder()

    def _forward(self, batch: _Copies) -> Any:
        self.effort.lm_calls += len(batch.ids)
        self.effort.tokens_read += batch.tokens()
        return self._decoder(input_ids=batch.ids, use_cache=False).last_hidden_state

    # --- what is read ---

    def _copies(self, facts: Sequence[Triple]) -> _Copies:
        """Each fact's prompt and object, bare and after sampled beginnings, and '{subject} is a'."""
        import torch

        if self._beginnings is None:
            count = self.config.prefixes
            self._beginnings = self._sampled(count, self.config.prefix_tokens) if count else []
        rows = []
        for fact in facts:
            end, whole, start = len(fact.mention), f"{fact.prompt} {fact.object}", len(fact.prompt)
            rows += [self._row(beginning, whole, end, start) for beginning in ([], *self._beginnings)]
            rows.append(self._row([], f"{fact.mention} is a", end, None))
        width = max(len(ids) for ids, _, _ in rows)
        ids = torch.full((len(rows), width), self.backbone.pad_token_id)
        target = torch.full((len(rows), width), -100)
        for n, (row, _, start) in enumerate(rows):
            ids[n, : len(row)] = torch.tensor(row)
            target[n, start - 1 : len(row) - 1] = ids[n, start : len(row)]
        at, last = torch.tensor([at for _, at, _ in rows]), torch.tensor([len(row) - 1 for row, _, _ in rows])
        ids, at, target, last = (part.to(self.backbone.device) for part in (ids, at, target, last))
        return _Copies(ids, at, target, last, len(rows) // len(facts))

    def _row(self, beginning: Sequence[int], text: str, end: int, object_at: int | None) -> tuple[list[int], int, int]:
        """Token ids, the position of the token that holds character ``end`` - 1, and where the object begins."""
        text = f" {text}" if beginning else text
        shift = len([self._first, *beginning])
        encoded = self.backbone.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        end, object_at = end + bool(beginning), len(text) if object_at is None else object_at + bool(beginning)
        spans = encoded["offset_mapping"]
        at = max(n for n, (begin, _) in enumerate(spans) if begin < end)  # a character may have several tokens
        start = next((n for n, (_, stop) in enumerate(spans) if stop > object_at), len(spans))
        return [self._first, *beginning, *encoded["input_ids"]], at + shift, start + shift

    @property
    def _first(self) -> int:
        """A token before all text: the first position is the attention sink, no place for a fact."""
        first = self.backbone.tokenizer.bos_token_id
        return int(self.backbone.turn_end_id if first is None else first)

    def _sampled(self, rows: int, tokens: int) -> list[list[int]]:
        """Texts from the backbone's own distribution [rows][tokens], the same for every history."""
        import torch
        from transformers import GenerationConfig

        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self.seed)
            out = self.backbone.model.generate(
                input_ids=torch.full((rows, 1), self._first, device=self.backbone.device),
                attention_mask=torch.ones(rows, 1, dtype=torch.long, device=self.backbone.device),
                generation_config=GenerationConfig(
                    do_sample=True,
                    top_k=0,
                    top_p=1.0,
                    temperature=1.0,
                    min_new_tokens=tokens,
                    max_new_tokens=tokens,
                    eos_token_id=self.backbone.eos_token_ids,
                    pad_token_id=self.backbone.pad_token_id,
                ),
            )
        self.effort.lm_calls += rows
        self.effort.tokens_generated += rows * tokens
        return out[:, 1:].tolist()

    def _learn_moments(self) -> None:
        """C = E[k k^T] of each edited layer [ffn, ffn] in fp64, once, over text that the backbone samples."""
        if self._moments or not self.config.moment_tokens:
            return
        length, sums, seen = min(192, self.config.moment_tokens), dict[int, Any](), dict[int, int]()

        def add(layer: int, keys: Any) -> None:
            if layer in seen:  # the first call is the first position, whose keys are like no other's
                flat = keys.flatten(0, -2).float()
                sums[layer] = sums.get(layer, 0) + (flat.T @ flat).double()
            seen[layer] = seen.get(layer, -keys.shape[0]) + keys.shape[0]

        with contextlib.ExitStack() as stack:
            for layer in self.layers:
                projection = self._decoder.layers[layer].mlp.down_proj
                stack.enter_context(projection.register_forward_hook(lambda m, inputs, out, n=layer: add(n, inputs[0])))
            self._sampled(-(-self.config.moment_tokens // length), length)
        self._moments = {layer: sums[layer] / seen[layer] for layer in self.layers}


def solved(keys: Any, moments: Any, strength: float) -> Any:
    """A [ffn, n] such that the change toward R [d, n] is R A^T = R K^T (strength C + K K^T)^-1.

    By the smaller system: A = C^-1 K (strength + K^T C^-1 K)^-1, which also holds where strength is 0 and the facts
    are fewer than ffn. C is made regular by a millionth of its mean diagonal.

    Args:
        keys: K [ffn, n], fp64.
        moments: C [ffn, ffn]; None is the identity.
    """
    import torch

    weighted = keys
    if moments is not None:
        ridge = 1e-6 * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype, device=moments.device)
        weighted = torch.cholesky_solve(keys, torch.linalg.cholesky(moments + ridge))
    small = keys.T @ weighted
    return weighted @ torch.linalg.inv(small + strength * torch.eye(len(small), dtype=small.dtype, device=small.device))


def _reworded(fact: Triple) -> Triple:
    """A statement about someone's thing as 'X's Y is Z.', the form nearest to questions about it."""
    if fact.relation in VERBS or fact.text.startswith("The "):
        return fact
    return parse(f"{fact.subject}'s {fact.relation} is {fact.object}.", fact.id) or fact
