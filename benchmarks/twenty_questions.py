"""One history written once and asked many times, against writing it anew for every question."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._measured import Measured

if TYPE_CHECKING:
    from harness import Session
    from harness.episodes import Message

CASES = (("frozen", "replayed"), ("delta_mem_tsw", "removed"), ("delta_mem_tsw", "replayed"))
GOAL = 4.0
"""How many times faster asking together must be."""


def measure(
    backbone: str, *, questions: int = 20, tokens: int = 1024, new_tokens: int = 8, fit: Path | None = None
) -> list[Measured]:
    """Seconds both ways, their ratio, and how many answers are equal.

    Args:
        backbone: As in :meth:`harness.session.Session.open`.
        questions: How many are asked of the history.
        tokens: Length of the history in the chat template, at least.
        new_tokens: Tokens an answer at most.
        fit: Folder of a fit of ``delta_mem_tsw``; None leaves its initial parameters.
    """
    from harness import Session
    from harness.experiment import RunSpec

    found = []
    for method, condition in CASES:
        run, used = RunSpec(batch_size=questions), fit if method != "frozen" else None
        with Session.open(backbone, method, fit=used, condition=condition, run=run) as session:
            told = _history(session, tokens)
            asked = [f"In which drawer is the key to locker {n % len(told)}?" for n in range(questions)]
            session.ask(asked[0], max_new_tokens=1)  # the first forward of a process is slower
            answers, together = _timed(lambda: _ask(session, told, asked, new_tokens))  # noqa: B023
            singles, apart = _timed(lambda: [_ask(session, told, [q], new_tokens)[0] for q in asked])  # noqa: B023
        equal = sum(a == b for a, b in zip(answers, singles, strict=True))
        name = f"{method}.{condition}"
        found += [
            Measured(f"{name}.together", together, "s"),
            Measured(f"{name}.apart", apart, "s"),
            Measured(f"{name}.ratio", apart / together, at_least=GOAL),
            Measured(f"{name}.equal_answers", equal, f"of {questions}", at_least=questions),
        ]
    return found


def _history(session: Session, tokens: int) -> list[Message]:
    """As many facts as fill so many tokens."""
    from harness.episodes import Message

    told: list[Message] = []
    while not told or len(session.backbone.encode(told)[0]) < tokens:
        told.append(Message(f"The key to locker {len(told)} lies in drawer {97 * len(told) % 89}."))
    return told


def _ask(session: Session, told: Sequence[Message], asked: Sequence[str], new_tokens: int) -> list[str]:
    session.clear()
    session.write(*told)
    return session.ask_all(asked, max_new_tokens=new_tokens)


def _timed(work: Callable[[], list[str]]) -> tuple[list[str], float]:
    clock = time.perf_counter()
    result = work()
    return result, time.perf_counter() - clock
