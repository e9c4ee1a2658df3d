"""Single bits that change in what a run left: each is refused, or the file is made again; none is used unseen."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.errors import HarnessError
from tests.faults.broken_off import Run, broken_off
from tests.faults.pipeline import SEED
from tests.faults.sheet import Result

FLIPS = 200
ARTEFACTS = {
    "parameters of a stored fit": "results/fits/[!.]*/adapter_model.safetensors",
    "settings of a stored fit": "results/fits/[!.]*/adapter_config.json",
    "report of a stored fit": "results/fits/[!.]*/fit.json",
    "fit.json of a job": "results/smoke/*/*/*/fit.json",
    "evaluated.json of a job": "results/smoke/*/*/*/evaluated.json",
    "record.json": "results/smoke/**/record.json",
    "samples.parquet": "results/smoke/**/samples.parquet",
    "efficiency.json": "results/smoke/**/efficiency.json",
    "journal of a cell": "results/smoke/**/journal.jsonl",
    "checkpoint of a fit": "results/fits/.*.work/trainer/checkpoint-2/*",
    "cached backbone": "cache/backbones/*/*",
}
"""Files below a run's folder; a checkpoint's are those of the last one, for the one before it is not read."""
DETECTED = ("refused", "made again")


def run(quick: bool) -> Iterator[Result]:
    flips = len(ARTEFACTS) if quick else FLIPS
    with broken_off() as (broken, tables):
        found: dict[str, Counter[str]] = {kind: Counter() for kind in ARTEFACTS}
        for file, bit, kind in drawn(broken, flips):
            found[kind][outcome(broken, file, bit, tables)] += 1
    for kind, outcomes in found.items():
        yield _result(f"bit flips in: {kind}", outcomes)
    yield _result("single-bit flips in cached artefacts, all together", sum(found.values(), Counter()))


def _result(fault: str, outcomes: Counter[str]) -> Result:
    detected = sum(outcomes[name] for name in DETECTED)
    told = ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items()))
    goal = f"{outcomes.total()} of {outcomes.total()} detected, made again or refused"
    return Result(fault, goal, f"{detected} of {outcomes.total()} ({told})", detected == outcomes.total())


def drawn(broken: Run, flips: int) -> Iterator[tuple[Path, int, str]]:
    """Files, by their path in the run, a bit of each, and what they are; each kind as often as any other."""
    draws = random.Random(f"{SEED} flips")
    kinds = list(ARTEFACTS)
    for n in range(flips):
        kind = kinds[n % len(kinds)]
        files = sorted(path for path in broken.folder.glob(ARTEFACTS[kind]) if path.is_file() and path.stat().st_size)
        file = draws.choice(files)
        yield file.relative_to(broken.folder), draws.randrange(8 * file.stat().st_size), kind


def outcome(broken: Run, file: Path, bit: int, tables: dict[str, bytes]) -> str:
    """What the same command does when one bit of a file is another one; ``refused`` or ``made again`` at best."""
    with broken.copy() as run:
        path = run.folder / file
        path.write_bytes(flipped := flip(path.read_bytes(), bit))
        try:
            run.again()
        except HarnessError as error:
            return "refused" if _names(str(error), path) else f"refused without its name ({error})"
        except Exception as error:
            return f"no sentence: {type(error).__name__} of {file.name}"
        if run.tables() != tables:
            return f"other tables through {file.name}"
        told = any(_names(sentence, path) for sentence in run.said())
        return "made again" if told or (path.is_file() and path.read_bytes() != flipped) else f"unseen in {file.name}"


def flip(content: bytes, bit: int) -> bytes:
    """The content with one bit changed."""
    place, bit = divmod(bit, 8)
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def _names(sentence: str, path: Path) -> bool:
    """Whether a sentence names a file, or its folder."""
    return str(path.parent) in sentence
