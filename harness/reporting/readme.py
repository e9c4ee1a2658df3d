"""Puts the published tables into README.md, between their markers: ``python -m harness.reporting.readme``."""

from __future__ import annotations

import re
from pathlib import Path

from harness.errors import HarnessError
from harness.records import atomic

README = Path("README.md")
REFERENCE = Path("results/reference")
SHOWN = ("- **Memory**", "- **Primary**")
"""Notes that say what the table means; the others, on what was run, fold away."""
_BLOCK = re.compile(r"(<!-- table:(?P<name>[\w.-]+) -->\n)(?P<body>.*?)(<!-- /table -->)", re.DOTALL)


def filled(text: str, reference: Path = REFERENCE) -> str:
    """``text`` with each ``<!-- table:NAME -->`` block holding the main table of that published experiment.

    The table and its notes are taken; to the parts below them the block points. A block whose experiment is not
    published is left as it is.

    Raises:
        HarnessError: a marker has no end, so that no block could be told from the text.
    """
    if text.count("<!-- table:") != len(_BLOCK.findall(text)):
        raise HarnessError(
            "a '<!-- table:NAME -->' marker stands without its '<!-- /table -->'; close each on its own line"
        )
    return _BLOCK.sub(lambda block: f"{block[1]}{_body(block, reference)}{block[4]}", text)


def _body(block: re.Match[str], reference: Path) -> str:
    file = reference / block["name"] / "tables" / "main.md"
    if not file.is_file():
        return block["body"]
    title, _, rest = file.read_text(encoding="utf-8").partition("\n")
    lines = rest.split("\n## ")[0].strip().splitlines()
    notes = [line for line in lines if line.startswith("- ")]
    table = "\n".join(line for line in lines if line not in notes).strip()
    said = "\n".join(line for line in notes if line.startswith(SHOWN))
    rest = "\n".join(line for line in notes if not line.startswith(SHOWN))
    parts = [
        f"**{title.removeprefix('# ')}**",
        table,
        said,
        f"<details><summary>What was run, and on what</summary>\n\n{rest}\n\n</details>",
        f"Every metric and category: [{file}]({file})",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def main() -> None:
    """Rewrite README.md where a published table has changed."""
    old = README.read_text(encoding="utf-8")
    new = filled(old)
    if new != old:
        with atomic(README) as temporary:
            temporary.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
