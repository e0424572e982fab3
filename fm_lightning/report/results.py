"""The results of a comparison as the report reads them: the dictionary of ``results.json`` (schema 2, see ``build``).

``arrays`` maps ``"kpe/ROW"``, ``"power/ROW"``, ... to numpy arrays. Tables, figures and page take these two and nothing else.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

Results = Mapping[str, Any]
Row = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]


def replace_file(path: Path, content: bytes) -> Path:
    """Write ``content`` so that a reader sees the old file or the new one, never half of one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


# --- reading a results dictionary ---


def finite(value: object) -> float | None:
    """The number, or None for what is missing: null, NaN, infinities, anything that is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond every float
        return None


def metric(row: Row, name: str) -> float | None:
    return finite(row["metrics"].get(name))


def interval(row: Row, against: str, name: str, scale: float = 1.0) -> tuple[float, float, float] | None:
    """``(change, lo, hi)`` of a metric against ``"vs_base"`` or ``"vs_parent"``, times ``scale``.

    None where there is no change; NaN for an end that is missing, which neither prints nor plots.
    """
    found = (row.get(against) or {}).get(name)
    if not isinstance(found, (list, tuple)) or len(found) != 3 or finite(found[0]) is None:
        return None
    change, lo, hi = (math.nan if (part := finite(raw)) is None else scale * part for raw in found)
    return change, lo, hi


def quality_key(results: Results) -> str | None:
    return (results.get("quality") or {}).get("key")


def of_kind(results: Results, *kinds: str) -> list[Row]:
    return [row for row in results["rows"] if row["kind"] in kinds]


def base_row(results: Results) -> Row | None:
    return next(iter(of_kind(results, "base")), None)


def groups(results: Results) -> list[list[Row]]:
    """Rows of the main table in display order: each schedule with its control, all fields in one group, all floors in one.

    Families have a table of their own.
    """
    found: list[list[Row]] = []
    home: dict[str, list[Row]] = {}
    for row in results["rows"]:
        kind = row["kind"]
        if kind == "family":
            continue
        key = row.get("of") if kind == "control" else kind if kind in ("field", "floor") else row["name"]
        if key not in home:
            home[key] = []
            found.append(home[key])
        home[key].append(row)
    return found


def title(row: Row) -> str:
    """The word by which people know a row: a schedule's name, the label of anything else."""
    label = str(row.get("label") or row["name"])
    if row["kind"] in ("base", "schedule"):
        return row["name"]
    return label


def subtitle(row: Row) -> str:
    """What ``title`` leaves unsaid, or an empty string."""
    label = str(row.get("label") or "")
    if row["kind"] == "floor" and row.get("samples"):
        return f"N = {row['samples']}"  # of what is there, not of the comparison's seeds
    return label if row["kind"] in ("base", "schedule") and label != row["name"] else ""
