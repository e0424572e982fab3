"""Across runs: what a schedule changes in each run, over replicates, and which verdicts replicate.

Effects are changes against plain sampling on the same seeds, in units that compare across runs:

    f_mem                   change of the memorized share, 0 to 1
    quality_frechet/kernel  change of the distance that judges, as a share of plain sampling's, where a verdict has one
    fid, fd_digits, ...     change of the plug-in Fréchet distance, in its own unit: biased, so it judges nothing
    residual_FAMILY         the distance beyond the family's curve, as a share of plain sampling's: the distance that judges,
                            or the kernel distance where another one judges in each run
    kpe_per_dimension       change of the mean KPE divided by the dimension of a sample
    kpe_per_displacement    change of the mean KPE divided by the mean displacement; 1 is a straight line at constant speed

Shares of plain sampling's distance carry its own error.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fm_lightning.comparison.results import RowResult
from fm_lightning.estimate import Estimate, Interval, Z
from fm_lightning.phrases import joined
from fm_lightning.study.replicates import Experiment, Run
from fm_lightning.study.replication import correct, replication
from fm_lightning.verdicts.random_effects import LEAST, combine

SCHEMA = 1
BASE = "base"
KPE = ("kpe_per_dimension", "kpe_per_displacement")
Effects = dict[str, Interval]  # measure -> change against base


def build(found: Sequence[Experiment]) -> dict[str, Any]:
    """``compare.json``: the runs by experiment, the effects of each schedule, and what replicates."""
    entries = [_experiment(number, experiment) for number, experiment in enumerate(found, 1)]
    correct([schedule["verdict"] for entry in entries for schedule in entry["schedules"] if schedule["verdict"]])
    return {"schema": SCHEMA, "experiments": entries, "headline": headline(entries)}


def headline(entries: Sequence[Mapping[str, Any]]) -> str:
    """What the runs say together, in a sentence for each schedule that was judged."""
    sentences = []
    for entry in entries:
        where = f" ({', '.join(run['name'] for run in entry['runs'])})" if len(entries) > 1 else ""
        schedules: dict[str, list[str]] = {}  # sentence -> those of which it is true
        for schedule in entry["schedules"]:
            if schedule["verdict"]:
                schedules.setdefault(schedule["verdict"]["sentence"], []).append(schedule["schedule"])
        sentences += [f"{joined(names)}{where}: {sentence}" for sentence, names in schedules.items()]
    return "; ".join(sentences) + "." if sentences else "No schedule was judged in these runs, so nothing is claimed."


# --- effects ---


def _experiment(number: int, experiment: Experiment) -> dict[str, Any]:
    runs = experiment.runs
    schedules = list(dict.fromkeys(name for run in runs for name in run.rows("schedule")))
    return {
        "number": number,
        "runs": [_run(run) for run in runs],
        "apart": list(experiment.apart),
        "note": _note(len(runs)),
        "schedules": [
            {
                "schedule": name,
                "label": next(run.manifest.rows[name]["label"] for run in runs if name in run.manifest.rows),
                "effects": _over(_by_run(name, runs), _biased(runs)),
                "verdict": replication(name, runs),
            }
            for name in schedules
        ],
    }


def _note(replicates: int) -> str:
    if replicates == 1:
        return "One run, no replicate: its intervals know nothing of other training seeds."
    if replicates < LEAST:
        return f"{replicates} replicates, fewer than {LEAST}: no prediction interval, and no claim."
    return f"{replicates} replicates."


def _run(run: Run) -> dict[str, Any]:
    identity = run.identity
    return {
        "name": run.name,
        "samples": run.results.samples,
        **{key: identity.get(key) for key in ("weights", "base_seed", "training_data")},
        "data": (run.results.config.get("data") or {}).get("class_path"),
        "levels": {row: _levels(run, row) for row in run.rows("base", "schedule")},
    }


def _by_run(schedule: str, runs: Sequence[Run]) -> dict[str, Effects]:
    """The effects of a schedule in each run that has it; residuals are of one distance."""
    verdicts = [run.results.verdict(schedule) for run in runs]
    judges = {verdict.measure for verdict in verdicts if verdict is not None and verdict.measure is not None}
    distance = judges.pop() if len(judges) == 1 else "kernel"
    return {run.name: _effects(run, schedule, distance) for run in runs if schedule in run.rows("schedule")}


def _biased(runs: Sequence[Run]) -> set[str]:
    """The plug-in distance, where the runs have different numbers of samples: its bias depends on them."""
    plug_in = {run.results.quality.key for run in runs if run.results.quality is not None}
    return plug_in if len({run.results.samples for run in runs}) > 1 else set()


def _over(runs: Mapping[str, Effects], apart: Collection[str] = ()) -> dict[str, Any]:
    """measure -> the effect in each run that has it, and over them, except for measures ``apart``."""
    found: dict[str, Any] = {}
    for measure in dict.fromkeys(name for effects in runs.values() for name in effects):
        changes = {run: effects[measure] for run, effects in runs.items() if measure in effects}
        combined = None
        if len(changes) > 1 and measure not in apart:
            combined = asdict(combine([c.value for c in changes.values()], [_error(c) for c in changes.values()]))
        found[measure] = {
            "runs": {run: change._asdict() | {"error": _error(change)} for run, change in changes.items()},
            "combined": combined,
        }
    return found


def _error(change: Interval) -> float:
    return (change.high - change.low) / (2 * Z)


def _effects(run: Run, schedule: str, distance: str) -> Effects:
    row = run.results.row(schedule)
    assert row is not None
    found: Effects = {}
    if "f_mem" in row.vs_base:
        found["f_mem"] = row.vs_base["f_mem"]
    found |= _qualities(run, row, distance)
    here, there = _energies(run, schedule), _energies(run, BASE)
    return found | {measure: Interval(*(here[measure] - there[measure])) for measure in KPE if measure in here}


def _qualities(run: Run, row: RowResult, distance: str) -> Effects:
    verdict = run.results.verdict(row.name)
    found: Effects = {}
    if verdict is not None and verdict.against == BASE and verdict.measure is not None:
        judge = f"quality_{verdict.measure}"
        other = "quality_kernel" if judge == "quality_frechet" else "quality_frechet"
        shares = {judge: verdict.relative_change, other: verdict.other_relative}
        judging = verdict.measure == distance
        shares |= {f"residual_{f.family}": f.relative if judging else f.other_relative for f in verdict.families}
        found |= {measure: share for measure, share in shares.items() if share is not None}
    if run.results.quality is not None:
        key = run.results.quality.key
        found |= {key: row.vs_base[key]} if key in row.vs_base else {}
    return found


def _energies(run: Run, row: str) -> dict[str, Estimate]:
    """The mean KPE in units that compare, with each sample's contribution."""
    lines = run.evaluation.lines(row)
    kpe, displacement = (lines[name].to_numpy(dtype=np.float64) for name in ("kpe", "displacement"))
    found: dict[str, Estimate] = {}
    if size := _numbers(run):
        found["kpe_per_dimension"] = Estimate.of(float(kpe.mean()) / size, (kpe - kpe.mean()) / size)
    if displacement.mean() > 0:
        ratio = float(kpe.mean() / displacement.mean())
        found["kpe_per_displacement"] = Estimate.of(ratio, (kpe - ratio * displacement) / displacement.mean())
    return found


def _numbers(run: Run) -> int | None:
    """The dimension of a sample; None where neither the results nor kept samples tell it."""
    shape: Sequence[int] | None = run.results.shape
    if shape is None and (kept := run.evaluation.samples(BASE)) is not None:
        shape = kept.shape[1:]
    return math.prod(shape) if shape is not None else None


def _levels(run: Run, row: str) -> dict[str, float | None]:
    found = run.results.row(row)
    assert found is not None
    plug_in = run.results.quality.key if run.results.quality else ""
    names = ("f_mem", "quality_frechet", "quality_kernel", plug_in)
    levels = {name: found.metrics[name] for name in names if name in found.metrics}
    return levels | {measure: found.value for measure, found in _energies(run, row).items()}


# --- one line per number ---

COLUMNS = (
    *("experiment", "run", "schedule", "measure", "value", "low", "high", "error"),
    *("replicates", "tau", "i_squared", "prediction_low", "prediction_high"),
)


def flat(comparison: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One line per schedule, measure and run, unrounded; of replicates one more, whose run is ``combined``."""
    empty = dict.fromkeys(COLUMNS)
    for entry in comparison["experiments"]:
        for schedule in entry["schedules"]:
            for measure, effect in schedule["effects"].items():
                head = empty | {"experiment": entry["number"], "schedule": schedule["schedule"], "measure": measure}
                for run, change in effect["runs"].items():
                    yield head | {"run": run} | change
                if combined := effect["combined"]:
                    low, high = combined["prediction"] or (None, None)
                    known = {name: combined[name] for name in head if name in combined}
                    yield head | {"run": "combined"} | known | {"prediction_low": low, "prediction_high": high}
