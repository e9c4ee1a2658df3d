"""Fills the templates under ``tables/templates``; whatever a template prints is escaped for its format."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.reporting.beside import MARKS
from harness.statistics import Estimate

TEMPLATES = Path(__file__).parents[2] / "tables" / "templates"
_GREEK = {c: unicodedata.name(c).split()[-1].lower().replace("lamda", "lambda") for c in "αβγδεζηθικλμνξπρστυφχψω"}
_TEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\char34{}", "−": r"$-$", "–": "--", "—": "---",
    "×": r"$\times$", "±": r"$\pm$", "≤": r"$\leq$", "≥": r"$\geq$", "†": r"\dag{}", "‘": "`", "’": "'",
    "“": "``", "”": "''", "…": r"\dots{}", "\n": " ", "\t": " ", "\r": " ", "\u00a0": "~",
    **{c: "\\" + c for c in "{}$&#_%"},
    **{letter: f"$\\{name}$" for letter, name in _GREEK.items()},
}  # fmt: skip


def tex(text: object) -> Markup:
    """Text for LaTeX, safe under plain pdflatex; a character that its fonts lack is written as ``[U+4E2D]``."""
    return text if isinstance(text, Markup) else Markup("".join(map(_tex_character, str(text))))


def _tex_character(character: str) -> str:
    if character in _TEX:
        return _TEX[character]
    base = unicodedata.normalize("NFD", character)[0] if character <= "ÿ" else character
    return character if " " <= base <= "~" else f"[U+{ord(character):04X}]"


def markdown(text: object) -> Markup:
    """Text for a cell or a line of Markdown, so that nothing in it is read as markup or HTML."""
    if isinstance(text, Markup):
        return text
    flat = re.sub(r"\s+", " ", str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Markup(re.sub(r"([\\`*|\[\]$]|(?<!\w)_|_(?!\w))", r"\\\1", flat))


def number(value: float, signed: bool = False) -> str:
    """A share as percent with one decimal; never a negative zero."""
    percent = round(100 * value, 1) + 0.0
    return f"{percent:{'+' if signed else ''}.1f}".replace("-", "−")


def interval(estimate: Estimate | None, signed: bool = False) -> str:
    """``[33.1, 49.3]`` in percent; empty where there is no interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return ""
    return f"[{number(estimate.low, signed)}, {number(estimate.high, signed)}]"


def value(estimate: Estimate | None, signed: bool = False) -> str:
    """The mean in percent; empty where the cell did not run."""
    return "" if estimate is None else number(estimate.value, signed)


def cell(estimate: Estimate | None, signed: bool = False) -> str:
    """Mean and interval in one."""
    return f"{value(estimate, signed)} {interval(estimate, signed)}".strip()


def entry(place: Any) -> str:
    """What stands in a place of the main table: mean, interval and remark in one."""
    shown = cell(place.estimate, place.signed)
    return f"{shown} ({place.remark})" if shown and place.remark else shown or place.remark


def seconds(value: float | None) -> str:
    """Three digits; empty where nothing was measured."""
    return "" if value is None else f"{value:.3g}" if value >= 1e-4 else "0"


def speed(value: float | None) -> str:
    """Tokens a second, three digits or whole ones."""
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size(value: int | None) -> str:
    """Bytes in MB, two digits or whole ones; smaller ones in KB or bytes."""
    if value is None:
        return ""
    unit, scale = next((pair for pair in (("MB", 1e6), ("KB", 1e3)) if value >= pair[1]), ("B", 1))
    return f"{value / scale:,.0f} {unit}" if value / scale >= 10 or scale == 1 else f"{value / scale:.1f} {unit}"


def times(ratio: float | None) -> str:
    """``(1.24)``, two digits below a tenth; empty where there is no ratio."""
    return "" if ratio is None else f"({ratio:.2f})" if ratio >= 0.1 or not ratio else f"({ratio:.2g})"


def apart(value: float) -> str:
    """A signed difference with two decimals; never a negative zero."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")


def rules(spans: Iterable[tuple[str, int]]) -> Markup:
    """A ``\\cmidrule`` under each heading that spans so many columns; the first column is the label's."""
    drawn, start = "", 2
    for _, width in spans:
        drawn += rf"\cmidrule(lr){{{start}-{start + width - 1}}}"
        start += width
    return Markup(drawn)


@cache
def _environment(suffix: str) -> Environment:
    escape: Callable[[object], Markup] = {".tex": tex, ".md": markdown}[suffix]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        finalize=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        block_start_string="<%",
        block_end_string="%>",
        variable_start_string="<<",
        variable_end_string=">>",
        comment_start_string="<#",
        comment_end_string="#>",
    )
    environment.filters.update(value=value, interval=interval, cell=cell, entry=entry, rules=rules)
    environment.filters.update(number=number, apart=apart, zip=zip)
    environment.globals.update(marks=MARKS)
    environment.filters.update(seconds=seconds, speed=speed, size=size, times=times)
    return environment


def render(name: str, **context: Any) -> str:
    """The text of ``tables/templates/<name>.j2``; the suffix of ``name`` (.tex, .md) says how values are escaped."""
    return _environment(Path(name).suffix).get_template(f"{name}.j2").render(**context)
