"""Budget: training stops by the clock, keeps a checkpoint of that moment, and writes down how fast it was."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Budget(Callback):
    """Ends training after ``seconds`` of wall time. List it last: the average comes before it.

    Leaves ``checkpoints/last.ckpt`` and ``throughput.json`` in the run's directory.

    Args:
        seconds: wall time, compilation included.
        since: Unix time from which they are counted; default: from where training begins.
        every: steps between two readings of the clock for throughput.
    """

    def __init__(self, seconds: float, since: float | None = None, every: int = 100) -> None:
        self.seconds, self.since, self.every = seconds, since, every
        self.laps: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin = time.perf_counter()
        self.laps = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        now = time.perf_counter() - self.begin
        if trainer.global_step % self.every == 0:
            self.laps.append(now)
        spent = now if self.since is None else time.time() - self.since
        if spent > self.seconds and not trainer.should_stop:
            trainer.should_stop = True
            folder = Path(trainer.default_root_dir)
            trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
            self._write(folder, trainer.global_step, batch.total, now)

    def _write(self, folder: Path, steps: int, batch: int, seconds: float) -> None:
        # The host runs ahead of a GPU by a few steps at most: over a lap it is as slow as the device.
        lap = [b - a for a, b in zip(self.laps, self.laps[1:])]
        rate = self.every / statistics.median(lap) if lap else steps / seconds
        found = {
            "steps": steps,
            "seconds": seconds,
            "first_lap_s": self.laps[0] if self.laps else None,
            "steps_per_s": rate,
            "images_per_s": rate * batch,
        }
        (folder / "throughput.json").write_text(json.dumps(found, indent=1) + "\n")
