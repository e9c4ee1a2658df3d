"""The manifest, and the tables and figures made again from the records into a folder that is thrown away."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from harness import manifest
from harness.errors import HarnessError
from harness.experiment import Experiment
from harness.verify.run import Check, Run

AUDIT = "audit.md"
DIFFERS = "is not what this version makes of the records"
DRAWN_BY = re.compile(rb"/Producer \(Matplotlib pdf backend v([\w.]+)\)")


def listed(run: Run) -> Check:
    """Every file that the manifest lists is there with its bytes, and every output is listed."""
    check = Check("manifest")
    try:
        found = run.manifest
    except HarnessError as error:
        check.wrong.append(str(error))
        return check
    if found is None:
        count = len(manifest.outputs(run.results, run.name))
        check.unchecked[f"there is no {manifest.FILE}, so the run is not complete"] = count
        return check
    wrong = manifest.changed(found, run.results)
    there = {str(path.relative_to(run.results)) for path in manifest.outputs(run.results, run.name)}
    check.held = len(found.files) - len(wrong)
    check.wrong += [f"{run.results / name} {problem}" for name, problem in sorted(wrong.items())]
    check.wrong += [f"{run.results / name} is not in the manifest" for name in sorted(there - found.files.keys())]
    if found.experiment.get("name") != run.name:
        check.wrong.append(f"the manifest is of the experiment '{found.experiment.get('name')}'")
    if found.missing:
        check.unchecked["the manifest says that they did not run"] = len(found.missing)
    return check


def tables(run: Run) -> Check:
    """The tables and the audit are, byte for byte, what this version makes of the records."""

    def make(experiment: Experiment, out: Path) -> list[Path]:
        from harness.reporting.tables import write

        made = write(experiment, run.results, out)
        return [*made, _audit(experiment, run.results, out)] if (run.folder / "tables" / AUDIT).is_file() else made

    return _rebuilt(run, "tables", make)


def _audit(experiment: Experiment, results: Path, out: Path) -> Path:
    from harness.reporting.audit import markdown
    from harness.reporting.summary import Summary

    text = markdown(experiment, Summary(experiment, results)) if experiment.tasks else markdown()
    (out / AUDIT).write_text(text, encoding="utf-8", newline="\n")
    return out / AUDIT


def figures(run: Run) -> Check:
    """The figures are, byte for byte, what this version draws of the records, where the same matplotlib drew them."""

    def make(experiment: Experiment, out: Path) -> list[Path]:
        from harness.reporting.figures import write

        return write(experiment, run.results, out)

    check = _rebuilt(run, "figures", make)
    others = _drawn_by(run.folder / "figures") - {version("matplotlib")}
    if others and (differ := [told for told in check.wrong if told.endswith(DIFFERS)]):
        check.wrong = [told for told in check.wrong if told not in differ]
        check.unchecked[f"they were drawn by matplotlib {', '.join(sorted(others))}"] += len(differ)
    return check


def _drawn_by(folder: Path) -> set[str]:
    """Versions of matplotlib, which names itself in a PDF."""
    found = (DRAWN_BY.search(path.read_bytes()) for path in folder.glob("*.pdf"))
    return {match[1].decode() for match in found if match}


def report(run: Run) -> Check:
    """The report is what this version makes of the records, and of the data where it shows words of theirs."""

    def make(experiment: Experiment, out: Path) -> list[Path]:
        from harness.reporting.report import FILE, write

        return [write(experiment, run.results, out / FILE)]

    check = _rebuilt(run, "report", make)
    if check.wrong and any(r.provenance.data.get("source") != "generated" for r in run.records.values()):
        check.wrong.clear()
        check.unchecked["it shows words of questions, which it took from a data folder"] += 1
    return check


def _rebuilt(run: Run, room: str, make: Callable[[Experiment, Path], list[Path]]) -> Check:
    """Make the files of a room in a folder that is thrown away, and compare."""
    from harness.registry import plug

    check = Check(room)
    there = {path.name for path in (run.folder / room).glob("*") if path.is_file() and not path.name.startswith(".")}
    if not there:
        return check
    with tempfile.TemporaryDirectory() as scratch:
        try:
            experiment = run.experiment
            plug(experiment.plugins)
            made = make(experiment, Path(scratch))
        except (HarnessError, ValueError, OSError) as error:
            check.wrong.append(f"{run.folder / room} cannot be made from the records: {_sentence(error)}")
            return check
        for path in made:
            there.discard(path.name)
            ours = run.folder / room / path.name
            if not ours.is_file():
                check.wrong.append(f"{ours} is missing")
            elif ours.read_bytes() != path.read_bytes():
                check.wrong.append(f"{ours} {DIFFERS}")
            else:
                check.held += 1
    if there:
        check.unchecked["another command makes them"] = len(there)
    return check


def _sentence(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
