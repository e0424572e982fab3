"""Gathers what the callbacks measured into ``results.json`` and ``arrays.npz``, all that the report reads."""

from __future__ import annotations

import datetime
import io
import json
import math
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Trainer

from fm_lightning.comparison.rows import BASE, FLOORS, Row, plain_row
from fm_lightning.metrics import Change
from fm_lightning.training.tracking import AppendingCSVLogger, read_series

if TYPE_CHECKING:
    from fm_lightning.callbacks import ScheduleTable
    from fm_lightning.module import FlowMatching
    from fm_lightning.training.trainer import FlowTrainer

PACKAGES = ("fm-lightning", "torch", "lightning", "torchmetrics", "torch-fidelity", "numpy", "scipy", "scikit-learn")
HISTORY = ("train/loss", "val/loss")


def collect(
    trainer: FlowTrainer, pl_module: FlowMatching, table: ScheduleTable, stage: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The results (schema 1) and the arrays behind the figures. Every process calls it; metrics are gathered.

    Args:
        trainer: whose callbacks measured.
        pl_module: the FlowMatching module.
        table: the callback that asks.
        stage: "val" or "test".
    """
    from fm_lightning.callbacks import FIDMonitor, KPEDistribution, MemorizationMonitor, SampleGrid
    from fm_lightning.callbacks.monitor import PairedMonitor, TrajectoryMonitor
    from fm_lightning.callbacks.sample_grid import visible
    from fm_lightning.comparison.verdicts import verdict

    data = pl_module.data
    found = {kind: _first(trainer, kind) for kind in (FIDMonitor, KPEDistribution, MemorizationMonitor, SampleGrid)}
    fid, kpe, memorization, grid = found.values()
    paired = [callback for callback in trainer.callbacks if isinstance(callback, PairedMonitor)]
    monitors = [callback for callback in trainer.callbacks if isinstance(callback, TrajectoryMonitor)]

    samples = data.test_seeds if stage == "test" else data.val_seeds

    def changes(name: str, other: str) -> dict[str, Change]:
        return {m.key: change for m in paired if (change := m.change(name, other)) is not None}

    rows = []
    for name, row in pl_module.rows.items():
        metrics = {k: v for m in monitors for k, v in m.values.get(name, {}).items()}
        if name in table.rms:
            metrics["rms_to_base"] = table.rms[name]
        # What the verdict is about: the gain alone, not another solver, grid or number of steps.
        plain = plain_row(pl_module.rows, name) if row.kind == "schedule" and row.schedule.gain else None
        vs_base = changes(name, BASE) if name != BASE else {}
        vs_plain = vs_base if plain == BASE else changes(name, plain) if plain else {}
        rows.append(
            {
                "name": name,
                "kind": row.kind,
                "of": row.of,
                "control": name.rpartition(".")[2] if row.of else None,
                "label": row.label(name) + _of(row, samples),
                "steps": 0 if row.kind == "floor" else row.schedule.steps,
                "nfe": table.nfe.get(name, 0),
                "description": _describe(name, row),
                "metrics": {k: v if math.isfinite(v) else None for k, v in metrics.items()},
                "vs_base": vs_base or None,
                "plain": plain,
                "vs_plain": vs_plain or None,
                "vs_parent": changes(row.of, name) or None if row.of else None,
            }
        )
    by_name = {row["name"]: row for row in rows}
    quality = {"key": fid.key, "label": fid.extractor.label, "reference": fid.samples} if fid else None
    verdicts = [
        verdict(
            row,
            [r for r in rows if r["of"] == row["name"] and r["vs_parent"]],
            by_name[row["plain"]],
            fid.key if fid else "",
        )
        for row in rows
        if row["plain"] and row["vs_plain"]
    ]
    if quality:
        quality["samples"] = samples
    results = {
        "schema": 1,
        "name": Path(trainer.default_root_dir).name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "duration_s": time.time() - table.started,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "hardware": hardware(trainer),
        "config": trainer.run_config,
        "seed": pl_module.base_seed,
        "step": trainer.tested_step or trainer.global_step,
        "samples": samples,
        "quality": quality,
        "space": data.space,
        "training_images": len(data.train_split),
        "skipped_images": data.skipped,
        "tau_split": kpe.tau_split if kpe else None,
        "threshold": memorization.threshold if memorization else None,
        "train": _history(trainer),
        "rows": rows,
        "verdicts": verdicts,
    }
    arrays: dict[str, np.ndarray] = {}
    if kpe:
        arrays |= kpe.arrays()
    if grid and trainer.is_global_zero:
        arrays |= grid.arrays(pl_module)
    if memorization:
        index, counts = memorization.most_copied()
        if data.has_pixels:
            images = visible(pl_module, data.reference(torch.from_numpy(index)))
            arrays |= {"most_copied/images": images, f"most_copied/{BASE}": counts}
        elif len(data.shape) == 1:
            arrays["training/points"] = visible(pl_module, data.reference())
    return results, arrays


def save(run_dir: str | Path, results: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Writes the results, the arrays, the table as CSV and the report; prints the table and where the report lies."""
    from fm_lightning.report.page import write_report
    from fm_lightning.report.results import replace_file
    from fm_lightning.report.table import print_table, write_csv

    run_dir = Path(run_dir)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    replace_file(run_dir / "arrays.npz", buffer.getvalue())
    replace_file(run_dir / "results.json", json.dumps(results, indent=1, ensure_ascii=False).encode())
    write_csv(results, run_dir / "results.csv")
    print_table(results)
    print("\nDrawing the report ...", flush=True)  # figures take a few seconds
    print(f"Report: {write_report(run_dir)}")


def hardware(trainer: Trainer) -> str:
    """The machine in words."""
    if torch.cuda.is_available() and trainer.strategy.root_device.type == "cuda":
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads x {trainer.world_size} processes"


def _of(row: Row, samples: int) -> str:
    """How many images a floor has, where they are fewer than the samples of the other rows."""
    return f" ({len(row.images):,})" if row.images is not None and len(row.images) < samples else ""


def _describe(name: str, row: Row) -> str:
    if row.kind == "floor":
        return FLOORS[name]
    s = row.schedule
    grid = s.grid if isinstance(s.grid, str) else f"{len(s.grid)} given edges"
    words = [
        f"gain {s.gain}" if s.gain else "no gain",
        f"{s.steps} {s.solver} steps",
        f"{grid} grid to t = {s.t_end:.6g}",
    ]
    if s.told_time != "grid":
        words.append(f"told time: {s.told_time}")
    if s.x0_scale != 1:
        words.append(f"initial noise x {s.x0_scale:g}")
    if s.end_noise:
        words.append(f"end noise {s.end_noise:.6g}")
    return ", ".join(words)


def _history(trainer: Trainer) -> dict[str, Any]:
    """What was logged in training: losses and the validation's numbers for plain sampling."""
    for logger in trainer.loggers:
        if isinstance(logger, AppendingCSVLogger):
            series = read_series(logger.path)
            kept = {n: dict(p) for n, p in series.items() if n in HISTORY or n.startswith(f"val/{BASE}/")}
            steps = sorted({step for points in kept.values() for step in points})
            return {"steps": steps, "series": {name: [p.get(s) for s in steps] for name, p in kept.items()}}
    return {}


def _first(trainer: FlowTrainer, kind: type) -> Any:
    return next((callback for callback in trainer.callbacks if isinstance(callback, kind)), None)
