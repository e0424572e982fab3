"""What the evaluation table costs: writing it, one more schedule on a finished one, and the report of a large one.

    python -m benchmarks.table [--rounds 3] [--full] [--json FILE]

A comparison of configs/digits.yaml, with all its rows, is timed from its first batch to its last number; then schedules are
added to it one by one, each compared with the same seeds sampled and measured with nothing written or read. The large table is
made up, and written as a real one is. ``--full``: of 50 000 seeds x 20 rows with 2 048 features, 4 GB on disk.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning import Callback

from benchmarks.made_up import write_comparison
from benchmarks.memory import ROOT, cost
from benchmarks.timing import Times, arguments, clocked, finish, ratio, target
from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.data.batches import seed_batch
from fm_lightning.data.samples import TEST_SEED
from fm_lightning.table.claim import Claim
from fm_lightning.table.manifest import Manifest
from fm_lightning.table.writer import Writer

WRITING, ONE_MORE = 0.02, 1.05
SIZE, FULL, SMOKE = (5_000, 20, 512), (50_000, 20, 2048), (300, 4, 32)  # seeds, rows, features
NAME = "table"


class Stopwatch(Callback):
    """Times the batches of a comparison, listed after all other callbacks; then what one of its rows costs by itself."""

    row: str | None = None
    added = alone = (0.0, 0.0)  # wall and processor seconds

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        Stopwatch.added = Stopwatch.alone = (0.0, 0.0)

    def on_test_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.begin = time.perf_counter(), time.process_time()

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        (wall, cpu), (began, began_cpu) = Stopwatch.added, self.begin
        Stopwatch.added = wall + time.perf_counter() - began, cpu + time.process_time() - began_cpu

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.row is None:
            return
        rows = {self.row: pl_module.rows[self.row]}
        measures = [m for c in trainer.callbacks if isinstance(c, Monitor) for m in c.measures if m.fingerprint]
        seeds, size = pl_module.data.test_seeds, pl_module.data.eval_batch_size

        def sample_and_measure() -> None:
            for first in range(0, seeds, size):
                batch = seed_batch(TEST_SEED + first, min(size, seeds - first), min(size, seeds))
                for trajectory in pl_module.model.sample(rows, batch.seeds, batch.valid).values():
                    for measure in measures:
                        measure.measure(trajectory)

        Stopwatch.alone = clocked(sample_and_measure)


@contextlib.contextmanager
def _writing() -> Iterator[list[float]]:
    """Seconds of every call that writes the table or reads what exists."""
    spent: list[float] = []
    with contextlib.ExitStack() as stack:
        for kind, names in {Manifest: ("write",), Claim: ("take", "release"), Writer: ("open", "write", "add")}.items():
            for name in names:
                stack.enter_context(_timed(kind, name, spent))
        yield spent


@contextlib.contextmanager
def _timed(kind: type, name: str, spent: list[float]) -> Iterator[None]:
    method = getattr(kind, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            spent.append(time.perf_counter() - begin)

    setattr(kind, name, timed)
    try:
        yield
    finally:
        setattr(kind, name, method)


def command(*words: object) -> None:
    """A verb of Lightning's in this process."""
    from fm_lightning.cli.command import main

    with contextlib.redirect_stdout(io.StringIO()):
        main([*map(str, words)])


def writing(common: list[str], smoke: bool) -> dict[str, Any]:
    """The whole comparison: its time, and what of it went into the table."""
    # It need not be trained well, only to copy, as without copies there is nothing to judge and few rows.
    command("fit", *common, "--trainer.max_steps", 250 if smoke else 1500)
    with _writing() as spent:
        command("test", *common)
    results = json.loads(Path("runs", NAME, "results.json").read_text())
    rows = len(results["rows"])
    found = {"what": "writing", "rows": rows, "seeds": results["samples"], "seconds": results["duration_s"]}
    found |= {"writing_s": sum(spent), "share": sum(spent) / results["duration_s"]}
    print(f"{rows} rows x {found['seeds']} seeds: {found['seconds']:.1f} s, of which writing {found['share']:.2%}")
    return found


def one_more(common: list[str], rounds: int) -> dict[str, Any]:
    """A schedule added to the finished comparison, compared with the same sampling and measuring with no table."""
    times = {name: Times([], []) for name in ("added", "alone")}
    # A file's dictionary of schedules takes the place of the one before.
    known = yaml.safe_load((ROOT / "configs" / "digits.yaml").read_text())["model"]["test_schedules"]
    for i in range(rounds):
        Stopwatch.row = f"more{i}"
        gain = {"class_path": "fm_lightning.flow.KTS", "init_args": {"alpha": 0.011 + 0.001 * i, "beta": 0.011}}
        file = Path(f"more{i}.yaml")
        file.write_text(yaml.safe_dump({"model": {"test_schedules": {**known, Stopwatch.row: {"gain": gain}}}}))
        command("test", *common, "-c", file)
        for name, seconds in times.items():
            wall, cpu = getattr(Stopwatch, name)
            seconds.wall.append(wall)
            seconds.cpu.append(cpu)
    Stopwatch.row = None
    found = {"what": "one more schedule", **ratio(times["added"], times["alone"])}
    found |= {name: seconds.summary for name, seconds in times.items()}
    print(f"one more: {times['added'].best:.3f} s, alone {times['alone'].best:.3f} s, ratio {found['ratio']:.3f}")
    return found


def report(folder: Path, seeds: int, rows: int, width: int, threads: int) -> dict[str, Any]:
    """``fm-lightning report`` of a made-up comparison, a process of its own: time and peak memory."""
    written, _ = clocked(lambda: write_comparison(folder / "large", seeds, rows, width))
    kept = sum(file.stat().st_size for file in (folder / "large").rglob("*") if file.is_file())
    found = cost("report", "large", cwd=folder, env=os.environ | {"OMP_NUM_THREADS": str(threads)})
    row = {"what": "report", "seeds": seeds, "rows": rows, "features": width, "disk_bytes": kept}
    row |= {"written_s": written, "seconds": found.seconds, "peak_bytes": found.bytes}
    print(
        f"report on {seeds:,} seeds x {rows} rows with {width:,} features ({kept / 1e9:.2g} GB on disk, written in "
        f"{written:.0f} s): {found.seconds:.0f} s, {found.bytes / 1e9:.2f} GB of memory"
    )
    return row


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--full", action="store_true", help="the report of 50 000 seeds x 20 rows, 2 048 features, alone"
    )
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size = SMOKE if given.smoke else FULL if given.full else SIZE
    rows: list[dict[str, Any]] = []
    targets: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
        if not given.full:
            common = ["-c", str(ROOT / "configs" / "digits.yaml"), "--name", NAME, "--threads", str(given.threads)]
            common += ["--trainer.enable_progress_bar", "false", "--trainer.callbacks+=benchmarks.table.Stopwatch"]
            common += ["--data.init_args.test_seeds", "250"] if given.smoke else []
            rows += [writing(common, given.smoke), one_more(common, 2 if given.smoke else given.rounds)]
            targets.append(target("writing the table, share of a comparison's time", rows[0]["share"], WRITING))
            targets.append(target("one more schedule over the same alone", rows[1]["ratio"], ONE_MORE))
        rows.append(report(Path(scratch), *size, given.threads))
    finish("table", rows, targets, given.json, note="configs/digits.yaml")


if __name__ == "__main__":
    # Under the name by which the configuration finds the stopwatch: `__main__` would be another module.
    from benchmarks.table import main as run

    run()
