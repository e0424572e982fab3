"""The verdicts on the schedules of a finished comparison, from its table."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fm_lightning.comparison.rows import HELD_OUT
from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate
from fm_lightning.metrics.memorization import THRESHOLD, copied
from fm_lightning.table.columns import read_columns
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.qualities import read_qualities
from fm_lightning.verdicts.margins import Margins
from fm_lightning.verdicts.outcomes import confirm
from fm_lightning.verdicts.residual import Observed
from fm_lightning.verdicts.verdict import HeldOut, Verdict, verdict

NEIGHBOURS = "neighbours"


def judge(evaluation: Evaluation, row: str) -> Verdict:
    """The verdict on a schedule of a finished comparison: does it do more than what is trivial at the same dose?

    Args:
        evaluation: of a run whose report has been written since its latest rows were sampled.
        row: the schedule's name.

    Raises:
        UserError: the row was not judged there, or copies were not measured.
    """
    found = {v.schedule: v for v in judge_all(evaluation)}
    if row not in found:
        raise UserError(
            f"The schedule {row!r} was not judged.",
            f"Use one of {', '.join(found)}." if found else "Compare it with families, for example with falsify().",
        )
    return found[row]


def judge_all(evaluation: Evaluation) -> list[Verdict]:
    """The verdicts on all schedules that were judged together, corrected for their number."""
    about = evaluation.manifest.about
    asked = evaluation.manifest.judged
    if not asked or NEIGHBOURS not in evaluation.manifest.measures:
        return []
    threshold, margins = about.get("threshold", THRESHOLD), Margins(**about.get("margins", {}))
    width = int(about.get("quality", {}).get("width") or 0)
    wanted = {name for name, each in asked.items() for name in (name, each["base"])}
    wanted |= {n for each in asked.values() for places in each["families"].values() for place in places for n in place}
    seeds = _common_seeds(evaluation, wanted)
    measured = {name: _measured(evaluation, name, threshold, seeds) for name in wanted}
    held_out = _held_out(evaluation, threshold)
    verdicts = [
        verdict(
            name,
            measured[name],
            measured[each["base"]],
            {family: [[measured[n] for n in place] for place in places] for family, places in each["families"].items()},
            width,
            margins,
            held_out,
            each.get("discrete", ()),
        )
        for name, each in asked.items()
    ]
    return confirm(verdicts)


def _held_out(evaluation: Evaluation, threshold: float) -> HeldOut:
    """Held-out real data as the table has them: the floor of copies and of margins."""
    if HELD_OUT not in evaluation.rows:
        return HeldOut()
    columns = read_columns(evaluation, HELD_OUT, NEIGHBOURS)
    return HeldOut(
        copied(columns, threshold).numpy() if columns else None,
        {name: distance for name, (_, distance) in read_qualities(evaluation, HELD_OUT).items()},
        int(evaluation.manifest.about.get("quality", {}).get("reference") or 0),
    )


def _common_seeds(evaluation: Evaluation, rows: set[str]) -> NDArray[np.int64]:
    found: NDArray[np.int64] | None = None
    for row in rows:
        mine = read_columns(evaluation, row, NEIGHBOURS)["seeds"].numpy()
        found = mine if found is None else np.intersect1d(found, mine)
    assert found is not None
    return found


def _measured(evaluation: Evaluation, row: str, threshold: float, seeds: NDArray[np.int64]) -> Observed:
    columns = read_columns(evaluation, row, NEIGHBOURS)
    place = np.searchsorted(columns["seeds"].numpy(), seeds)
    qualities = read_qualities(evaluation, row)
    found: dict[str, Estimate] = {}
    for name, (mine, quality) in qualities.items():
        at = np.searchsorted(mine, seeds)
        if len(mine) < len(seeds) or not np.array_equal(mine[at], seeds):
            continue
        assert quality.influence is not None
        found[name] = replace(quality, influence=quality.influence[at])
    return Observed(copied(columns, threshold).numpy()[place], found.get("frechet"), found.get("kernel"))
