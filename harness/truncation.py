"""Histories longer than a task allows are cut by the task's rule, and the share lost is kept for the record.

What is written and what a prompt shows are two things: a memory may hold more than the window does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from harness import chunks
from harness.backbones import Backbone
from harness.episodes import Episode, History, Message, turns
from harness.errors import HarnessError
from harness.experiment import TaskSpec

MARKER = Message("[The middle of the history is left out.]")
"""Stands where ``head_and_tail`` has cut."""

Length = Callable[[Sequence[Message]], int]


def fit_to(episode: Episode, backbone: Backbone, limit: int, rule: str) -> Episode:
    """The episode with a history of at most ``limit`` tokens, counted in the chat template.

    Args:
        limit: Tokens of the rendered history, instruction included.
        rule: ``head`` or ``tail`` is the end that is kept, in whole messages where one fits; ``head_and_tail`` keeps
            a third of the tokens from the beginning and two thirds from the end, with a message between that says
            so; ``refuse`` raises.

    Raises:
        HarnessError: the rule is ``refuse`` and the history is too long, or not one token of it fits.
    """
    history = episode.history
    if not history.messages:
        return episode
    ids, owner = backbone.encode(history.messages, system=history.system, unit="part")
    total = len(ids)
    if total <= limit:
        return episode
    if rule == "refuse":
        raise HarnessError(
            f"the history of '{episode.id}' has {total} tokens, more than the {limit} allowed; raise "
            "max_history_tokens or set truncate to head, tail or head_and_tail"
        )

    def length(messages: Sequence[Message]) -> int:
        return len(backbone.encode(messages, system=history.system)[0])

    counts = Counter(owner)  # once for all: contexts of thousands of messages have a hundred thousand tokens
    sizes = [counts[j] for j in range(len(history.messages))]
    if rule == "head_and_tail":
        marker = replace(MARKER, frame=history.messages[0].frame)
        kept = _both(history.messages, sizes, limit, marker, backbone, length)
        share = length([m for m in kept if m is not marker]) / total
    else:
        kept = _end(history.messages, sizes, limit, rule, backbone, length)
        share = length(kept) / total
    cut = replace(history, messages=tuple(kept))
    return replace(episode, history=cut, notes={**episode.notes, "lost_share": 1 - share})


@dataclass(frozen=True)
class Views:
    """A task's episodes as they are written, and as conditions show them."""

    written: list[Episode]
    shown: Mapping[str, list[Episode]] = field(default_factory=dict)
    """By condition, where the prompt has less of the history than what is written."""
    beyond: bool = False
    """Whether histories may be written that no prompt could hold."""


def views_of(episodes: Sequence[Episode], spec: TaskSpec, backbone: Backbone, rule: str, sight: int) -> Views:
    """Each history cut for writing and for the conditions that the task is asked under.

    Args:
        sight: Tokens of a history that the backbone's window has room for.

    Raises:
        HarnessError: the rule is ``refuse`` and a history is too long.
    """
    whole = "windowed" in spec.conditions and spec.max_history_tokens is None
    limit = None if whole else spec.max_history_tokens or sight
    beyond = limit is None or limit > sight
    written = [e if limit is None else fit_to(e, backbone, limit, rule) for e in episodes]
    shown = {}
    if beyond and "replayed" in spec.conditions:
        shown["replayed"] = [fit_to(e, backbone, sight, rule) for e in episodes]
    if spec.visible_tokens is not None:
        shown["windowed"] = [in_sight(e, backbone, spec.visible_tokens, sight) for e in written]
    return Views(written, shown, beyond)


def in_sight(episode: Episode, backbone: Backbone, tokens: int, limit: int) -> Episode:
    """The episode with the last ``tokens`` of its history's text alone, as the method ``window`` keeps them.

    ``visible_share`` in its notes says which share of the history's tokens that is.

    Args:
        limit: Tokens that it may have in the chat template, which also counts what stands around the messages.
    """
    history = episode.history
    seen = replace(history, messages=chunks.ending(history.messages, tokens, backbone))
    seen = fit_to(replace(episode, history=seen), backbone, limit, "tail").history
    told = chunks.told_tokens(history.messages, backbone)
    share = chunks.told_tokens(seen.messages, backbone) / told if told else 1.0
    return replace(episode, history=seen, notes={**episode.notes, "visible_share": share})


def _end(
    messages: Sequence[Message], sizes: Sequence[int], limit: int, rule: str, backbone: Backbone, length: Length
) -> list[Message]:
    """Whole messages of one end, or, where not one fits, what fits of the last."""
    kept = _whole(messages, sizes, limit - (length(messages) - sum(sizes)), rule)
    while kept and length(kept) > limit:  # a date is told again where the cut starts
        kept = kept[:-1] if rule == "head" else kept[1:]
    if kept:
        return kept
    part = _part(messages[0 if rule == "head" else -1], rule, backbone, limit, lambda m: length([m]))
    if part is None:
        raise _no_room()
    return [part]


def _both(
    messages: Sequence[Message], sizes: Sequence[int], limit: int, marker: Message, backbone: Backbone, length: Length
) -> list[Message]:
    """Both ends, to the token: whole messages, and of the next one what still fits."""
    around = length([marker])
    room = limit - around
    head = _filled(messages, sizes, room // 3, "head", backbone, lambda kept: length([*kept, marker]) - around)
    tail = _filled(messages, sizes, room, "tail", backbone, lambda kept: length([*head, marker, *kept]) - around)
    if not tail:
        raise _no_room()
    return [*head, marker, *tail]


def _filled(
    messages: Sequence[Message], sizes: Sequence[int], room: int, rule: str, backbone: Backbone, length: Length
) -> list[Message]:
    """As many tokens of one end as keep ``length`` within ``room``; none where the template around them does not."""
    kept = _whole(messages, sizes, room - length([]), rule)
    while kept and length(kept) > room:
        kept = kept[:-1] if rule == "head" else kept[1:]
    if len(kept) == len(messages):
        return kept
    following = messages[len(kept) if rule == "head" else -len(kept) - 1]
    joined: Callable[[Message], list[Message]] = (lambda m: [*kept, m]) if rule == "head" else (lambda m: [m, *kept])
    part = _part(following, rule, backbone, room, lambda m: length(joined(m)))
    return kept if part is None else joined(part)


def _whole(messages: Sequence[Message], sizes: Sequence[int], room: int, rule: str) -> list[Message]:
    """Whole messages from the kept end while they fit."""
    order = range(len(messages)) if rule == "head" else range(len(messages) - 1, -1, -1)
    kept: list[int] = []
    for j in order:
        if sizes[j] > room:
            break
        room -= sizes[j]
        kept.append(j)
    return [messages[j] for j in sorted(kept)]


def _part(
    message: Message, rule: str, backbone: Backbone, limit: int, cost: Callable[[Message], int]
) -> Message | None:
    """The longest kept end of a message whose cost is within the limit, cut at a token and never within a character."""
    text = message.content
    spans = backbone.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def end(n: int) -> Message:
        return replace(message, content=text[: spans[n - 1][1]] if rule == "head" else text[spans[-n][0] :])

    count = chunks.most(limit, len(spans), lambda n: cost(end(n)))
    while count and cost(end(count)) > limit:  # tokens fall apart where a text is cut
        count -= 1
    return end(count) if count else None


def _no_room() -> HarnessError:
    return HarnessError("max_history_tokens leaves no room beside the instruction and the template; raise it")


def visible_history(history: History) -> str:
    """The history as plain text, a message a line: for models that take text instead of a conversation."""
    return "\n".join(turn.content for turn in turns(history.messages))
