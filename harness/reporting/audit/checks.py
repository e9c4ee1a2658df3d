"""How each kind of claim is checked: a function a kind, from the printed numbers alone.

Each gives the recomputed value, a verdict and one sentence, all three computed, so that another printed number gives
another verdict.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.reporting import closed_forms
from harness.reporting.aggregates import OVERALL, PARTS, Paper, Row, Score, Value
from harness.reporting.audit.facts import (
    DISAGREE,
    FALSE,
    FOLLOWS,
    HOLDS,
    ONE,
    OPEN,
    PART,
    VARIANTS,
    WRONG,
    Fact,
    Finding,
    chance,
    listed,
    ranked,
    short,
    told,
)  # fmt: skip
from harness.reporting.audit.sizes import control, curve, experiment, file, parameters, samples, share, state

CATEGORIES = {
    "AR": "accurate retrieval", "TTL": "test-time learning", "LRU": "long-range understanding",
    "SF": "selective forgetting",
}  # fmt: skip
"""MemoryAgentBench's, in words."""
SLIP = "C1"
"""The claim whose number others repeat."""


def value(fact: Fact, paper: Paper) -> Finding:
    """A printed score, or a pair "from -> to" of two rows."""
    methods = [fact.against, fact.method][-len(fact.numbers) :]
    rows = [fact.row(paper, method) for method in methods]
    found = [paper.value(row, fact.score) for row in rows]
    text = " → ".join(told(v.value) for v in found)
    if all(v.agrees(number) for v, number in zip(found, fact.numbers, strict=True)):
        given = paper.recomputed(rows[-1], fact.score) is not None
        how = f"Follows from the cells of {rows[-1].source}." if given else f"Stands so in {rows[-1].source}."
        return Finding(text, HOLDS, how + _otherwise_weighted(paper, rows, fact.score, found))
    if paper.recomputed(rows[-1], fact.score) is None:
        return Finding(text, DISAGREE, f"{rows[-1].source} prints {text}.")
    off = found[-1].value - fact.numbers[-1]
    how = "less" if off < 0 else "more"
    return Finding(text, WRONG, f"Its own row gives {told(found[-1].value)}, {abs(off):.2f} {how} than printed.")


def _otherwise_weighted(paper: Paper, rows: list[Row], score: Score, found: list[Value]) -> str:
    """What an overall average would be, were the averages in it weighted as in the other rows of the table."""
    deep = [paper.recomputed(row, score, deep=True) for row in rows] if score == OVERALL else []
    known = [v for v in deep if v is not None]
    if len(known) != len(rows) or all(
        abs(d.value - v.value) <= d.slack + v.slack for d, v in zip(known, found, strict=True)
    ):
        return ""
    text = f" With MemoryAgentBench weighted by questions, as for the other backbones, it would be {_arrow(known)}"
    return (
        f"{text}: a gain of {known[-1].value - known[0].value:.2f} instead of {found[-1].value - found[0].value:.2f}."
    )


def _arrow(values: list[Value]) -> str:
    return " → ".join(f"{v.value:.2f}" for v in values)


def ratio(fact: Fact, paper: Paper) -> Finding:
    """The score of the variants over that of another row."""
    base = fact.row(paper, fact.against)
    under = paper.value(base, fact.score)
    rows = {method: fact.row(paper, method) for method in VARIANTS}
    ratios = {method: paper.value(row, fact.score).over(under) for method, row in rows.items()}
    fits = [method for method, found in ratios.items() if found.agrees(fact.numbers[0])]
    verdict = {0: WRONG, 1: ONE, len(VARIANTS): HOLDS}.get(len(fits), PART)
    text = ", ".join(f"{short(m)} {v.value:.3f}" for m, v in ratios.items())
    best = max(ratios, key=lambda m: ratios[m].value)
    sentence = f"{listed([short(m) for m in fits])} gives it" if fits else "No variant gives it"
    if fits == [best]:
        sentence += ", the best of the three here"
    for method, row in rows.items():
        printed = paper.printed(row, fact.score)
        by_print = Value(printed or 0.0).over(under)
        if method not in fits and by_print.agrees(fact.numbers[0]):
            sentence += f"; {short(method)} would by its printed {printed:.2f}, which is a slip ({SLIP})"
    return Finding(text, verdict, f"{sentence}.{_rival(fact, paper, base, ratios)}")


def _rival(fact: Fact, paper: Paper, base: Row, ratios: dict[str, Value]) -> str:
    """Which other row of the table lies above a variant."""
    others = [row for row in paper.rows(base.source, base.backbone) if row.method not in (*VARIANTS, base.method)]
    highest, row = ranked(paper, [r for r in others if paper.printed(r, fact.score) is not None], fact.score)[0]
    over = highest.over(paper.value(base, fact.score)).value
    below = [short(method) for method, found in ratios.items() if found.value < over]
    return f" {row.method} reaches {over:.3f}, more than {listed(below)}." if below else ""


def gain(fact: Fact, paper: Paper) -> Finding:
    """A difference of two rows, in points."""
    rows = [fact.row(paper, method) for method in (fact.method, fact.against)]
    found = paper.value(rows[0], fact.score) - paper.value(rows[1], fact.score)
    if found.agrees(fact.numbers[0]):
        return Finding(told(found.value), HOLDS, "Follows from the two rows' own cells.")
    printed = [paper.printed(row, fact.score) or 0.0 for row in rows]
    slip = not paper.value(rows[0], fact.score).agrees(printed[0])
    if slip and abs(printed[0] - printed[1] - fact.numbers[0]) <= 0.011:
        sentence = f"The printed {printed[0]:.2f} gives it, its own row does not; a gain of {found.value:.2f} stays."
        return Finding(told(found.value), FOLLOWS + SLIP, sentence)
    return Finding(told(found.value), WRONG, f"The two rows' own cells give {found.value:.2f}.")


def variants(fact: Fact, paper: Paper) -> Finding:
    """A score that the paper gives for δ-mem without a variant."""
    found = {method: paper.value(fact.row(paper, method), fact.score) for method in VARIANTS}
    fits = [method for method, v in found.items() if v.agrees(fact.numbers[0])]
    text = ", ".join(f"{short(m)} {told(v.value)}" for m, v in found.items())
    base = paper.value(fact.row(paper, fact.against), fact.score).value
    above = [short(m) for m, v in found.items() if v.value > base]
    over = "all three variants lie" if len(above) == len(VARIANTS) else f"{listed(above) or 'none'} is"
    verdict = {0: WRONG, 1: ONE, len(VARIANTS): HOLDS}.get(len(fits), PART)
    named = f"{listed([short(m) for m in fits])} has it" if fits else "No variant has it"
    return Finding(text, verdict, f"{named}; {over} above {short(fact.against)}'s {base:.2f}.")


def highest(fact: Fact, paper: Paper) -> Finding:
    """A row that is said to be the best of some, and its printed score where one is given."""
    mine = fact.row(paper)
    found = paper.value(mine, fact.score)
    if fact.printed and not found.agrees(fact.numbers[0]):
        return value(fact, paper)
    order = ranked(paper, [mine, *fact.rivals(paper)], fact.score)
    (_, first), (_, second) = order[:2]
    other = second if first == mine else first
    lead = found.value - paper.value(other, fact.score).value
    error = chance(paper, mine, fact.score)
    text = ", ".join(f"{short(row.method)} {told(v.value)}" for v, row in order[:3])
    if first == mine:
        settled = "" if lead > error else f", which one run does not settle (one standard error: {error:.1f})"
        sentence = f"Ahead of {short(other.method)} by {lead:.2f}{settled}{_price(mine, other)}."
        return Finding(text, HOLDS, sentence)
    sentence = f"By its own cells {short(first.method)} is ahead, by {-lead:.2f}"
    if -lead <= error:
        return Finding(
            text, OPEN, f"{sentence}; that is below one standard error ({error:.1f}), so one run cannot rank them."
        )
    return Finding(text, FALSE, f"{sentence}, more than one standard error ({error:.1f}).")


def _price(mine: Row, other: Row) -> str:
    """What more heads cost in parameters."""
    if "heads=" not in mine.method:
        return ""
    shape = closed_forms.shape()
    counts = [closed_forms.delta_mem(shape, heads=short(row.method)) for row in (mine, other)]
    more = 100 * (counts[0] / counts[1] - 1)
    return (
        f", with {more:.1f}% more parameters" if more > 0 else f", with {-more:.1f}% fewer parameters" if more else ""
    )


def leads(fact: Fact, paper: Paper) -> Finding:
    """A row that is said to lead in several columns."""
    mine = fact.row(paper)
    margins: dict[Score, float] = {}
    for score in fact.scores:
        rivals = [row for row in fact.rivals(paper) if paper.printed(row, score) is not None]
        margins[score] = paper.value(mine, score).value - ranked(paper, rivals, score)[0][0].value
    text = ", ".join(told(paper.value(mine, score).value) for score in fact.scores)
    behind = [score for score, margin in margins.items() if margin < 0]
    if behind:
        verdict = FALSE if len(behind) == len(margins) else PART
        return Finding(text, verdict, f"It is not first on {listed([s.subset for s in behind])}.")
    close = [s for s, margin in margins.items() if margin < chance(paper, mine, s)]
    sentence = "First in each of them"
    if close:
        where = "each" if close == list(margins) else listed([s.subset for s in close])
        sentence += f", on {where} by less than one standard error"
    return Finding(text, HOLDS, f"{sentence}.{_led_elsewhere(fact, paper, mine)}")


def _led_elsewhere(fact: Fact, paper: Paper, mine: Row) -> str:
    """Columns of the same benchmark that another row leads."""
    average = fact.score._replace(subset="avg")
    told_of = []
    for subset in PARTS.get(average, ()):
        score = fact.score._replace(subset=subset)
        top, row = ranked(paper, paper.rows(mine.source, mine.backbone), score)[0]
        if score not in fact.scores and row != mine:
            told_of.append(f" On {subset}, which is not claimed, {row.method} is first ({told(top.value)}).")
    return "".join(told_of)


def strongest(fact: Fact, paper: Paper) -> Finding:
    """δ-mem before all other rows, by the average and by column."""
    source = fact.row(paper, VARIANTS[0]).source
    rows = paper.rows(source, fact.backbone)
    top, first = ranked(paper, rows, fact.score)[0]
    text = f"{short(first.method)} {told(top.value)}"
    if first.method not in VARIANTS:
        return Finding(text, FALSE, f"By the average {first.method} is first.")
    lost = []
    for score in paper.cells[first]:
        at = [row for row in rows if paper.printed(row, score) is not None]
        best = ranked(paper, at, score)[0][1]
        if best.method not in VARIANTS:
            lost.append(f"{score} ({short(best.method)})")
    if not lost:
        return Finding(text, HOLDS, "First by the average and in every column.")
    count = len(paper.cells[first])
    return Finding(
        text, PART, f"First by the average and in {count - len(lost)} of {count} columns; not on {listed(lost)}."
    )


def kept(fact: Fact, paper: Paper) -> Finding:
    """Scores that the variants are said to keep."""
    moves, parts = [], []
    for score in fact.scores:
        base = fact.row(paper, fact.against, score)
        questions, error = paper.questions[score], chance(paper, base, score)
        values = [paper.value(row, score).value for row in (base, *(fact.row(paper, m, score) for m in VARIANTS))]
        moves += [(v - values[0]) / error for v in values[1:]]
        right = [round(v * questions / 100) for v in values]
        parts.append(f"{score.benchmark} {right[0]} → {'/'.join(map(str, right[1:]))} of {questions}")
    names = "/".join(short(m) for m in VARIANTS)
    worst = min(moves)
    verdict = HOLDS if worst >= -1 else OPEN if worst >= -2 else FALSE
    sentence = (
        f"No score falls by more than {-worst:.1f} of its standard error; the largest rise is {max(moves):.1f} of one."
    )
    return Finding(f"{'; '.join(parts)} ({names})", verdict, sentence)


def consistent(fact: Fact, paper: Paper) -> Finding:
    """Gains over the frozen backbone that are said to be everywhere."""
    falls: dict[str, list[tuple[str, float]]] = {}
    for score in fact.scores:
        base = fact.row(paper, fact.against, score)
        for method in VARIANTS:
            fall = paper.value(base, score).value - paper.value(fact.row(paper, method, score), score).value
            if fall > 0:
                column = CATEGORIES.get(score.subset, score.benchmark)
                falls.setdefault(column, []).append((short(method), fall / chance(paper, base, score)))
    count, total = sum(map(len, falls.values())), len(fact.scores) * len(VARIANTS)
    text = f"{total - count} of {total} differences are gains"
    if not falls:
        return Finding(text, HOLDS, "Every variant gains on every benchmark.")
    where = listed([f"{column} ({', '.join(m for m, _ in found)})" for column, found in falls.items()])
    large = {column: [m for m, errors in found if errors > 1] for column, found in falls.items()}
    named = listed([f"{listed(names)} on {column}" for column, names in large.items() if names])
    more = f"beyond one standard error only {named}" if named else "none beyond one standard error"
    verdict = PART if count < total / 2 else FALSE
    return Finding(text, verdict, f"Falls are on {where}; {more}.")


def largest(fact: Fact, paper: Paper) -> Finding:
    """A gain that is said to be largest on the bridge questions."""
    gains: dict[str, list[float]] = {}
    ratios: dict[str, list[float]] = {}
    for score in fact.scores:
        for subset in PARTS[score._replace(subset="all")]:
            at = score._replace(subset=subset)
            state, bare = (paper.value(fact.row(paper, method, at), at) for method in (fact.method, fact.against))
            gains.setdefault(subset, []).append((state - bare).value)
            ratios.setdefault(subset, []).append(state.value / bare.value)
    claimed, (other, *_) = fact.score.subset, [s for s in gains if s != fact.score.subset]
    metrics = [score.metric for score in fact.scores]
    text = "; ".join(
        f"{subset} {', '.join(f'{g:+.2f} {m}' for g, m in zip(found, metrics, strict=True))}"
        for subset, found in gains.items()
    )
    behind = [o - g for g, o in zip(gains[claimed], gains[other], strict=True)]
    if max(behind) <= 0:
        return Finding(
            text, HOLDS, f"{claimed.capitalize()} questions gain more than {other} questions in every metric."
        )
    errors = [chance(paper, fact.row(paper, score=s), s._replace(subset=other)) for s in fact.scores]
    less = [gap > error for gap, error in zip(behind, errors, strict=True)]
    if not any(less):
        return Finding(text, OPEN, f"{other.capitalize()} questions gain more, by less than one standard error.")
    times = listed(
        [f"{o / g:.1f} times as much in {m}" for g, o, m in zip(gains[claimed], gains[other], metrics, strict=True)]
    )
    relative = all(r < o for r, o in zip(ratios[claimed], ratios[other], strict=True))
    sentence = f"{other.capitalize()} questions gain more, {times}" + (
        ", and more in proportion too" if relative else ""
    )
    return Finding(text, FALSE if all(less) else PART, f"{sentence}.")


def figure(fact: Fact, paper: Paper) -> Finding:
    """Numbers of the text beside those of a figure."""
    rows = [fact.row(paper, method) for method in (fact.against, fact.method)]
    found = [paper.value(row, fact.score) for row in rows]
    shown = _arrow(found)
    if all(v.agrees(number) for v, number in zip(found, fact.numbers, strict=True)):
        return Finding(shown, HOLDS, f"Text and {rows[0].source} agree.")
    own = all(paper.value(row, fact.score).agrees(paper.printed(row, fact.score) or 0.0) for row in rows)
    follows = "follow from its categories" if own else "do not follow from its categories either"
    sentence = (
        f"{rows[0].source} prints other numbers, which {follows}; its gain is {(found[1] - found[0]).value:.2f}, "
    )
    return Finding(shown, DISAGREE, f"{sentence}the text's {fact.numbers[1] - fact.numbers[0]:.2f}.")


CHECKS: dict[str, Callable[[Fact, Paper], Finding]] = {
    check.__name__: check
    for check in (
        value, ratio, gain, variants, highest, leads, strongest, kept, consistent, largest, figure, parameters, share,
        state, control, samples, file, curve, experiment,
    )
}  # fmt: skip
