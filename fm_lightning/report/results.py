"""Reading ``comparison.results.Results`` for tables, figures and pages.

``arrays`` maps ``"kpe/ROW"``, ``"power/ROW"``, ... to numpy arrays. Tables, figures and pages take these two and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fm_lightning.comparison.results import Results
from fm_lightning.comparison.results import RowResult as Row
from fm_lightning.estimate import Interval
from fm_lightning.phrases import finite, thousands

__all__ = ["Arrays", "Numbers", "Results", "Row"]
Arrays = Mapping[str, np.ndarray]
Numbers = Mapping[str, Any]  # what a diagnosis found


def metric(row: Row, name: str) -> float | None:
    """A metric of the row, or None."""
    return finite(row.metrics.get(name))


def interval(row: Row, against: str, name: str, scale: float = 1.0) -> Interval | None:
    """The change of a metric and its interval, times ``scale``; None where there is none.

    Args:
        against: the row's ``"vs_base"``, ``"vs_parent"`` or ``"relative"``.
    """
    found: Interval | None = getattr(row, against).get(name)
    if found is None or finite(found.value) is None:
        return None
    return Interval(*(scale * part for part in found))


def quality_key(results: Results) -> str | None:
    """The metric of the distance to real data."""
    return results.quality.key if results.quality else None


def quality_label(results: Results) -> str:
    """The distance's name in words."""
    return "" if results.quality is None else results.quality.label or results.quality.key


def of_kind(results: Results, *kinds: str) -> list[Row]:
    """The rows of these kinds."""
    return [row for row in results.rows if row.kind in kinds]


def base_row(results: Results) -> Row | None:
    """The row of plain sampling."""
    return next(iter(of_kind(results, "base")), None)


def groups(results: Results) -> list[list[Row]]:
    """Rows of the main table in display order: each schedule with its control, all fields in one group, all floors in one.

    Families have a table of their own.
    """
    found: dict[tuple[bool, str | None], list[Row]] = {}
    for row in results.rows:
        if row.kind == "family":
            continue
        together = row.kind in ("field", "floor")
        key = row.kind if together else row.of if row.kind == "control" else row.name
        found.setdefault((together, key), []).append(row)
    return list(found.values())


def title(row: Row) -> str:
    """The word by which people know a row: a schedule's name, the label of anything else."""
    return row.name if row.kind in ("base", "schedule") else row.label or row.name


def subtitle(row: Row) -> str:
    """What ``title`` leaves unsaid, or an empty string."""
    if row.kind == "floor" and row.samples:
        return f"N = {thousands(row.samples)}"  # of the real samples, not of the comparison's seeds
    return row.label if row.kind in ("base", "schedule") and row.label != row.name else ""
