"""What disturbed histories do to recall and to the state, for every row that keeps matrices.

Recall comes from an experiment's records. The states come from its fits: each history is written again, disturbed and
clean, and ‖ΔS‖ is how far the one lies from the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._measured import Measured

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from harness.episodes import Episode, History
    from harness.experiment import Experiment, Job, TaskSpec
    from harness.reporting.summary import Place, Summary

KEYS = ["backbone", "row", "task", "kind", "dose"]


def measure(name: str, results: Path, out: Path | None = None) -> list[Measured]:
    """Recall (points) and ‖ΔS‖ at every dose and row of an experiment.

    Args:
        name: The experiment.
        results: The results folder with its records and fits.
        out: Where ``granularity.csv`` and the figure go; None writes nothing.

    Raises:
        HarnessError: there are no records or fits, or no task of the experiment disturbs a history.
    """
    from harness.reporting.figures import doses

    found = table(name, results)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        found.round(4).to_csv(out / "granularity.csv", index=False)
        doses.write(found, out)
    return [
        Measured(f"{line.backbone}.{line.row}.{line.task}.{column}", scale * getattr(line, column), unit)
        for line in found.itertuples()
        for column, scale, unit in (("own", 100, "points"), ("old", 100, "points"), ("delta", 1, ""))
    ]


def table(name: str, results: Path) -> pd.DataFrame:
    """One line a backbone, row and task: what is dosed and how much, recall with its interval, and the state.

    Columns: ``KEYS`` (``harness.tasks.granularity.dose`` names kinds); recall ``own``, ``own_low``, ``own_high``,
    ``donor``, and by category ``target``, ``other_facts``; ``old``, ``old_donor``: how often the target's answer is a
    value that was overwritten, and how often a donor's memory says one by chance; those of :func:`moved`.
    """
    import pandas as pd

    from harness.config import load
    from harness.errors import HarnessError
    from harness.experiment import jobs
    from harness.reporting.summary import Place, Summary
    from harness.tasks import tasks
    from harness.tasks.granularity import Doses, Granularity, dose

    experiment = load(name)
    specs = [spec for spec in experiment.tasks if issubclass(tasks()[spec.task], Granularity)]
    if not specs:
        raise HarnessError(f"no task of '{name}' is {Granularity.name}; name an experiment that disturbs histories")
    summary = Summary(experiment, results)
    lines = []
    for job in jobs(experiment):
        states = _states(experiment, job, specs, results)
        for spec in specs if states else ():
            place = Place(job.backbone, job.row, spec.name, "removed")
            if summary.estimate(place) is None:
                raise HarnessError(f"{place.row} has no record of {spec.name}; run the experiment first")
            if any(record.truncated for record in summary.records_of(place)):
                raise HarnessError(
                    f"histories of {spec.name} were cut, so that doses differ in more; raise their limit"
                )
            kind, amount = dose(Doses(**spec.settings))
            names = dict(zip(KEYS, (job.backbone, job.row, spec.name, kind, amount), strict=True))
            lines.append({**names, **_recall(summary, place), **states[spec.name]})
    return pd.DataFrame(lines).groupby(KEYS, sort=False, as_index=False).mean()  # training seeds


def _recall(summary: Summary, place: Place) -> dict[str, float | None]:
    own, donor = summary.estimate(place), place._replace(arm="donor")
    value = lambda at, *which: getattr(summary.estimate(at, *which), "value", None)  # noqa: E731
    return {
        "own": own and own.value,
        "own_low": own and own.low,
        "own_high": own and own.high,
        "donor": value(donor),
        "old": value(place, "old", "target"),
        "old_donor": value(donor, "old", "target"),
        "target": value(place, "", "target"),
        "other_facts": value(place, "", "other"),
    }


def _states(experiment: Experiment, job: Job, specs: Sequence[TaskSpec], results: Path) -> dict[str, dict[str, float]]:
    """Means of :func:`moved` by task; empty for a row that keeps no matrices."""
    import pandas as pd

    from harness.experiment import row_of
    from harness.registry import resolve
    from harness.session import Session
    from harness.tasks.granularity import Doses, clean

    row = row_of(experiment, job)
    if resolve(row.method, row.with_)[0].capabilities.family != "online_state":
        return {}
    spec, folder = experiment.backbones[job.backbone], results / job.path
    with Session.open(spec, row.method, fit=folder, seed=job.seed, run=experiment.run, **row.with_) as session:
        state = cache(lambda history: session.method.write(history).S)  # type: ignore[union-attr]
        found = {}
        for task in specs:
            plain = clean(Doses(**task.settings)).model_dump()
            pairs = (_episodes(experiment, task, settings) for settings in (task.settings, plain))
            found[task.name] = dict(pd.DataFrame(moved(state, *pairs)).mean())
        return found


def _episodes(experiment: Experiment, spec: TaskSpec, settings: dict[str, Any]) -> Sequence[Episode]:
    from harness.tasks import select, task

    return select(task(spec.task).load(experiment.data, "test", settings, spec.episodes), spec, experiment.data.seed)


def moved(
    state: Callable[[History], Tensor], disturbed: Sequence[Episode], plain: Sequence[Episode]
) -> Iterator[dict[str, float]]:
    """How far a disturbed history moves the state, an episode.

    With S and S⁰ the states after the disturbed and the clean history of one episode, one matrix of N·r·r entries a
    layer, and ‖·‖ the Frobenius norm:

    - ``delta``: ‖S − S⁰‖ / ‖S⁰‖, the mean over layers;
    - ``other``: ‖S' − S⁰‖ / ‖S⁰‖ with S' after the clean history of the next episode: what nothing in common gives;
    - ``last``: ‖S − S⁻‖ / ‖S‖ with S⁻ before the last message: how much of the state is the last write.

    Args:
        state: Gives S after a history, [layers, N, r, r].
    """
    for n, (episode, twin) in enumerate(zip(disturbed, plain, strict=True)):
        S, S0, next_S0 = (state(e.history) for e in (episode, twin, plain[(n + 1) % len(plain)]))
        before = replace(episode.history, messages=episode.history.messages[:-1])
        yield {"delta": _apart(S, S0), "other": _apart(next_S0, S0), "last": _apart(state(before), S)}


def _apart(left: Tensor, right: Tensor) -> float:
    """‖left − right‖ / ‖right‖, the mean over layers."""
    return float(((left - right).flatten(1).norm(dim=1) / right.flatten(1).norm(dim=1)).mean())
