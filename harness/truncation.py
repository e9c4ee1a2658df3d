"""Histories longer than a task allows are cut by the task's rule, and the share lost is kept for the record."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import replace

from harness.backbones import Backbone
from harness.episodes import Episode, History, Message, spoken
from harness.errors import HarnessError


def fit_to(episode: Episode, backbone: Backbone, limit: int, rule: str) -> Episode:
    """The episode with a history of at most ``limit`` tokens, counted in the chat template.

    Args:
        limit: Tokens of the rendered history, instruction included.
        rule: ``head`` or ``tail`` is the end that is kept; ``refuse`` raises.

    Raises:
        HarnessError: the rule is ``refuse`` and the history is too long, or not one token of it fits.
    """
    history = episode.history
    if not history.messages:
        return episode
    ids, owner = backbone.encode(history.messages, system=history.system)
    total = len(ids)
    if total <= limit:
        return episode
    if rule == "refuse":
        raise HarnessError(
            f"the history of '{episode.id}' has {total} tokens, more than the {limit} allowed; raise "
            "max_history_tokens or set truncate to head or tail"
        )

    def length(messages: Sequence[Message]) -> int:
        return len(backbone.encode(messages, system=history.system)[0])

    sizes = [owner.count(j) for j in range(len(history.messages))]
    kept = _whole(history.messages, sizes, limit - (total - sum(sizes)), rule)
    while kept and length(kept) > limit:  # a date is told again where the cut starts
        kept = kept[:-1] if rule == "head" else kept[1:]
    if not kept:
        kept = [_part(history.messages[0 if rule == "head" else -1], rule, backbone, lambda m: length([m]) <= limit)]
    cut = replace(history, messages=tuple(kept))
    return replace(episode, history=cut, notes={**episode.notes, "lost_share": 1 - length(kept) / total})


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


def _part(message: Message, rule: str, backbone: Backbone, fits: Callable[[Message], bool]) -> Message:
    """The longest kept end of a message that fits, cut at a token and never within a character."""
    text = message.content
    spans = backbone.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def end(n: int) -> Message:
        return replace(message, content=text[: spans[n - 1][1]] if rule == "head" else text[spans[-n][0] :])

    count = bisect_right(range(1, len(spans) + 1), False, key=lambda n: not fits(end(n)))
    while count and not fits(end(count)):  # tokens fall apart where a text is cut
        count -= 1
    if not count:
        raise HarnessError("max_history_tokens leaves no room beside the instruction and the template; raise it")
    return end(count)


def visible_history(history: History) -> str:
    """The history as plain text, a message a line: for models that take text instead of a conversation."""
    return "\n".join(spoken(history.messages))
