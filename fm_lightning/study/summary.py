"""What the runs of a study say together: ``study.json``.

tau_gen   when the distance to unseen real images is within a margin of its best
tau_mem   when F_mem passes a share
window    tau_mem / tau_gen: between the two lies the training that is good and copies little
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fm_lightning.study.axes import SEED, short_names
from fm_lightning.study.curves import DISTANCES, Curve
from fm_lightning.study.estimates import exponent, geometric_mean, largest_factor, mean
from fm_lightning.study.times import (
    LEAVES,
    MARGIN,
    PLATEAU,
    SHARE,
    best,
    departure,
    passage,
    tau_gen,
    tau_mem,
    value_at,
)

SCHEMA = 1
ANNOUNCERS = ("kpe", "kpe_early", "kpe_late", "loss_gap")
IMAGES = ("n", "subset")  # last part of the axis that counts training images
Place = dict[str, Any]  # axis -> value, without the seed


def summarize(
    curves: Sequence[Curve],
    axes: Sequence[str],
    missing: Mapping[str, str] | None = None,
    share: float = SHARE,
    margin: float = MARGIN,
) -> dict[str, Any]:
    """``study.json``: each run's times, and what follows over seeds, axes and runs.

    Args:
        curves: of the finished runs.
        axes: in which they differ.
        missing: name -> why, of the runs that are left out.
        share: of copies, at which tau_mem is.
        margin: relative, of the distance at tau_gen.
    """
    runs = [_run(curve, share, margin) for curve in curves]
    _match(curves, runs)
    grid = [axis for axis in axes if axis != SEED]
    images = next((axis for axis in grid if axis.rpartition(".")[2] in IMAGES), None)
    return {
        "schema": SCHEMA,
        "axes": {
            axis: sorted({repr(c.values[axis]): c.values[axis] for c in curves}.values(), key=_rank) for axis in axes
        },
        "short": short_names(list(axes)),
        "images": images,
        "share": share,
        "margin": margin,
        "plateau": {"validations": PLATEAU, "noise": LEAVES},
        "distance": next((name for name in DISTANCES if any(c.distance == name for c in curves)), None),
        "missing": dict(missing or {}),
        "runs": runs,
        "groups": [_group(place, some) for place, some in _groups(runs, grid)],
        "exponents": list(_exponents(runs, grid)),
        "collapse": list(_collapse(runs, grid, images)),
        "capacity": list(_capacity(runs, grid, images, share)),
        "announcements": [_announcement(runs, name) for name in ANNOUNCERS],
    }


# One run


def _run(curve: Curve, share: float, margin: float) -> dict[str, Any]:
    gen, mem = tau_gen(curve, margin), tau_mem(curve, share)
    found: dict[str, Any] = {
        "name": curve.name,
        "values": curve.values,
        "last_step": float(curve.steps[-1]),
        "f_mem_last": float(curve.get("f_mem")[-1]),
        "tau_gen": gen.step,
        "tau_gen_note": gen.note,
        "tau_mem": mem.step,
        "tau_mem_note": mem.note,
        "window": mem.step / gen.step if mem.step and gen.step else None,
    }
    if curve.distance is not None:
        i = best(curve)
        found |= {
            "distance_best": float(curve.get(curve.distance)[i]),
            "step_best": float(curve.steps[i]),
            "f_mem_best": float(curve.get("f_mem")[i]),
        }
    departures = {name: departure(curve, name, gen.step) for name in (*ANNOUNCERS, "f_mem")} if gen.step else {}
    found["departures"] = {name: {"step": time.step, "note": time.note} for name, time in departures.items()}
    return found


def _match(curves: Sequence[Curve], runs: Sequence[dict[str, Any]]) -> None:
    """Adds F_mem at matched distance: where each run first reaches the worst of all runs' best distances."""
    reached = [run["distance_best"] for run in runs if "distance_best" in run]
    if len(reached) < len(runs) or len({curve.distance for curve in curves}) > 1:
        return
    level = max(reached, default=math.nan)
    for curve, run in zip(curves, runs):
        assert curve.distance is not None
        time = passage(curve.steps, -curve.get(curve.distance), -level)
        run |= {"distance_matched": level, "step_matched": time.step}
        run["f_mem_matched"] = value_at(curve.steps, curve.get("f_mem"), time.step) if time.step else None


# Over seeds


def _groups(runs: Sequence[dict[str, Any]], grid: Sequence[str]) -> Iterator[tuple[Place, list[dict[str, Any]]]]:
    """Runs that differ in the seed alone, in ascending order of their places."""
    places: dict[str, tuple[Place, list[dict[str, Any]]]] = {}
    for run in runs:
        place = {axis: run["values"][axis] for axis in grid}
        places.setdefault(repr(place), (place, []))[1].append(run)
    yield from sorted(places.values(), key=lambda item: [_rank(value) for value in item[0].values()])


def _group(place: Place, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def over(key: str, of: Callable[..., Any], **options: Any) -> Any:
        return of([run[key] for run in runs if run.get(key) is not None], **options)

    inside = {"within": (0.0, 1.0)}
    return {
        "at": place,
        "runs": len(runs),
        **{key: over(key, geometric_mean) for key in ("tau_gen", "tau_mem", "window")},
        **{key: over(key, mean, **inside) for key in ("f_mem_best", "f_mem_matched", "f_mem_last")},
        "distance_best": over("distance_best", mean),
        "passed": sum(run["tau_mem"] is not None for run in runs),
    }


# Over an axis


def _series(
    runs: Sequence[dict[str, Any]], grid: Sequence[str], axis: str, key: str
) -> Iterator[tuple[Place, dict[float, list[float]], bool]]:
    """(the other axes' values, x -> times of the seeds, whether a run has none), for each line along ``axis``.

    Where some seeds have no time the mean of the others would be too early, so that x has none.
    """
    others = [other for other in grid if other != axis]
    for place, some in _groups(runs, others):
        at: dict[float, list[float]] = {}
        for run in some:
            at.setdefault(float(run["values"][axis]), []).append(run[key] if run[key] is not None else math.nan)
        whole = {x: times for x, times in sorted(at.items()) if not any(math.isnan(time) for time in times)}
        yield place, whole, len(whole) < len(at)


def _exponents(runs: Sequence[dict[str, Any]], grid: Sequence[str]) -> Iterator[dict[str, Any]]:
    for axis in grid:
        values = {repr(run["values"][axis]) for run in runs}
        if len(values) < 2 or not all(_is_positive(run["values"][axis]) for run in runs):
            continue
        for key in ("tau_gen", "tau_mem", "window"):
            for place, at, censored in _series(runs, grid, axis, key):
                found, note = exponent(at)
                if censored:
                    note = "; ".join(filter(None, [note, "values with a run that never passes are left out"]))
                yield {"of": key, "axis": axis, "at": place, "exponent": found, "note": note, "points": len(at)}


def _collapse(runs: Sequence[dict[str, Any]], grid: Sequence[str], images: str | None) -> Iterator[dict[str, Any]]:
    """How far tau_mem lies apart over the number of images: in steps, and in steps per image."""
    if images is None:
        return
    for place, at, censored in _series(runs, grid, images, "tau_mem"):
        note = "values with a run that never passes are left out" if censored else ""
        yield {
            "at": place,
            "images": sorted(at),
            "steps": largest_factor(at),
            "steps_per_image": largest_factor(at, 1.0),
            "note": note,
        }


def _capacity(
    runs: Sequence[dict[str, Any]], grid: Sequence[str], images: str | None, share: float
) -> Iterator[dict[str, Any]]:
    """Effective model memorization: the largest number of images of which F_mem still reaches the share in the last step."""
    if images is None:
        return
    for place, some in _groups(runs, [axis for axis in grid if axis != images]):
        kept: dict[float, list[bool]] = {}
        for run in some:
            kept.setdefault(run["values"][images], []).append(run["f_mem_last"] >= share)
        every = [n for n, passed in sorted(kept.items()) if all(passed)]
        largest = every[-1] if every else None
        note = "the largest number that was tried" if largest == max(kept) else ""
        yield {"at": place, "images": largest, "note": note if every else f"below {min(kept)}, the smallest tried"}


# Announcements


def _announcement(runs: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    """Whether a quantity leaves its plateau before tau_mem, and before F_mem leaves its own, over runs and seeds."""
    known = [run for run in runs if run["departures"].get(name, {"note": "not measured"})["note"] != "not measured"]
    judged = [run for run in known if run["tau_mem"]]
    leads: dict[Any, list[float]] = {}
    own: dict[Any, list[float]] = {}
    before = 0
    for run in judged:
        step, f_mem = run["departures"][name]["step"], run["departures"]["f_mem"]["step"]
        if step is None:
            continue
        before += step < run["tau_mem"]
        leads.setdefault(run["values"].get(SEED), []).append(math.log(run["tau_mem"] / step))
        if f_mem is not None:
            own.setdefault(run["values"].get(SEED), []).append(math.log(f_mem / step))
    departures = [run["departures"][name] for run in judged]
    silent = [run for run in known if run["tau_mem"] is None]
    return {
        "quantity": name,
        "runs": len(judged),
        "departs": sum(len(values) for values in leads.values()),
        "before_tau_mem": before,
        "never_pass": len(silent),
        "departs_without": sum(run["departures"][name]["step"] is not None for run in silent),
        "lead": _over_seeds(leads),
        "lead_over_f_mem": _over_seeds(own),
        "without": dict(Counter(found["note"] for found in departures if found["step"] is None)),
    }


def _over_seeds(found: Mapping[Any, Sequence[float]]) -> dict[str, Any] | None:
    """A factor: logarithms averaged within each seed, whose runs share their noise, then over seeds."""
    return geometric_mean([math.exp(sum(values) / len(values)) for values in found.values()])


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _rank(value: Any) -> tuple[int, float, str]:
    return (0, float(value), "") if isinstance(value, (int, float)) else (1, 0.0, str(value))
