"""The manifest, and the tables and figures made again from the records into a folder that is thrown away."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness import manifest
from harness.errors import HarnessError
from harness.verify.run import Check, Run


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
    """The tables are, byte for byte, what this version makes of the records."""
    return _rebuilt(run, "tables")


def figures(run: Run) -> Check:
    """The figures are, byte for byte, what this version draws of the records."""
    return _rebuilt(run, "figures")


def _rebuilt(run: Run, room: str) -> Check:
    from harness.registry import plug
    from harness.reporting import figures as drawing
    from harness.reporting import tables as writing

    check = Check(room)
    there = {path.name for path in (run.folder / room).glob("*") if path.is_file() and not path.name.startswith(".")}
    if not there:
        return check
    with tempfile.TemporaryDirectory() as scratch:
        try:
            experiment = run.experiment
            plug(experiment.plugins)
            made = (drawing if room == "figures" else writing).write(experiment, run.results, Path(scratch))
        except (HarnessError, ValueError, OSError) as error:
            check.wrong.append(f"the {room} of {run.name} cannot be made from its records: {_sentence(error)}")
            return check
        for path in made:
            there.discard(path.name)
            ours = run.folder / room / path.name
            if not ours.is_file():
                check.wrong.append(f"{ours} is missing")
            elif ours.read_bytes() != path.read_bytes():
                check.wrong.append(f"{ours} is not what this version makes of the records")
            else:
                check.held += 1
    if there:
        check.unchecked["another command makes them"] = len(there)
    return check


def _sentence(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
