"""``python -m tests.faults [CAMPAIGN ...] [--quick]``: do the faults, print the score sheet and keep it."""

from __future__ import annotations

import argparse
import sys

from tests.faults.sheet import SHEET, campaigns, passes, play, sheet


def main() -> int:
    """0 where every goal is met or has a stated reason, else 1."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("campaigns", nargs="*", metavar="CAMPAIGN", help="names of campaigns; all of them by default")
    parser.add_argument("--quick", action="store_true", help="a few faults of each kind")
    chosen = parser.parse_args()
    results = []
    SHEET.parent.mkdir(exist_ok=True)
    for result in play(campaigns(chosen.campaigns), chosen.quick):
        results.append(result)
        SHEET.write_text(sheet(results), encoding="utf-8")  # as far as it is: it takes long
    print(sheet(results), end="")
    return 0 if passes(results) else 1


if __name__ == "__main__":
    sys.exit(main())
