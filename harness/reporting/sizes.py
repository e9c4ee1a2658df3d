"""Figure 4 as a table: what each row trains, and its share of the backbone, beside the printed numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness.reporting import reported
from harness.reporting.aggregates import Score
from harness.reporting.beside import NOT_RUN
from harness.reporting.matching import Matching, Printed
from harness.reporting.reported import MAIN_BACKBONE

KEY = "figure4_parameters"
TITLE = "Figure 4, trainable parameters"
MILLIONS = Score("parameters", "trainable_millions", "all")
PERCENT = Score("parameters", "percent_of_backbone", "all")
CONDITIONS = ("replayed", "own_text", "removed")


@dataclass(frozen=True)
class Size:
    """What one row trains on one backbone; without a row, what the paper prints of a method that did not run."""

    backbone: str
    row: str
    trainable: int | None
    """Parameters."""
    other: int
    """Parameters of networks loaded beside the backbone."""
    whole: int | None
    """Parameters of the backbone."""
    method: str
    millions: float | None
    """Printed."""
    percent: float | None
    """Printed: of the backbone."""
    verdict: str = ""
    reason: str = ""

    @property
    def share(self) -> float | None:
        """Percent of the backbone's parameters."""
        return 100 * self.trainable / self.whole if self.whole and self.trainable is not None else None

    @property
    def apart(self) -> float | None:
        """Millions of parameters, ours minus the paper's."""
        return None if self.trainable is None or self.millions is None else self.trainable / 1e6 - self.millions

    @property
    def told(self) -> str:
        return f"{self.verdict}: {self.reason}" if self.reason else self.verdict

    def lines(self) -> Iterator[dict[str, Any]]:
        """Its lines of ``paper.csv``: millions of parameters, and percent of the backbone."""
        ours = None if self.trainable is None else self.trainable / 1e6
        for column, mine, printed in ((MILLIONS, ours, self.millions), (PERCENT, self.share, self.percent)):
            follows = reported.recomputed(MAIN_BACKBONE, self.method, column)
            held = reported.held_to(follows) if follows is not None and self.verdict == "reproduced" else ""
            difference = "" if mine is None or printed is None else f"{mine - printed + 0.0:.4f}"
            yield {
                "table": KEY, "backbone": self.backbone, "row": self.row, **column._asdict(),
                "ours": "" if mine is None else f"{mine:.4f}", "paper": "" if printed is None else f"{printed:.2f}",
                "recomputed": "" if follows is None else f"{follows:.2f}", "difference": difference,
                "paper_method": self.method, "verdict": self.verdict, "reason": self.reason or held,
                "paper_backbone": MAIN_BACKBONE if self.method else "",
            }  # fmt: skip


def sizes(matching: Matching) -> list[Size]:
    """Every row that trains something or that Figure 4 has, then what Figure 4 has beside."""
    printed = Printed(KEY)
    found = []
    for backbone in matching.experiment.backbones:
        found += list(_rows(matching, printed, backbone))
    if not found:
        return []
    known = {size.method for size in found}
    missing = [name for name in printed.methods(MAIN_BACKBONE) if name not in known]
    return found + [Size("", "", None, 0, None, name, *_values(printed, name), NOT_RUN) for name in missing]


def _rows(matching: Matching, printed: Printed, backbone: str) -> Iterator[Size]:
    records = [r for r in matching.summary.records.values() if r.backbone == backbone]
    whole = min((int(r.provenance.backbone.get("parameters") or 0) for r in records), default=0) or None
    for row in matching.experiment.rows:
        ran = [r for r in records if r.row == row.row]
        if not ran:
            continue
        trainable, other = (max(getattr(r.costs, f"{kind}_parameters") for r in ran) for kind in ("trainable", "extra"))
        names = (matching.method(row, condition, printed.methods(MAIN_BACKBONE)) for condition in CONDITIONS)
        method = next(filter(None, names), "") if trainable else ""
        if not trainable and not other:
            continue
        verdict, reason = _verdict(matching, printed, backbone, row, method, trainable)
        yield Size(backbone, row.row, trainable, other, whole, method, *_values(printed, method), verdict, reason)


def _values(printed: Printed, method: str) -> tuple[float | None, float | None]:
    return printed.value(MAIN_BACKBONE, method, MILLIONS), printed.value(MAIN_BACKBONE, method, PERCENT)


def _verdict(matching: Matching, printed: Printed, backbone: str, row: Any, method: str, count: int) -> tuple[str, str]:
    """A count is exact: it is the printed one or it is not, where backbone and settings are the paper's."""
    if not method:
        return "", ""
    if matching.experiment.backbones[backbone].reported_as != MAIN_BACKBONE:
        return "not comparable", "another backbone"
    about = matching.about(row, method)
    if abs(count / 1e6 - (printed.value(MAIN_BACKBONE, method, MILLIONS) or 0.0)) < 0.0051:
        return "reproduced", ""
    if about is None or about.settings != row.with_:
        return "not comparable", "other settings"
    if about.differs:
        return "not comparable", about.differs
    return ("setting undisclosed", about.undisclosed) if about.undisclosed else ("not reproduced", "")
