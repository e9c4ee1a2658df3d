"""Answers: all questions of one history decoded together, after their common beginning was read once.

Prompts, decoding and batching are the same for every method; a method's Steering only says what stands in the
prompt, what cache to start from and what acts on the forward passes.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from harness import shortage
from harness.backbones import Backbone
from harness.encoding import Joined
from harness.episodes import Decoding, Message, Query
from harness.errors import HarnessError
from harness.method import Steering, Unit

WORTH_SHARING = 64
"""Tokens that a common beginning must save: a forward of its own reads all weights once, however short it is."""


@dataclass(frozen=True)
class Prompt:
    """Token ids of a chat prompt, and the message or sentence each token belongs to (-1: none)."""

    ids: Sequence[int]
    owner: Sequence[int]
    """What prompts of one history have in common is held once (:class:`~harness.encoding.Joined`)."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(" ".join(map(str, self.ids)).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """A raw generation and what it took."""

    text: str
    prompt_tokens: int
    new_tokens: int
    hit_cap: bool
    prompt_sha256: str


@dataclass
class Seconds:
    """Wall-clock seconds, prefill (up to the first token) and decoding apart."""

    prefill: float = 0.0
    decode: float = 0.0


def prompt(backbone: Backbone, visible: Sequence[Message], query: Query, unit: Unit = "message") -> Prompt:
    """Instruction, visible messages, question and the opening of the answer, in the chat template."""
    ids, owner = backbone.asked(visible, query.text, system=query.system, unit=unit, frame=query.frame)
    if len(ids) >= backbone.window:
        raise HarnessError(
            f"question '{query.question_id}' makes a prompt of {len(ids)} tokens, beyond the backbone's window of "
            f"{backbone.window}; set max_history_tokens of its task"
        )
    return Prompt(ids, owner)


def common_prefix(prompts: Sequence[Prompt]) -> int:
    """Length of the longest common beginning, leaving every prompt at least one token of its own."""
    shortest = min(len(p.ids) for p in prompts) - 1
    first = prompts[0].ids
    for n in range(min(_shared([p.ids for p in prompts]), shortest), shortest):
        if any(p.ids[n] != first[n] for p in prompts):
            return n
    return shortest


def _shared(rows: Sequence[Sequence[int]]) -> int:
    """How much of the rows is one and the same list, without looking into it."""
    first = rows[0]
    if isinstance(first, Joined) and all(isinstance(row, Joined) and row.shared is first.shared for row in rows):
        return len(first.shared)
    return 0


def answer(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    steering: Steering,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    batch_size: int = 16,
    decoding: Sequence[Decoding | None] = (),
) -> tuple[list[Answer], Seconds]:
    """As :func:`attempt`, where each prompt must have an answer.

    Raises:
        SkippedError: memory is too short for a question even alone.
    """
    batches = shortage.Batches(batch_size)
    found, seconds = attempt(
        backbone, prompts, steering, batches, max_new_tokens=max_new_tokens, stop=stop, decoding=decoding
    )
    for error in found:
        if isinstance(error, Exception):
            raise error
    return [answer for answer in found if isinstance(answer, Answer)], seconds


def attempt(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    steering: Steering,
    batches: shortage.Batches,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    decoding: Sequence[Decoding | None] = (),
) -> tuple[list[Answer | Exception], Seconds]:
    """Answers to prompts that share a steering, in order; an error for each that memory is too short for even alone.

    The common beginning is run once; its keys, values and states are copied for the questions, which continue
    from there as left-padded batches.

    Args:
        batches: How many questions are decoded together; fewer from there on where memory does not suffice for them.
        decoding: How each answer is sampled; None is greedy, as are all where nothing is given. A sampled answer is a
            batch of its own and draws from a generator of its own; torch's global one is left as it was.
    """
    seconds = Seconds()
    found: list[Answer | Exception] = []
    how = decoding or [None] * len(prompts)
    with _steered(backbone, steering):
        if steering.weave is not None:
            one = functools.partial(_woven, backbone, steering=steering, cap=max_new_tokens, stop=stop, seconds=seconds)
            for p, d in zip(prompts, how, strict=True):
                with shortage.noticed() as short:
                    found.append(one(p, decoding=d))
                found += short
            return found, seconds
        shared = common_prefix(prompts)
        if shared * (len(prompts) - 1) < WORTH_SHARING:
            shared = 0
        start = None
        while (at := len(found)) < len(prompts):
            if start is None:
                start = _start(backbone, prompts[0], shared, steering, seconds)
            size = 1 if how[at] else _greedy(how[at : at + batches.size])
            batch, last = prompts[at : at + size], at + size >= len(prompts)
            with shortage.noticed() as short:  # the repeated cache has no name here, or it would outlive the failure
                found += _decode(
                    backbone, batch, shared, _rows(start, size, last), steering, max_new_tokens, stop, seconds, how[at]
                )
            if short:
                gc.collect()
                start = None if last else start  # at its last use it is no copy that is spent
                if size > 1:
                    batches.halve(size)
                else:
                    found += short
    return found, seconds


def _rows(start: Any, count: int, last: bool) -> Any:
    """A cache of ``count`` rows that all begin as ``start``, which is kept unless this is its last use."""
    cache = start if last else copy.deepcopy(start)
    cache.batch_repeat_interleave(count)
    return cache


def _greedy(how: Sequence[Decoding | None]) -> int:
    """How many at the beginning are not sampled."""
    return next((n for n, decoding in enumerate(how) if decoding), len(how))


@contextlib.contextmanager
def _drawing(decoding: Decoding | None) -> Iterator[None]:
    """What is drawn inside this block follows from the decoding's seed; the global generators stay as they were."""
    if decoding is None:
        yield
        return
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # seeding reaches them all
        torch.manual_seed(decoding.seed)
        yield


def _sampled(scores: torch.Tensor, ids: torch.Tensor, decoding: Decoding) -> int:
    """A token drawn from scores [1, V] as transformers would."""
    warpers = (
        TemperatureLogitsWarper(decoding.temperature),
        TopKLogitsWarper(decoding.top_k),
        TopPLogitsWarper(decoding.top_p),
    )
    for warper in warpers:
        scores = warper(ids, scores)
    return int(torch.multinomial(scores.softmax(-1), 1))


@contextlib.contextmanager
def _steered(backbone: Backbone, steering: Steering) -> Iterator[None]:
    """What acts on the forward passes is in place inside this block, and only there."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(backbone.active(steering.adapter))
        if steering.hooks is not None:
            stack.enter_context(steering.hooks(backbone.model))
        yield


def loglikelihood(
    backbone: Backbone, asked: Prompt, steering: Steering, continuations: Sequence[Sequence[int]]
) -> list[tuple[float, bool]]:
    """Log-probability (nats, summed over tokens) of each continuation of a prompt, and whether it is the greedy one.

    Token by token through all that a steering does, so that every method can be asked; the prompt is read once.
    """
    batches = shortage.Batches(1 if steering.weave else len(continuations))
    found: list[tuple[float, bool]] = []
    with _steered(backbone, steering):
        while (at := len(found)) < len(continuations):
            some = continuations[at : at + batches.size]
            with shortage.noticed() as short:
                found += _likelihoods(backbone, asked, steering, some)
            if short and len(some) == 1:
                raise short[0]
            if short:
                gc.collect()
                batches.halve(len(some))
    return found


def _likelihoods(
    backbone: Backbone, asked: Prompt, steering: Steering, continuations: Sequence[Sequence[int]]
) -> list[tuple[float, bool]]:
    longest = max(len(ids) for ids in continuations)
    rows = [[*ids, *[backbone.pad_token_id] * (longest - len(ids))] for ids in continuations]
    forced = torch.tensor(rows, device=backbone.device)
    total, greedy = [0.0] * len(rows), [True] * len(rows)

    def choose(at: int, scores: torch.Tensor) -> torch.Tensor:
        logs = scores.double().log_softmax(-1)
        for n, ids in enumerate(continuations):
            if at < len(ids):
                total[n] += float(logs[n, ids[at]])
                greedy[n] &= int(scores[n].argmax()) == ids[at]
        return forced[:, at]

    _walk(backbone, asked, steering, len(rows), longest, choose, Seconds())
    return list(zip(total, greedy, strict=True))


def forced(
    backbone: Backbone, asked: Prompt, steering: Steering, steps: int, heard: Callable[[int, torch.Tensor], None]
) -> None:
    """Read a prompt and decode exactly ``steps`` greedy tokens after it, ends of turn among them: for measurements.

    Args:
        heard: Called with the number of each token and the token [1] as soon as it is chosen.
    """

    def choose(at: int, scores: torch.Tensor) -> torch.Tensor:
        token = scores.argmax(-1)
        heard(at, token)
        return token

    with _steered(backbone, steering):
        _walk(backbone, asked, steering, 1, steps, choose, Seconds())


def _woven(
    backbone: Backbone,
    asked: Prompt,
    *,
    steering: Steering,
    cap: int,
    stop: Sequence[str],
    seconds: Seconds,
    decoding: Decoding | None = None,
) -> Answer:
    """One answer, with the steering's embeddings put between its tokens."""
    new: list[int] = []

    def choose(at: int, scores: torch.Tensor) -> torch.Tensor | None:
        so_far = torch.tensor([[*asked.ids, *new]], device=backbone.device)
        new.append(_sampled(scores, so_far, decoding) if decoding else int(scores[0].argmax()))
        text = backbone.tokenizer.decode(new, skip_special_tokens=True)
        over = new[-1] in backbone.eos_token_ids or _stopped(text, stop)
        return None if over else torch.tensor(new[-1:], device=backbone.device)

    with _drawing(decoding):
        extra = _walk(backbone, asked, steering, 1, cap, choose, seconds)
    return _read(backbone, new, asked, extra, cap, stop)


def _walk(
    backbone: Backbone,
    asked: Prompt,
    steering: Steering,
    rows: int,
    steps: int,
    choose: Callable[[int, torch.Tensor], torch.Tensor | None],
    seconds: Seconds,
) -> int:
    """Feed a prompt, and after it at most ``steps`` tokens a row that ``choose`` picks from the scores [rows, V].

    Returns:
        How many positions of the method's own, a prefix or what it wove in, stood before the first token.
    """
    begin, device, model = time.perf_counter(), backbone.device, backbone.model
    cache = _start(backbone, asked, len(asked.ids) - 1, steering, Seconds())
    cache.batch_repeat_interleave(rows)
    weaver = steering.weave() if steering.weave else None
    ids = torch.tensor([[*asked.ids]], device=device).expand(rows, -1)
    _announce(cache, torch.tensor([asked.owner[-1:]], device=device).expand(rows, -1))
    extra = 0
    for step in range(steps):
        logits = model(input_ids=ids[:, -1:], past_key_values=cache, logits_to_keep=1).logits[:, -1]
        woven = weaver(ids) if weaver else None
        if woven is not None:
            logits = model(inputs_embeds=woven, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        if not step:
            extra = cache.get_seq_length() - len(asked.ids)
            seconds.prefill += time.perf_counter() - begin
            begin = time.perf_counter()
        scores = steering.logits_processor(ids, logits.float()) if steering.logits_processor else logits.float()
        chosen = choose(step, scores)
        if chosen is None:
            break
        ids = torch.cat([ids, chosen[:, None]], 1)
    seconds.decode += time.perf_counter() - begin
    return extra


def _start(backbone: Backbone, first: Prompt, shared: int, steering: Steering, seconds: Seconds) -> Any:
    """A cache of one row that has read the common beginning."""
    model = backbone.model
    cache = steering.past_key_values() if steering.past_key_values else DynamicCache(config=model.config)
    if shared:
        clock = time.perf_counter()
        _announce(cache, torch.tensor([first.owner[:shared]], device=backbone.device))
        model.get_decoder()(input_ids=torch.tensor([first.ids[:shared]], device=backbone.device), past_key_values=cache)
        seconds.prefill += time.perf_counter() - clock
    return cache


def _announce(cache: Any, owner: torch.Tensor) -> None:
    """Tell a cache that carries a memory which message each token of the next forward belongs to."""
    if hasattr(cache, "announce"):
        cache.announce(owner)


def _decode(
    backbone: Backbone,
    batch: Sequence[Prompt],
    shared: int,
    cache: Any,
    steering: Steering,
    max_new_tokens: int,
    stop: Sequence[str],
    seconds: Seconds,
    decoding: Decoding | None = None,
) -> list[Answer]:
    """Continue a cache of ``len(batch)`` rows with the prompts' own parts, left-padded, and decode."""
    device, pad = backbone.device, backbone.pad_token_id
    prefix = cache.get_seq_length()  # a method's own prefix, if any, and the common beginning
    width = max(len(p.ids) for p in batch) - shared
    gaps = [width - (len(p.ids) - shared) for p in batch]
    rows = [[*[pad] * (prefix + gap), *p.ids[shared:]] for p, gap in zip(batch, gaps, strict=True)]
    mask = [[1] * prefix + [0] * gap + [1] * (width - gap) for gap in gaps]
    owner = [[*[-1] * gap, *p.owner[shared:]] for p, gap in zip(batch, gaps, strict=True)]
    _announce(cache, torch.tensor(owner, device=device))
    ends = _Ends(backbone, stop, prefix + width)
    begin = time.perf_counter()
    with _drawing(decoding):
        output = backbone.model.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            past_key_values=cache,
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens,
                eos_token_id=backbone.eos_token_ids,
                pad_token_id=pad,
                **(decoding.arguments() if decoding else {"do_sample": False}),
            ),
            stopping_criteria=StoppingCriteriaList([ends]),
            logits_processor=LogitsProcessorList([steering.logits_processor] if steering.logits_processor else []),
        )
    seconds.prefill += ends.first - begin
    seconds.decode += time.perf_counter() - ends.first
    return [
        _read(backbone, new, p, prefix - shared, max_new_tokens, stop)
        for new, p in zip(output[:, prefix + width :].tolist(), batch, strict=True)
    ]


def _read(
    backbone: Backbone, new: list[int], asked: Prompt, extra: int, max_new_tokens: int, stop: Sequence[str]
) -> Answer:
    """Cut a row of generated ids at its end of turn or stop text."""
    ends = [n for n, token in enumerate(new) if token in backbone.eos_token_ids]
    kept = new[: ends[0]] if ends else new
    text = backbone.tokenizer.decode(kept, skip_special_tokens=True)
    begin = len(text) - len(_begun(text))
    stopped = min((at for s in stop if (at := text.find(s, begin)) >= 0), default=None)
    used = len(kept) + bool(ends)
    return Answer(
        text=text if stopped is None else text[:stopped],
        prompt_tokens=len(asked.ids) + extra,
        new_tokens=used,
        hit_cap=not ends and stopped is None and used >= max_new_tokens,
        prompt_sha256=asked.sha256,
    )


def _begun(text: str) -> str:
    """What follows the empty lines before an answer: they end none, for the first line that is not empty counts."""
    return text.lstrip("\n")


def _stopped(text: str, stop: Sequence[str]) -> bool:
    return any(s in _begun(text) for s in stop)


class _Ends(StoppingCriteria):
    """Ends a row at a stop text, and keeps the time of the first token."""

    def __init__(self, backbone: Backbone, stop: Sequence[str], start: int) -> None:
        self.tokenizer, self.stop, self.start = backbone.tokenizer, tuple(stop), start
        self.first = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        self.first = self.first or time.perf_counter()
        texts = self.tokenizer.batch_decode(input_ids[:, self.start :], skip_special_tokens=True)
        done = [_stopped(text, self.stop) for text in texts]
        return torch.tensor(done, device=input_ids.device)
