"""From an evaluation to ``results.json`` and the arrays behind the figures: nothing is sampled or measured again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from torch import Tensor

from fm_lightning.comparison.results import RowResult
from fm_lightning.comparison.rows import BASE, HELD_OUT
from fm_lightning.estimate import Interval
from fm_lightning.metrics.energy import mean_power
from fm_lightning.metrics.measure import Measure
from fm_lightning.table.columns import ENERGY, on_common_seeds, read_columns
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.qualities import keep_qualities, read_qualities

Columns = Mapping[str, Tensor]


class Collector:
    """Reads an evaluation through measures; keeps base's columns, which every row is compared with."""

    def __init__(self, evaluation: Evaluation, measures: Sequence[Measure]) -> None:
        self.evaluation, self.measures = evaluation, list(measures)
        self._base = cache(lambda measure: read_columns(evaluation, BASE, measure))
        judged = evaluation.manifest.judged
        self._judged = {*judged, *(each["base"] for each in judged.values()), HELD_OUT} & set(evaluation.shown)
        self._judged |= {name for name, about in evaluation.shown.items() if about["kind"] == "family"}

    def rows(self, names: Iterable[str]) -> list[RowResult]:
        """What the results say of these rows."""
        rows = [self._row(name) for name in names]
        key = self.evaluation.manifest.about.get("quality", {}).get("key")
        base = next((row.metrics.get(key) for row in rows if row.name == BASE), None)
        if not base:
            return rows
        shares = (
            {key: Interval(*(part / base for part in row.vs_base[key]))} if key in row.vs_base else {} for row in rows
        )
        return [replace(row, relative=relative) for row, relative in zip(rows, shares)]

    def _columns(self, name: str, measure: str) -> Columns:
        return self._base(measure) if name == BASE else read_columns(self.evaluation, name, measure)

    def _row(self, name: str) -> RowResult:
        about = self.evaluation.rows[name]
        floor = about["kind"] == "floor"
        numbers: dict[str, float] = {}
        changes: dict[str, dict[str, Interval]] = {"vs_base": {}, "vs_plain": {}, "vs_parent": {}}
        lines = self.evaluation.lines(name, measured=False)
        for measure in self.measures:
            if not floor or measure.floors:
                numbers |= self._numbers(name, measure, changes)
        if name in self._judged:
            numbers |= self._qualities(name)
        squares = lines["rms_to_base"].dropna() ** 2 if len(lines) else []
        if len(squares) and name != BASE:
            numbers["rms_to_base"] = math.sqrt(float(np.mean(squares)))
        return RowResult(
            name=name,
            **{key: about[key] for key in ("kind", "of", "control", "label", "steps", "description", "plain")},
            nfe=0.0 if floor else float(self.evaluation.nfe(name)),
            samples=len(lines),
            metrics={key: float(value) if math.isfinite(value) else None for key, value in numbers.items()},
            vs_base=changes["vs_base"],
            vs_plain=changes["vs_plain"],
            vs_parent=changes["vs_parent"],
        )

    def _numbers(self, name: str, measure: Measure, changes: Mapping[str, dict[str, Interval]]) -> dict[str, float]:
        """What a measure says of a row; adds its changes from other rows to ``changes``.

        A row's features may be gigabytes: no more than base's, the row's and one other's are in memory at a time.
        """
        about = self.evaluation.rows[name]
        columns = self._columns(name, measure.name)
        if not columns:
            return {}
        alone = about["kind"] in ("floor", "family")
        against = {
            "vs_base": None if name == BASE or alone else BASE,
            "vs_plain": about["plain"],
            "vs_parent": about["of"],
        }
        base: Columns | None = None
        if against["vs_base"]:
            columns, base = on_common_seeds(columns, self._base(measure.name))
        numbers = measure.summarize(columns, base)
        if measure.key is None or about["kind"] == "family":
            return numbers
        for kind, other in against.items():
            if other is None or other == name:
                continue
            mine, theirs = on_common_seeds(columns, self._columns(other, measure.name))
            # A parent is compared with its control: the schedule minus the control.
            pair = (theirs, mine) if kind == "vs_parent" else (mine, theirs)
            changes[kind] |= {key: Interval(*map(float, change)) for key, change in measure.changes(*pair).items()}
        return numbers

    def _qualities(self, name: str) -> dict[str, float]:
        """``quality_frechet`` and ``quality_kernel``: the distances that judge, unbiased at the samples used."""
        for measure in self.measures:
            if measure.key is not None:
                compute = measure.floor_qualities if name == HELD_OUT else measure.qualities
                keep_qualities(self.evaluation, name, measure.key, compute)
        return {f"quality_{kind}": found.value for kind, (_, found) in read_qualities(self.evaluation, name).items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """``kpe/ROW`` ``[N]``, ``power/ROW`` ``[S]``, ``times/ROW`` ``[S + 1]`` and ``gain/ROW`` ``[S]``.

        ``power_change/ROW`` ``[S]`` is the change from plain sampling's power at the middle of each step, as a share of it.
        """
        out: dict[str, np.ndarray] = {}
        for name, about in self.evaluation.shown.items():
            if about["kind"] in ("floor", "family"):
                continue
            columns = read_columns(self.evaluation, name, ENERGY)
            if columns:
                out[f"kpe/{name}"] = columns["kpe"].numpy()
                out[f"power/{name}"] = mean_power(columns["energy"], columns["times"]).numpy()
                out[f"times/{name}"] = columns["times"].numpy()
                out[f"gain/{name}"] = np.array(about["gain"])
        edges = {key.removeprefix("times/"): v for key, v in out.items() if key.startswith("times/")}
        middle = {name: (v[1:] + v[:-1]) / 2 for name, v in edges.items()}
        for name, at in middle.items() if BASE in middle else ():
            with np.errstate(divide="ignore", invalid="ignore"):
                there = np.interp(at, middle[BASE], out[f"power/{BASE}"])
                out[f"power_change/{name}"] = out[f"power/{name}"] / there - 1
        return out
