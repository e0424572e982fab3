"""``fm-lightning ls [ROOT]``: one line per run. Reads the runs' JSON files only, so that it answers at once."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fm_lightning.cli.arguments import scan
from fm_lightning.errors import UserError

_HEADER = ("run", "state", "step", "F_mem", "distance", "verdicts")


def main(args: Sequence[str]) -> None:
    """Prints the runs in a directory.

    Raises:
        UserError: options, several directories, or a directory that does not exist.
    """
    words = list(scan(args))
    if len(words) > 1 or any(word.option for word in words):
        raise UserError(f"ls takes one directory, not {' '.join(args)!r}.", "Use fm-lightning ls runs")
    root = Path(words[0].value or "" if words else "runs")
    if not root.is_dir():
        raise UserError(
            f"{root} does not exist.", "Use fm-lightning ls ROOT, or start a run with fm-lightning run -c digits"
        )
    runs = [root] if (root / "run.json").exists() else sorted(path.parent for path in root.glob("*/run.json"))
    if not runs:
        print(f"No runs in {root}. Start one with fm-lightning run -c digits")
        return
    lines = [_HEADER, *(_line(run) for run in runs)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADER))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())


def _line(run: Path) -> tuple[str, ...]:
    record, results = _read(run / "run.json"), _read(run / "results.json")
    if record is None:
        return (run.name, "run.json is damaged", "", "", "", "")
    step = (results or {}).get("step") or record.get("step")
    base = next((row for row in _list(results, "rows") if row.get("kind") == "base"), {})
    metrics: dict[str, Any] = base.get("metrics") or {}
    distance = str(((results or {}).get("quality") or {}).get("key"))
    return (
        run.name,
        _state(run, record, results),
        f"{step:,}" if isinstance(step, int) else "",
        f"{metrics['f_mem']:.1%}" if isinstance(metrics.get("f_mem"), float) else "",
        f"{distance} {metrics[distance]:.4g}" if isinstance(metrics.get(distance), float) else "",
        "; ".join(f"{v.get('schedule')}: {v.get('outcome')}" for v in _list(results, "verdicts")),
    )


def _state(run: Path, record: dict[str, Any], results: dict[str, Any] | None) -> str:
    if results is not None:
        return "compared"
    if (run / "results.json").exists():
        return "results.json is damaged"
    if (run / "evaluation").is_dir():
        return "comparison unfinished"
    if "trained" in record:
        return "trained"
    return "training unfinished" if (run / "checkpoints").is_dir() else "started"


def _read(file: Path) -> dict[str, Any] | None:
    """The content of a file of ``files.write_json``, whose module loads NumPy; None if it is missing or damaged."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict):
        return None
    total = found.pop("crc32", None)
    return found if total == zlib.crc32(json.dumps(found, sort_keys=True).encode()) else None


def _list(results: dict[str, Any] | None, key: str) -> list[dict[str, Any]]:
    found = (results or {}).get(key)
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
