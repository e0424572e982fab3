"""A checkpoint is there whole or not at all, and the one before it stays."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time

import pytest
import torch
from lightning.fabric.plugins import TorchCheckpointIO

from fm_lightning.cli.endings import unwritable
from fm_lightning.training.checkpoint_io import WholeCheckpointIO
from fm_lightning.training.trainer import FlowTrainer

BIG = 2_000_000


def test_a_full_disk_leaves_the_one_before(tmp_path):
    place = tmp_path / "deep" / "last.ckpt"
    WholeCheckpointIO().save_checkpoint({"step": 1}, place)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            WholeCheckpointIO().save_checkpoint({"step": 2, "x": torch.zeros(BIG)}, place)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "Cannot write" in unwritable(raised.value)
    assert torch.load(place, weights_only=True) == {"step": 1}
    assert os.listdir(place.parent) == ["last.ckpt"]


@pytest.mark.parametrize("moment", [pytest.param(m, marks=pytest.mark.slow) for m in (0.0, 0.01, 0.2)] + [0.05])
def test_a_kill_leaves_a_whole_one(tmp_path, moment):
    """The temporary folder is on another file system than the run, where there are two."""
    place = tmp_path / "last.ckpt"
    writes = (
        "import sys, torch; from fm_lightning.training.checkpoint_io import WholeCheckpointIO as IO\n"
        f"for step in range(10**6): IO().save_checkpoint({{'step': step, 'x': torch.zeros({BIG})}}, sys.argv[1])\n"
    )
    folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else str(tmp_path)
    writer = subprocess.Popen([sys.executable, "-c", writes, place], env={**os.environ, "TMPDIR": folder})
    until = time.monotonic() + 120
    while not place.exists():
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(moment)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert torch.load(place, weights_only=True)["x"].shape == (BIG,)


def test_the_trainer_writes_so_unless_told_otherwise(tmp_path):
    class Own(TorchCheckpointIO):
        pass

    options = {"default_root_dir": tmp_path, "accelerator": "cpu", "logger": False, "enable_checkpointing": False}
    assert isinstance(FlowTrainer(**options).strategy.checkpoint_io, WholeCheckpointIO)
    assert type(FlowTrainer(**options, plugins=[Own()]).strategy.checkpoint_io) is Own
