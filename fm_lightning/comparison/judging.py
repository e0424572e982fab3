"""Which rows a verdict needs, and the verdict from a table that has them.

A schedule S is judged against its base B: the same sampling without its gain, or plain sampling. On calibration seeds S, B
and each family of B at a few coarse doses are sampled, and doses chosen; at those the families become rows of the
comparison, on seeds that did not choose them.

    NAME~FAMILY~K      a family's row at the K-th dose chosen for the schedule NAME
    B~FAMILY~K         the family at its K-th coarse dose, on calibration seeds alone
    NAME~own~K         the schedule with its gain weaker or stronger
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fm_lightning.comparison.families import Family, families, own_doses
from fm_lightning.comparison.rows import BASE, HELD_OUT, Row
from fm_lightning.errors import OldError
from fm_lightning.metrics.memorization import copied
from fm_lightning.table.columns import read_columns
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.keys import definition, key
from fm_lightning.table.qualities import read_qualities
from fm_lightning.verdicts.doses import choose_doses
from fm_lightning.verdicts.margins import Margins
from fm_lightning.verdicts.outcomes import Verdict, confirm
from fm_lightning.verdicts.residual import Measured, Quality, share_change
from fm_lightning.verdicts.verdict import verdict

NEIGHBOURS = "neighbours"
Chosen = dict[
    str, dict[str, list[list[float]]]
]  # schedule's key -> family (with its coarse doses) -> doses at each place


@dataclass(frozen=True)
class Judged:
    """A schedule that is judged, the row that it is judged against, and the families of that row."""

    name: str
    row: Row
    base: str
    base_row: Row
    families: tuple[Family, ...]

    def coarse(self, family: Family) -> dict[str, Row]:
        """The family's rows on calibration seeds."""
        return {
            f"{self.base}~{family.name}~{k}": Row("calibration", family.at(self.base_row.schedule, dose), of=self.base)
            for k, dose in enumerate(family.doses)
        }

    def at(self, family: Family, places: Sequence[Sequence[float]]) -> dict[str, Row]:
        """The family's rows at the chosen doses."""
        doses = [dose for place in places for dose in place]
        return {
            f"{self.name}~{family.name}~{k}": Row(
                "family", family.at(self.base_row.schedule, dose), of=self.name, note=f"{family.name}, dose {dose:.4g}"
            )
            for k, dose in enumerate(doses)
        }

    def remember(self, family: Family) -> str:
        """Names the family beside the doses that were tried: other ones choose anew."""
        return f"{family.name} {key([definition(d) for d in family.doses])}"


def judged(rows: Mapping[str, Row], names: Sequence[str], which: Literal["cheap", "all"]) -> list[Judged]:
    """The schedules to judge, with the families to judge them against.

    Raises:
        UserError: a name of no schedule, or of base itself.
    """
    found = []
    for name in names:
        row = rows.get(name)
        if row is None or row.kind != "schedule":
            able = [n for n, r in rows.items() if r.kind == "schedule"]
            raise OldError(
                f"judge names {name!r}, which is {'the base' if name == BASE else 'no schedule'}",
                f"some of {', '.join(able) or 'none given'}",
                f"type judge: [{', '.join(able)}]",
            )
        base = row.plain or BASE
        known = families(rows[base].schedule)
        chosen = tuple(f for f in known if f.direction != "raises" and (which == "all" or f.cheap))
        found.append(Judged(name, row, base, rows[base], chosen))
    return found


def calibration_rows(asked: Sequence[Judged], chosen: Mapping[str, Mapping[str, object]]) -> dict[str, Row]:
    """What has to be sampled on calibration seeds before doses can be chosen; nothing where all are chosen already."""
    out: dict[str, Row] = {}
    for each in asked:
        missing = [f for f in each.families if each.remember(f) not in chosen.get(each.row.key, {})]
        if missing:
            out |= {each.base: each.base_row, each.name: each.row}
        for family in missing:
            out |= each.coarse(family)
    return out


def choose(
    evaluation: Evaluation,
    asked: Sequence[Judged],
    seeds: range,
    threshold: float,
    test_seeds: int,
    known: Mapping[str, Mapping[str, object]],
    margins: Margins,
) -> Chosen:
    """Doses for each schedule and family that has none yet, from the calibration seeds' copies.

    A schedule of which they exclude that it lowers memorization needs no families: there is nothing to explain. Not to have
    lowered it on so few seeds is not enough.
    """
    found: Chosen = {}
    for each in asked:
        missing = [f for f in each.families if each.remember(f) not in known.get(each.row.key, {})]
        if not missing:
            continue
        mine, base = (_hits(evaluation, name, threshold, seeds) for name in (each.name, each.base))
        lowers = share_change(base, mine).high >= margins.resolve(float(base.mean()), math.nan).memorized
        for family in missing:
            places: list[list[float]] = []
            if lowers:
                calibrated = {0.0: base}
                for (name, _), dose in zip(each.coarse(family).items(), family.doses):
                    calibrated[dose] = _hits(evaluation, name, threshold, seeds)
                existing = family.existing(each.base_row.schedule) if family.existing else None
                places = [list(doses) for doses in choose_doses(calibrated, mine, test_seeds, existing)]
            found.setdefault(each.row.key, {})[each.remember(family)] = places
    return found


def family_rows(
    asked: Sequence[Judged], chosen: Mapping[str, Mapping[str, list[list[float]]]], own: bool
) -> dict[str, Row]:
    """The rows of the comparison that verdicts need beside the schedules themselves."""
    out: dict[str, Row] = {}
    for each in asked:
        for family in each.families:
            out |= each.at(family, chosen.get(each.row.key, {}).get(each.remember(family), []))
        if own:
            for k, (factor, schedule) in enumerate(own_doses(each.row.schedule).items()):
                out[f"{each.name}~own~{k}"] = Row("family", schedule, of=each.name, note=f"{factor:g} of its gain")
    return out


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
        raise OldError(
            f"row {row!r} given",
            f"one that was judged ({', '.join(found) or 'none was'})",
            f"type fm-lightning falsify -c {evaluation.folder.parent}/config.yaml --schedule FILE",
        )
    return found[row]


def judge_all(evaluation: Evaluation) -> list[Verdict]:
    """The verdicts on all schedules that were judged together, corrected for their number."""
    about = evaluation.manifest.about
    asked = evaluation.manifest.judged
    if not asked or NEIGHBOURS not in evaluation.manifest.measures:
        return []
    threshold, margins = about.get("threshold", 1 / 3), Margins(**about.get("margins", {}))
    width = int(about.get("quality", {}).get("width") or 0)
    wanted = {name for name, each in asked.items() for name in (name, each["base"])}
    wanted |= {n for each in asked.values() for places in each["families"].values() for place in places for n in place}
    seeds = _common_seeds(evaluation, wanted)
    measured = {name: _measured(evaluation, name, threshold, seeds) for name in wanted}
    real = read_qualities(evaluation, HELD_OUT) if HELD_OUT in evaluation.rows else {}
    held_out = {name: quality for name, (_, quality) in real.items()}
    verdicts = [
        verdict(
            name,
            measured[name],
            measured[each["base"]],
            {family: [[measured[n] for n in place] for place in places] for family, places in each["families"].items()},
            width,
            margins,
            held_out,
        )
        for name, each in asked.items()
    ]
    return confirm(verdicts)


def judged_facts(asked: Sequence[Judged], chosen: Mapping[str, Mapping[str, list[list[float]]]]) -> dict[str, dict]:
    """What the manifest says of who is judged against whom: schedule -> base and, for each family and place, three rows."""
    facts: dict[str, dict] = {}
    for each in asked:
        places: dict[str, list[list[str]]] = {}
        for family in each.families:
            some = chosen.get(each.row.key, {}).get(each.remember(family), [])
            names = list(each.at(family, some))
            places[family.name] = [names[3 * i : 3 * i + 3] for i in range(len(some))]
        facts[each.name] = {"base": each.base, "families": places}
    return facts


def _hits(evaluation: Evaluation, row: str, threshold: float, seeds: range | None) -> NDArray[np.bool_]:
    columns = read_columns(evaluation, row, NEIGHBOURS, seeds)
    return copied(columns, threshold).numpy()


def _common_seeds(evaluation: Evaluation, rows: set[str]) -> NDArray[np.int64]:
    found: NDArray[np.int64] | None = None
    for row in rows:
        mine = read_columns(evaluation, row, NEIGHBOURS)["seeds"].numpy()
        found = mine if found is None else np.intersect1d(found, mine)
    assert found is not None
    return found


def _measured(evaluation: Evaluation, row: str, threshold: float, seeds: NDArray[np.int64]) -> Measured:
    columns = read_columns(evaluation, row, NEIGHBOURS)
    place = np.searchsorted(columns["seeds"].numpy(), seeds)
    qualities = read_qualities(evaluation, row)
    found: dict[str, Quality] = {}
    for name, (mine, quality) in qualities.items():
        at = np.searchsorted(mine, seeds)
        if len(mine) < len(seeds) or not np.array_equal(mine[at], seeds):
            continue
        found[name] = replace(quality, influence=quality.influence[at])
    return Measured(copied(columns, threshold).numpy()[place], found.get("frechet"), found.get("kernel"))
