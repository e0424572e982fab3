"""The two files that a comparison leaves behind, read and checked: ``results.json`` and ``arrays.npz``.

``results`` is the dictionary of results.json as it stands (schema 1); ``arrays`` maps ``"kpe/NAME"``,
``"power/NAME"``, ... to numpy arrays. Every other module of the report takes these two and nothing else.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fm_lightning.errors import UserError

Results = Mapping[str, Any]
Row = Mapping[str, Any]
Arrays = Mapping[str, np.ndarray]

SCHEMA = 2
KINDS = ("base", "schedule", "control", "family", "field", "floor")
CONTROLS = {  # the short names of flow.matched_controls, and the words for people
    "true_clock": "same steps, true clock",
    "early_stop": "early stop",
    "constant_gain": "constant gain",
    "fewer_steps": "fewer steps",
    "noise": "added noise",
}
_AGAIN = "type: fm-lightning test -c {config}"


def load(run_dir: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read ``results.json`` and ``arrays.npz`` of a run.

    Raises:
        UserError: the directory, one of the files or its content is not what a comparison writes.
    """
    run = Path(run_dir)
    if run.is_file():
        raise UserError(f"'{run}' is a file, expected a run directory; type: fm-lightning report {run.parent}")
    if not run.is_dir():
        raise UserError(
            f"there is no directory '{run}', expected the run directory of a comparison; "
            "type: fm-lightning report RUN_DIR"
        )
    again = _AGAIN.format(config=run / "config.yaml" if (run / "config.yaml").is_file() else "CONFIG.yaml")
    return _load_json(run / "results.json", again), _load_arrays(run / "arrays.npz", again)


def _load_json(path: Path, again: str) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no '{path}', expected the results of a finished comparison; {again}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise UserError(f"'{path}' is truncated or no JSON, expected a comparison's results; {again}") from None
    if not isinstance(found, dict) or "schema" not in found or not isinstance(found.get("rows"), list):
        raise UserError(f"'{path}' is JSON from somewhere else, expected a comparison's 'schema' and 'rows'; {again}")
    if found["schema"] != SCHEMA:
        raise UserError(f"'{path}' has schema {found['schema']!r}, expected {SCHEMA}; {again}")
    for number, row in enumerate(found["rows"]):
        wrong = _wrong_in(row)
        if wrong:
            raise UserError(f"'{path}': row {number} {wrong}; {again}")
    if not found["rows"]:
        raise UserError(f"'{path}' has no rows, expected at least one schedule; {again}")
    return found


def _wrong_in(row: object) -> str | None:
    if not isinstance(row, dict) or not isinstance(row.get("name"), str):
        return "has no name, expected {'name': ..., 'kind': ..., 'metrics': {...}}"
    if row.get("kind") not in KINDS:
        return f"('{row['name']}') is of kind {row.get('kind')!r}, expected one of {', '.join(KINDS)}"
    if not isinstance(row.get("metrics"), dict):
        return f"('{row['name']}') has no metrics, expected {{'f_mem': ..., ...}}"
    return None


def _load_arrays(path: Path, again: str) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"there is no '{path}', expected the arrays behind the figures; {again}")
    try:
        with np.load(path, allow_pickle=False) as found:
            return {key: found[key] for key in found.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile):
        raise UserError(f"'{path}' is truncated or no .npz, expected a comparison's arrays; {again}") from None


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
    """Rows in display order: each schedule with its controls, all fields in one group, all floors in one."""
    found: list[list[Row]] = []
    home: dict[str, list[Row]] = {}
    for row in results["rows"]:
        kind = row["kind"]
        key = row.get("of") if kind == "control" else kind if kind in ("field", "floor") else row["name"]
        if key not in home:
            home[key] = []
            found.append(home[key])
        home[key].append(row)
    return found


def control_type(row: Row) -> str | None:
    """Which of ``CONTROLS`` a control is: its ``control`` entry, or the last such word in its name."""
    said = row.get("control")
    if said in CONTROLS:
        return said
    places = {key: row["name"].rfind(key) for key in CONTROLS}
    last = max(places, key=lambda key: places[key])
    return last if places[last] >= 0 else None


def title(row: Row) -> str:
    """The word by which people know a row: a schedule's name, the label of anything else."""
    label = str(row.get("label") or row["name"])
    if row["kind"] in ("base", "schedule"):
        return row["name"]
    if row["kind"] == "control":
        return label.split(" (control of ")[0]  # it stands under its schedule anyway
    return label


def subtitle(row: Row) -> str:
    """What ``title`` leaves unsaid, or an empty string."""
    label = str(row.get("label") or "")
    return label if row["kind"] in ("base", "schedule") and label != row["name"] else ""
