"""The verdicts on the schedules of a finished comparison, from its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fm_lightning.comparison.families import EARLIER_CHECKPOINT
from fm_lightning.comparison.rows import HELD_OUT
from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.memorization import THRESHOLD, MemorizationRate, copied, ratio
from fm_lightning.table.columns import read_columns
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.qualities import read_qualities
from fm_lightning.verdicts.margins import Margins
from fm_lightning.verdicts.outcomes import Alternative, confirm
from fm_lightning.verdicts.residual import ROUGHNESS, Distance, Observed
from fm_lightning.verdicts.verdict import HeldOut, Verdict, verdict

NEIGHBOURS = MemorizationRate.name
THRESHOLDS = {"1/4": 1 / 4, "1/3": THRESHOLD, "1/2": 1 / 2}
NEAREST = 0.01  # by the distance to the nearest image alone: nearer than this share of held-out samples


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
    """The verdicts on all schedules that were judged together, corrected for their number, with those by other definitions."""
    about = evaluation.manifest.about
    if not evaluation.manifest.judged or NEIGHBOURS not in evaluation.manifest.measures:
        return []
    threshold, key = about.get("threshold", THRESHOLD), about.get("quality", {}).get("key")
    table = _Table(evaluation, Margins(**about.get("margins", {})))
    first = table.verdicts(_Definition("", partial(_copied, threshold=threshold), key))
    found = [list[Alternative]() for _ in first]
    for definition in _others(table, threshold, key, first[0].distance):
        for alternatives, verdict_ in zip(found, table.verdicts(definition)):
            alternatives.append(Alternative.of(definition.name, verdict_))
    return [replace(verdict_, alternatives=tuple(some)) for verdict_, some in zip(first, found)]


@dataclass(frozen=True)
class _Definition:
    """What counts as a copy, and which distance judges.

    Attributes:
        name: as a phrase.
        copies: columns of the neighbours -> ``[n]`` bool.
        key: names the features of the distance.
        by: the distance that judges, alone; None for the one that suits the seeds.
    """

    name: str
    copies: Callable[[Columns], NDArray[np.bool_]]
    key: str | None
    by: Distance | None = None


def _others(table: _Table, threshold: float, key: str | None, judging: Distance | None) -> Iterator[_Definition]:
    """The definitions that the table's columns allow besides the one that judges."""

    copies = partial(_copied, threshold=threshold)
    for words, other in THRESHOLDS.items():
        if abs(other - threshold) > 1e-6:
            yield _Definition(f"at a threshold of {words}", partial(_copied, threshold=other), key)
    if "d3" in table.columns(next(iter(table.rows))):
        last = max(int(name[1:]) for name in table.columns(next(iter(table.rows))) if name[1:].isdigit())
        yield _Definition(f"by d1 / d{last}", lambda columns: (ratio(columns, last) < threshold).numpy(), key)
    if HELD_OUT in table.evaluation.rows and (real := table.columns(HELD_OUT)):
        nearest = float(np.quantile(real["d1"].numpy(), NEAREST))
        yield _Definition(
            "by the nearest image's distance alone", lambda columns: (columns["d1"] < nearest).numpy(), key
        )
    if judging == "frechet":  # the other way round there are too few seeds
        yield _Definition("by the kernel distance", copies, key, by="kernel")
    for name in table.evaluation.manifest.measures:
        if name != key and f"quality_{name}" in table.evaluation.manifest.about:
            yield _Definition(f"on the features of {name}", copies, name)


def _copied(columns: Columns, threshold: float) -> NDArray[np.bool_]:
    return copied(columns, threshold).numpy()


class _Table:
    """What the table has of the rows that verdicts need, over the seeds that they share."""

    def __init__(self, evaluation: Evaluation, margins: Margins) -> None:
        self.evaluation, self.margins = evaluation, margins
        self.judged = evaluation.manifest.judged
        self.rows = {name for schedule, each in self.judged.items() for name in (schedule, each["base"])}
        self.rows |= {
            n
            for each in self.judged.values()
            for places in each["families"].values()
            for place in places
            for n in place
        }
        self.columns = cache(lambda row: read_columns(evaluation, row, NEIGHBOURS))
        self._qualities = cache(lambda row, key: read_qualities(evaluation, row, key))

    @cached_property
    def seeds(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] | None = None
        for row in self.rows:
            mine = self.columns(row)["seeds"].numpy()
            found = mine if found is None else np.intersect1d(found, mine)
        assert found is not None
        return found

    def verdicts(self, definition: _Definition) -> list[Verdict]:
        """The verdicts on all schedules by that definition."""
        about: dict[str, Any] = self.evaluation.manifest.about.get(f"quality_{definition.key}", {})
        row = cache(lambda name: self._measured(name, definition))
        held_out = self._held_out(definition, about)
        return confirm(
            [
                verdict(
                    name,
                    row(name),
                    row(each["base"]),
                    {f: [[row(n) for n in place] for place in places] for f, places in each["families"].items()},
                    int(about.get("width") or 0),
                    self.margins,
                    held_out,
                    {f: ROUGHNESS if f == EARLIER_CHECKPOINT else 0.0 for f in each.get("discrete", ())},
                    definition.by,
                )
                for name, each in self.judged.items()
            ]
        )

    def _held_out(self, definition: _Definition, about: dict[str, Any]) -> HeldOut:
        """Real data as the table has them: the floor of copies and of margins."""
        seen, references = about.get("seen"), int(about.get("unseen") or 0)
        if HELD_OUT not in self.evaluation.rows:
            return HeldOut(references=references, seen=seen)
        columns = self.columns(HELD_OUT)
        distances = {name: found for name, (_, found) in self._qualities(HELD_OUT, definition.key).items()}
        return HeldOut(definition.copies(columns) if columns else None, distances, references, seen)

    def _measured(self, row: str, definition: _Definition) -> Observed:
        columns = self.columns(row)
        place = np.searchsorted(columns["seeds"].numpy(), self.seeds)
        found: dict[Distance, Estimate] = {}
        for name, (mine, quality) in self._qualities(row, definition.key).items():
            at = np.searchsorted(mine, self.seeds)
            if len(mine) < len(self.seeds) or not np.array_equal(mine[at], self.seeds):
                continue
            assert quality.influence is not None
            found[name] = Estimate.of(quality.value, quality.influence[at], quality.reference)
        return Observed(definition.copies(columns)[place], found.get("frechet"), found.get("kernel"))
