"""The files that follow from a comparison's results: CSV, JSON, the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fm_lightning.report.page import write_report
from fm_lightning.report.results import replace_file
from fm_lightning.report.table import print_table, write_csv


def save(run_dir: str | Path, results: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes results, table and page; prints the table and where the page lies."""
    run_dir = Path(run_dir)
    replace_file(run_dir / "results.json", json.dumps(results, indent=1, ensure_ascii=False).encode())
    write_csv(results, run_dir / "results.csv")
    print_table(results)
    print("\nDrawing the report ...", flush=True)  # figures take a few seconds
    print(f"Report: {write_report(run_dir, results, arrays)}")
