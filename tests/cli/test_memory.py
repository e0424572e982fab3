"""A comparison of ten times the seeds in the same memory: what grows is what docs/scaling.md says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from tiny_runs import tiny_config

from benchmarks.made_up import write_comparison
from benchmarks.memory import cost
from fm_lightning.data import FlowData, Split

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")]
SHAPE, FEATURES = (3, 32, 32), 192
SAMPLE = 4 * 3072  # bytes
MB = 2**20
SLACK = 40 * MB  # for what a process has twice or not, by chance


class Noise(FlowData):
    """Images of nothing, which have a size."""

    shape = SHAPE

    def load(self):
        x = torch.randn(2100, *SHAPE, generator=torch.Generator().manual_seed(0))
        self.train_split, self.held_out_split, self.real_split = Split(x[:50]), Split(x[50:100]), Split(x[100:])


def peak(folder: Path, *words: object) -> int:
    """The most bytes that a command ever had in memory."""
    root = Path(__file__).parents[2]
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (root, root / "tests", root / "tests/cli"))),
        "OMP_NUM_THREADS": "1",
        # Arrays are given back to the system as soon as they are freed: measured is what is in use.
        "MALLOC_MMAP_THRESHOLD_": "1000000",
    }
    return cost(*words, cwd=folder, env=env).bytes


def images(config):
    config["data"] = {
        "class_path": "test_memory.Noise",
        "init_args": {"batch_size": 16, "eval_batch_size": 100, "val_seeds": 13},
    }
    config["model"]["net"]["init_args"] = {"shape": list(SHAPE), "width": 16, "depth": 1}
    config["trainer"] |= {"max_steps": 2}
    pooled = {"class_path": "fm_lightning.metrics.RawFeatures", "init_args": {"pool": 4}}
    monitor = {"class_path": "fm_lightning.callbacks.FIDMonitor", "init_args": {"extractors": pooled}}
    config["trainer"]["callbacks"].insert(3, monitor)


@pytest.fixture
def growth(command, tmp_path):
    """``growth(verb, option, few, many)``: bytes that a command needs more for ``many`` seeds than for ``few``."""
    file = tiny_config(tmp_path / "images.yaml", images)

    def measure(verb: str, option: str, few: int, many: int) -> int:
        peaks = []
        for seeds in (few, many):
            name = f"{verb}-{seeds}"
            assert command("fit", "-c", file, "--name", name).status == 0
            peaks.append(peak(tmp_path, verb, "-c", file, "--name", name, f"--data.init_args.{option}", seeds))
        print(f"{verb}: {[p // MB for p in peaks]} MB")
        return peaks[1] - peaks[0]

    return measure


def test_a_comparison_of_ten_times_the_seeds(growth):
    few, many, rows = 500, 5000, 3  # base, kts and its true clock
    found = growth("test", "test_seeds", few, many)
    at_the_end = 3 * 4 * FEATURES * (many - few)  # the features of base, a row and the one that it is compared with
    assert found < at_the_end + SLACK
    assert 3 * (at_the_end + SLACK) < rows * SAMPLE * (many - few), "samples that were kept would be seen"


def test_samples_of_ten_times_the_seeds(growth):
    few, many = 1000, 10_000
    assert growth("predict", "predict_seeds", few, many) < SLACK
    assert SAMPLE * (many - few) > 2 * SLACK, "samples that were kept would be seen"


def test_a_report_of_ten_times_the_seeds(tmp_path):
    few, many, rows, width = 2000, 20_000, 10, 512
    peaks = []
    for seeds in (few, many):
        write_comparison(tmp_path / str(seeds), seeds, rows, width)
        peaks.append(peak(tmp_path, "report", seeds))
    print(f"report: {[p // MB for p in peaks]} MB")
    features = 2 * width * (many - few)  # of one row: they are kept in half precision
    lines = 2000 * (many - few)  # of base and a row: columns, and energies of 100 steps
    budget = 3 * features + lines
    assert peaks[1] - peaks[0] < budget + SLACK
    assert budget + SLACK < rows * features, "features of all rows would be seen"
