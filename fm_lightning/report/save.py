"""The files that follow from a comparison's results: CSV, JSON, the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fm_lightning.comparison.results import Results
from fm_lightning.report.page import write_report
from fm_lightning.report.table import print_table, write_csv


def save(run_dir: str | Path, results: Results, arrays: dict[str, np.ndarray]) -> None:
    """Writes results, table and page; prints the table and where the page lies."""
    run_dir = Path(run_dir)
    results.write(run_dir)
    write_csv(results, run_dir / "results.csv")
    print_table(results)
    print("\nDrawing the report ...", flush=True)  # figures take a few seconds
    print(f"Report: {write_report(run_dir, results, arrays)}")
