"""The diagnosis in three sentences: what energy tells about density, about semantics and about copying."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fm_lightning.diagnosis.subject import ENERGIES
from fm_lightning.phrases import finite, number, signed, true_minus, with_span

ENERGY = {"kpe": "energy", "early": "early energy", "late": "late energy"}  # others by their own names
Numbers = Mapping[str, Any]
WEAK = 0.1  # a rank correlation, or twice the distance of an AUROC from 1/2, below which the words say "slightly"


def conclusions(results: Numbers) -> list[str]:
    """The sentences, each with its estimate, from ``results`` as JSON."""
    return [true_minus(line) for line in (_density(results), _semantics(results), _copying(results))]


def _sign(estimate: Mapping[str, Any], null: float = 0.0) -> int:
    """The side of ``null`` on which the whole interval lies; 0 if it holds ``null`` or is unknown."""
    low, high = finite(estimate.get("low")), finite(estimate.get("high"))
    if low is None or high is None:
        return 0
    return 1 if low > null else -1 if high < null else 0


def _with_interval(estimate: Mapping[str, Any], name: str, write: Any = signed) -> str:
    return f"{name} = {with_span(estimate['value'], estimate.get('low'), estimate.get('high'), write)}"


def _density(results: Numbers) -> str:
    entries = results["questions"]["density"]["numbers"].get("associations", [])
    entry = next((e for e in entries if e["energy"] == "kpe" and e["measure"].startswith("knn_")), None)
    if entry is None or finite(entry["plain"]["value"]) is None:
        return "Density: no measure of it could be related to energy."
    plain, partial = entry["plain"], entry["partial"]
    known = finite(partial["value"]) is not None
    sign = _sign(partial if known else plain)
    size = abs(float((partial if known else plain)["value"]))
    numbers = _with_interval(plain, "rank correlation with density")
    numbers += f"; {_with_interval(partial, 'beyond noise, distance and class')}" if known else ""
    if sign == 0:
        return f"Density: energy itself tells nothing measurable about it ({numbers})."
    where = "dense" if sign > 0 else "sparse"
    how = "only slightly more often" if size < WEAK else "more often"
    return f"Density: high-energy samples lie {how} in {where} regions of the data ({numbers})."


def _semantics(results: Numbers) -> str:
    numbers = results["questions"]["semantics"]["numbers"]
    judges = {key: judge for key, judge in numbers.items() if isinstance(judge, dict)}
    for key, judge in judges.items():
        for found in judge["columns"].values():
            effect = found["effect"]
            if finite(effect["value"]) is None:
                continue
            what = f"{key} {found['words']}"
            g = _with_interval(effect, "standardised difference")
            sign = _sign(effect)
            if sign == 0:
                return f"Semantics: {what} does not measurably differ between high and low energy ({g})."
            return f"Semantics: {what} is {'higher' if sign > 0 else 'lower'} in high-energy samples ({g})."
    return "Semantics: not measured, because there was no classifier for these data."


def _copying(results: Numbers) -> str:
    found = results["questions"]["copying"]["numbers"].get("predictors", {})
    areas = {name: found[name]["auroc"] for name in ENERGIES if name in found}
    areas = {name: area for name, area in areas.items() if finite(area["value"]) is not None}
    if not areas:
        return "Copying: there are too few copies, or too few other samples, to relate it to energy."
    best = max(areas, key=lambda name: abs(areas[name]["value"] - 0.5))
    area, sign = areas[best], _sign(areas[best], 0.5)
    numbers = f"{_with_interval(area, 'AUROC', number)}, where 0.5 tells nothing"
    if sign == 0:
        return f"Copying: no energy tells copies from other samples (at best {ENERGY.get(best, best)}: {numbers})."
    how = "slightly " if 2 * abs(area["value"] - 0.5) < WEAK else ""
    level = "high" if sign > 0 else "low"
    return f"Copying: {how}more copies are among samples of {level} {ENERGY.get(best, best)} ({numbers})."
