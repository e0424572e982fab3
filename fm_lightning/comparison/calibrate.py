"""Calibration: which rows a verdict needs, and the doses of the families, chosen on seeds of their own.

A schedule S is judged against its base B: the same sampling without its gain, or plain sampling. S and B are sampled on
calibration seeds, and each family of B at the doses that bisection asks for (``verdicts.doses``), round by round: four or
five doses for a family that costs a whole sampling each, and the coarse ones at once for a family that shares base's steps.
Doses are chosen there, and at these the families become rows of the comparison, on seeds that did not choose them.

    NAME~FAMILY~K      a family's row at the K-th dose chosen for the schedule NAME
    B~FAMILY~K         the family at the K-th dose of its ladder, on calibration seeds alone
    NAME~own~K         the schedule with its gain weaker or stronger

What a round samples depends on one schedule and one family alone, so the doses are the same after a kill, on any number of
processes, and with any other schedules; rows with equal keys are sampled once.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_lightning.comparison.families import LESS_GUIDANCE, Family, Which, families, own_doses
from fm_lightning.comparison.judge import NEIGHBOURS
from fm_lightning.comparison.model_families import NO_FURTHER, ModelFamilies
from fm_lightning.comparison.rows import BASE, Row
from fm_lightning.errors import UserError
from fm_lightning.estimate import share_change
from fm_lightning.metrics.memorization import copied
from fm_lightning.table.columns import read_columns
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.keys import key
from fm_lightning.verdicts.doses import choose_doses, next_doses
from fm_lightning.verdicts.margins import Margins

# A schedule's key -> a family (see `Candidate.family_key`) -> the doses at each place where its curve reaches the schedule.
Chosen = dict[str, dict[str, list[list[float]]]]


@dataclass(frozen=True)
class Candidate:
    """A schedule that is judged, the row that it is judged against, and the families of that row."""

    name: str
    row: Row
    base: str
    base_row: Row
    families: tuple[Family, ...]
    _keys: dict[str, str] = field(default_factory=dict, compare=False)

    def calibration(self, family: Family, dose: float) -> tuple[str, Row]:
        """The family's row at a dose of its ladder, on calibration seeds, with its name."""
        rung = family.ladder(self.base_row.schedule).index(dose)
        row = _row(family, self.base_row, dose, kind="calibration", of=self.base)
        return f"{self.base}~{family.name}~{rung}", row

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
        """Names the family by what its doses do: if that changes, the calibration is repeated."""
        if family.name not in self._keys:
            doses = family.ladder(self.base_row.schedule) if family.existing else family.doses
            content = key([_row(family, self.base_row, dose).definition for dose in doses])
            self._keys[family.name] = f"{family.name} {content}"
        return self._keys[family.name]

    def uncalibrated(self, chosen: Mapping[str, Mapping[str, object]]) -> list[Family]:
        """The families without doses."""
        known = chosen.get(self.row.key, {})
        return [family for family in self.families if self.family_key(family) not in known]

    def family(self, name: str) -> Family:
        """The family of that name."""
        return next(family for family in self.families if family.name == name)

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
    rows: Mapping[str, Row], names: Sequence[str], which: Which, further: ModelFamilies = NO_FURTHER
) -> list[Candidate]:
    """The schedules to judge, with the families to judge them against.

    Args:
        rows: of the comparison.
        names: the schedules' names.
        which: "cheap" families, "all", "none" (then nothing is judged); or a list of families, names of families, "cheap" and
            "all".
        further: families of this model in addition to those of any sampler.

    Raises:
        UserError: a name of no family; a family named twice.
    """
    if which in ("none", [], ()):
        return []
    found = []
    for name in names:
        row = rows[name]
        base = row.plain or BASE
        known = [*families(rows[base].schedule, further.guidable), *further.families]
        asked = _named_families(which, known, further.missing)
        lowering = tuple(family for family in asked if family.direction != "raises")
        found.append(Candidate(name, row, base, rows[base], lowering))
    return found


def _named_families(which: Which, known: Sequence[Family], missing: Mapping[str, str]) -> list[Family]:
    """The families that ``which`` names, in its order; those of ``missing`` are left out."""
    listed = isinstance(which, Iterable)
    items = [which] if isinstance(which, str) else list(which) if listed else []
    if not listed or not all(isinstance(item, str | Family) for item in items):
        raise UserError(
            f"families={which!r} are not families.", 'Pass "cheap", "all", "none", or a list of names and families.'
        )
    names = [item.name if isinstance(item, Family) else item for item in items]
    found: dict[str, Family] = {}
    for item, name in zip(items, names):
        some = (
            [item]
            if isinstance(item, Family)
            else [f for f in known if name in (f.name, "all") or (name == "cheap" and f.cheap)]
        )
        if not some and name not in missing:
            raise _unknown(name, [family.name for family in known], missing)
        if isinstance(item, str) and [family.direction for family in some] == ["raises"]:
            raise UserError(f"The family {name!r} only raises copies, so it explains no fall.", "Leave it out.")
        for family in some:
            if names.count(name) > 1 or found.get(family.name, family) != family:
                raise UserError(f"The family {family.name!r} is named twice.", "Leave one out, or rename your own.")
            found[family.name] = family
    return list(found.values())


def _unknown(name: str, known: Sequence[str], missing: Mapping[str, str]) -> UserError:
    if name == LESS_GUIDANCE.name:
        return UserError(f"The family {name!r} needs guidance to weaken and a null label.", "Leave it out.")
    names = list(dict.fromkeys(["cheap", *known, *missing]))
    near = difflib.get_close_matches(name, names, 1) or [n for n in names if name in n][:1]
    choice = f"Use {near[0]!r}, or" if near else "Choose"
    return UserError(
        f"There is no family {name!r}.", f"{choice} one of {', '.join(n for n in names if n not in near)}."
    )


Wanted = dict[str, tuple[int, str, float]]  # a row's name -> its candidate, and family and dose if it is a family's


class Calibration:
    """Chooses doses round by round.

    Args:
        some: the schedules to judge.
        seeds: of the calibration.
        threshold: of copies.
        test_seeds: number of seeds of the comparison.
        margins: the smallest effects that matter.
    """

    def __init__(
        self, some: Sequence[Candidate], seeds: range, threshold: float, test_seeds: int, margins: Margins
    ) -> None:
        self._some, self._seeds, self._threshold = some, seeds, threshold
        self._test_seeds, self._margins = test_seeds, margins
        self._known: dict[str, NDArray[np.bool_]] = {}  # a row's key -> which seeds gave copies

    def advance(self, evaluation: Evaluation) -> tuple[Chosen, Wanted]:
        """The doses chosen so far, those of earlier commands among them, and the rows to sample before more can be chosen."""
        chosen = {schedule: dict(doses) for schedule, doses in evaluation.manifest.chosen.items()}
        wanted: Wanted = {}
        for i, each in enumerate(self._some):
            families = each.uncalibrated(chosen)
            mine, base = (self._copies(evaluation, row) for row in (each.row, each.base_row))
            if families and (mine is None or base is None):
                wanted |= {each.name: (i, "", 0.0), each.base: (i, "", 0.0)}
            for family in families:
                places: list[list[float]] | None = None
                lacking = list(family.together)  # they share the steps of base
                if mine is not None and base is not None:
                    places, lacking = self._search(evaluation, each, family, mine, base)
                wanted |= {each.calibration(family, dose)[0]: (i, family.name, dose) for dose in lacking}
                if places is not None:
                    chosen.setdefault(each.row.key, {})[each.family_key(family)] = places
        return chosen, wanted

    def rows(self, wanted: Wanted) -> dict[str, Row]:
        """The rows that ``advance`` names."""
        found = {}
        for name, (i, family, dose) in wanted.items():
            each = self._some[i]
            if family:
                found[name] = each.calibration(each.family(family), dose)[1]
            else:
                found[name] = each.row if name == each.name else each.base_row
        return found

    def _search(
        self, evaluation: Evaluation, each: Candidate, family: Family, mine: NDArray[np.bool_], base: NDArray[np.bool_]
    ) -> tuple[list[list[float]] | None, list[float]]:
        """The family's doses at each place where its curve reaches the schedule; or None, and the doses to sample first.

        A schedule that calibration shows not to lower memorization gets no doses: there is nothing to explain. Calibration
        shows it where the interval of the change excludes the smallest fall that matters.
        """
        if share_change(base, mine).high < self._margins.resolve(float(base.mean()), math.nan).memorized:
            return [], []
        ladder = family.ladder(each.base_row.schedule)
        sampled: dict[float, NDArray[np.bool_]] = {0.0: base}
        doses = list(family.together) or next_doses(sampled, mine, self._test_seeds, ladder)
        while doses:
            found = {dose: self._copies(evaluation, each.calibration(family, dose)[1]) for dose in doses}
            if lacking := [dose for dose, hits in found.items() if hits is None]:
                return None, lacking
            sampled |= {dose: hits for dose, hits in found.items() if hits is not None}
            doses = next_doses(sampled, mine, self._test_seeds, ladder)
        return [list(three) for three in choose_doses(sampled, mine, self._test_seeds, ladder)], []

    def _copies(self, evaluation: Evaluation, row: Row) -> NDArray[np.bool_] | None:
        """``[n]`` which calibration seeds gave copies; None unless all were sampled."""
        if row.key not in self._known:
            # By the key: names may have meant other rows in an earlier command.
            manifest = replace(evaluation.manifest, rows={row.key: {"key": row.key}})
            view = Evaluation(evaluation.folder, manifest, evaluation.parts)
            columns = read_columns(view, row.key, NEIGHBOURS, self._seeds)
            if not columns or len(columns["seeds"]) < len(self._seeds):
                return None
            self._known[row.key] = copied(columns, self._threshold).numpy()
        return self._known[row.key]


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
        cautions = {family.name: family.caution for family in each.families if family.caution}
        facts[each.name] = {"base": each.base, "families": places, "discrete": discrete, "cautions": cautions}
    return facts
