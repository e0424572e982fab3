"""The results of a comparison as one dictionary, and the files that follow from it: CSV, JSON, the page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fm_lightning.comparison.evaluation import Evaluation
from fm_lightning.comparison.verdicts import verdict
from fm_lightning.report.page import write_report
from fm_lightning.report.results import SCHEMA, replace_file
from fm_lightning.report.table import print_table, write_csv


def build(evaluation: Evaluation, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``results.json`` out of an evaluation and what ``Collector.rows`` found in it."""
    about = evaluation.manifest.about
    quality = about.get("quality")
    by_name = {row["name"]: row for row in rows}
    samples = max((row["samples"] for row in rows), default=0)
    verdicts = [
        verdict(
            row,
            [r for r in rows if r["of"] == row["name"] and r["vs_parent"]],
            by_name[row["plain"]],
            quality["key"] if quality else "",
        )
        for row in rows
        if row["plain"] and row["vs_plain"]
    ]
    return {
        "schema": SCHEMA,
        **about,
        "identity": evaluation.manifest.identity,
        "samples": samples,
        "quality": quality and {**quality, "samples": samples},
        "rows": list(rows),
        "verdicts": verdicts,
    }


def save(run_dir: str | Path, results: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes results, table and page; prints the table and where the page lies."""
    run_dir = Path(run_dir)
    replace_file(run_dir / "results.json", json.dumps(results, indent=1, ensure_ascii=False).encode())
    write_csv(results, run_dir / "results.csv")
    print_table(results)
    print("\nDrawing the report ...", flush=True)  # figures take a few seconds
    print(f"Report: {write_report(run_dir, results, arrays)}")
