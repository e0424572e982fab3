"""Calibration: which rows a verdict needs, and the doses of the families, chosen on seeds of their own.

A schedule S is judged against its base B: the same sampling without its gain, or plain sampling. S, B and each family of B
at a few coarse doses are sampled on calibration seeds; doses are chosen there, and at these the families become rows of
the comparison, on seeds that did not choose them.

    NAME~FAMILY~K      a family's row at the K-th dose chosen for the schedule NAME
    B~FAMILY~K         the family at its K-th coarse dose, on calibration seeds alone
    NAME~own~K         the schedule with its gain weaker or stronger
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fm_lightning.comparison.families import MODEL_FAMILIES, Family, families, own_doses
from fm_lightning.comparison.judge import NEIGHBOURS
from fm_lightning.comparison.rows import BASE, Row
from fm_lightning.errors import UserError
from fm_lightning.estimate import share_change
from fm_lightning.metrics.memorization import copied
from fm_lightning.table.columns import read_columns
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.keys import key
from fm_lightning.verdicts.doses import choose_doses
from fm_lightning.verdicts.margins import Margins

# A schedule's key -> a family (see `Candidate.family_key`) -> the doses at each place where its curve reaches the schedule.
Chosen = dict[str, dict[str, list[list[float]]]]
Which = Literal["none", "cheap", "all"] | Sequence[str | Family]


@dataclass(frozen=True)
class Candidate:
    """A schedule that is judged, the row that it is judged against, and the families of that row."""

    name: str
    row: Row
    base: str
    base_row: Row
    families: tuple[Family, ...]

    def coarse(self, family: Family) -> dict[str, Row]:
        """The family's rows on calibration seeds."""
        return {
            f"{self.base}~{family.name}~{k}": _row(family, self.base_row, dose, kind="calibration", of=self.base)
            for k, dose in enumerate(family.doses)
        }

    def at(self, family: Family, places: Sequence[Sequence[float]]) -> dict[str, Row]:
        """The family's rows at the chosen doses."""
        doses = [dose for place in places for dose in place]
        notes = [f"{family.name}, dose {dose:.4g}" for dose in doses]
        return {
            f"{self.name}~{family.name}~{k}": _row(
                family, self.base_row, dose, kind="family", of=self.name, note=notes[k]
            )
            for k, dose in enumerate(doses)
        }

    def family_key(self, family: Family) -> str:
        """Names the family by what its coarse doses do: if that changes, the calibration is repeated."""
        return f"{family.name} {key([row.definition for row in self.coarse(family).values()])}"

    def uncalibrated(self, chosen: Mapping[str, Mapping[str, object]]) -> list[Family]:
        """The families without doses."""
        known = chosen.get(self.row.key, {})
        return [family for family in self.families if self.family_key(family) not in known]

    def doses(self, family: Family, chosen: Chosen) -> list[list[float]]:
        """The doses chosen for the family, three per place; empty where none are needed."""
        return chosen.get(self.row.key, {}).get(self.family_key(family), [])


def _row(family: Family, base: Row, dose: float, **facts: Any) -> Row:
    """The base manipulated by ``dose``; a family that changes more than the schedule returns a row itself."""
    made = family.at(base.schedule, dose)
    if isinstance(made, Row):
        return replace(made, **facts | ({"note": made.note} if made.note else {}))
    return replace(Row("family", made), **facts)


def candidates(
    rows: Mapping[str, Row], names: Sequence[str], which: Which, further: Sequence[Family] = ()
) -> list[Candidate]:
    """The schedules to judge, with the families to judge them against.

    Args:
        rows: of the comparison.
        names: the schedules' names.
        which: "cheap" families, "all", "none" (then nothing is judged); or a list of families and names of families, in which
            "cheap" stands for all cheap ones.
        further: families that this model has besides those of any sampler.

    Raises:
        UserError: a name of no family.
    """
    if which == "none":
        return []
    found = []
    for name in names:
        row = rows[name]
        base = row.plain or BASE
        asked = _named_families(which, [*families(rows[base].schedule), *further])
        lowering = tuple(family for family in asked if family.direction != "raises")
        found.append(Candidate(name, row, base, rows[base], lowering))
    return found


def _named_families(which: Which, known: Sequence[Family]) -> list[Family]:
    """The families that ``which`` names, in its order."""
    if which == "all":
        return list(known)
    found: dict[str, Family] = {}
    for item in [which] if isinstance(which, str) else which:
        if isinstance(item, Family):
            some = [item]
        elif item == "cheap":
            some = [family for family in known if family.cheap]
        else:
            some = [family for family in known if family.name == item]
            if not some and item not in MODEL_FAMILIES:  # those are missing where the model does not allow them
                names = ", ".join(dict.fromkeys(["cheap", *(family.name for family in known), *MODEL_FAMILIES]))
                raise UserError(f"There is no family {item!r}.", f"Choose among {names}.")
        found |= {family.name: family for family in some}
    return list(found.values())


def calibration_rows(some: Sequence[Candidate], chosen: Chosen) -> dict[str, Row]:
    """What has to be sampled on calibration seeds before doses can be chosen; nothing where all are chosen already."""
    out: dict[str, Row] = {}
    for each in some:
        missing = each.uncalibrated(chosen)
        if missing:
            out |= {each.base: each.base_row, each.name: each.row}
        for family in missing:
            out |= each.coarse(family)
    return out


def choose(
    evaluation: Evaluation,
    some: Sequence[Candidate],
    seeds: range,
    threshold: float,
    test_seeds: int,
    chosen: Chosen,
    margins: Margins,
) -> Chosen:
    """``chosen``, with doses for each candidate and family that has none yet, from the copies on calibration seeds.

    A schedule that calibration shows not to lower memorization gets no families: there is nothing to explain. Calibration
    shows it where the interval of the change excludes the smallest fall that matters.
    """
    found = {schedule: dict(doses) for schedule, doses in chosen.items()}
    for each in some:
        missing = each.uncalibrated(chosen)
        if not missing:
            continue
        mine, base = (copies(evaluation, name, threshold, seeds) for name in (each.name, each.base))
        lowers = share_change(base, mine).high >= margins.resolve(float(base.mean()), math.nan).memorized
        for family in missing:
            places: list[list[float]] = []
            if lowers:
                calibrated = {0.0: base}
                for (name, _), dose in zip(each.coarse(family).items(), family.doses):
                    calibrated[dose] = copies(evaluation, name, threshold, seeds)
                existing = family.existing(each.base_row.schedule) if family.existing else None
                places = [list(doses) for doses in choose_doses(calibrated, mine, test_seeds, existing)]
            found.setdefault(each.row.key, {})[each.family_key(family)] = places
    return found


def family_rows(some: Sequence[Candidate], chosen: Chosen, own: bool) -> dict[str, Row]:
    """The rows that verdicts need besides the schedules themselves; with ``own``, also each schedule's own dose curve."""
    out: dict[str, Row] = {}
    for each in some:
        for family in each.families:
            out |= each.at(family, each.doses(family, chosen))
        if own:
            for k, (factor, schedule) in enumerate(own_doses(each.row.schedule).items()):
                out[f"{each.name}~own~{k}"] = Row("family", schedule, of=each.name, note=f"{factor:g} of its gain")
    return out


def candidate_facts(some: Sequence[Candidate], chosen: Chosen) -> dict[str, dict[str, Any]]:
    """What the manifest says of the candidates: schedule -> its base and, for each family and place, three rows."""
    facts: dict[str, dict[str, Any]] = {}
    for each in some:
        places: dict[str, list[list[str]]] = {}
        for family in each.families:
            doses = each.doses(family, chosen)
            names = list(each.at(family, doses))
            places[family.name] = [names[3 * i : 3 * i + 3] for i in range(len(doses))]
        discrete = [family.name for family in each.families if family.existing]
        facts[each.name] = {"base": each.base, "families": places, "discrete": discrete}
    return facts


def copies(evaluation: Evaluation, row: str, threshold: float, seeds: range) -> NDArray[np.bool_]:
    """``[n]`` which samples of a row are copies."""
    return copied(read_columns(evaluation, row, NEIGHBOURS, seeds), threshold).numpy()
