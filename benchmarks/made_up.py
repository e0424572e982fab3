"""A finished comparison of made-up numbers, written as a real one is: for what reading it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fm_lightning.comparison.rows import BASE, Row
from fm_lightning.data.samples import TEST_SEED
from fm_lightning.files import write_json
from fm_lightning.flow import KTS, Schedule
from fm_lightning.table.blocks import Block
from fm_lightning.table.writer import BaseSamples, Writer
from fm_lightning.trajectory import Trajectory

FINGERPRINT, THRESHOLD, REAL = "made-up", 1 / 3, 2000
COPIES, DISTANCE = f"neighbours-{FINGERPRINT}", f"fd_raw-{FINGERPRINT}"


def made_up_rows(count: int) -> dict[str, Row]:
    """Plain sampling, and schedules with ever stronger gains."""
    rows = {BASE: Row("base", Schedule())}
    for i in range(1, count):
        rows[f"kts{i}"] = Row("schedule", Schedule(KTS(0.001 * i, 0.001 * i)), plain=BASE)
    return rows


def write_comparison(run: Path, seeds: int, rows: int, width: int, batch: int = 256) -> None:
    """Writes ``run/evaluation``, of which ``fm-lightning report run`` makes a report.

    Args:
        run: the run's directory.
        seeds: lines of each row.
        rows: plain sampling and schedules; none of them is judged.
        width: features of a line.
        batch: seeds of a part.
    """
    rng = np.random.default_rng(0)
    table, keys = made_up_rows(rows), {name: row.key for name, row in made_up_rows(rows).items()}
    writer = Writer(run, 0.6)
    writer.claim.take()
    manifest = writer.open({"weights": FINGERPRINT}).manifest
    manifest.rows = {name: {"key": keys[name], **row.facts(name)} for name, row in table.items()}
    manifest.measures = {"neighbours": FINGERPRINT, "fd_raw": FINGERPRINT}
    manifest.seeds = (TEST_SEED, seeds)
    manifest.about = {"name": run.name, "tau_split": 0.6, "threshold": THRESHOLD, "training_images": 1000}
    manifest.write(writer.folder / "manifest.json")
    _write_reference(writer.folder / "measures", rng, width)
    for first in range(TEST_SEED, TEST_SEED + seeds, batch):
        block = Block(first, min(first + batch, TEST_SEED + seeds) - 1, tuple(table))
        ways = {name: _way(rng, row.schedule, block) for name, row in table.items()}
        copies = {name: _neighbours(rng, block.size) for name in table}
        features = {name: {"features": rng.standard_normal((block.size, width), dtype=np.float32)} for name in table}
        base = BaseSamples(np.arange(block.first, block.last + 1), ways[BASE].x1.numpy())
        writer.write(block, keys, ways, base, [], {COPIES: copies, DISTANCE: features})
    writer.claim.release()


def _way(rng: np.random.Generator, schedule: Schedule, block: Block) -> Trajectory:
    energy = torch.from_numpy(rng.random((schedule.steps, block.size), dtype=np.float32))
    x1 = torch.from_numpy(rng.standard_normal((block.size, 2), dtype=np.float32))
    edges, seeds = schedule.edges, torch.arange(block.first, block.last + 1)
    gain, total = schedule.eta(edges[:-1]), energy.sum(0)
    return Trajectory(x1, energy, total, 0.9 * total, edges, gain, schedule.steps, None, seeds)


def _neighbours(rng: np.random.Generator, count: int) -> dict[str, np.ndarray]:
    d2 = rng.random(count, dtype=np.float32) + 1
    return {"d1": d2 * rng.random(count, dtype=np.float32), "d2": d2, "nearest": rng.integers(0, 1000, count)}


def _write_reference(folder: Path, rng: np.random.Generator, width: int) -> None:
    """What the two monitors remember of real and of training images."""
    folder.mkdir()
    write_json(folder / f"{COPIES}.json", {})
    real = rng.standard_normal((REAL, width), dtype=np.float32)
    moments = {"mean": np.zeros(width), "cov": np.eye(width), "samples": np.array(REAL)}
    np.savez(folder / f"{DISTANCE}.npz", allow_pickle=False, features=real, **moments)
