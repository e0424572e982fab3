"""A damaged checkpoint is refused, and the newest whole one is named."""

from __future__ import annotations

import os

import pytest
import torch
from bit_flips import flipped

from fm_lightning.adapters.checkpoints import CONFIG, read_checkpoint
from fm_lightning.adapters.state_dicts import read_weights
from fm_lightning.files import DamagedFile
from fm_lightning.training.checkpoint_io import WholeCheckpointIO

STATE = {"net.0.weight": torch.linspace(0, 1, 600).reshape(30, 20), "net.0.bias": torch.zeros(30)}
CONTENT = {CONFIG: {"model": {"width": 3}}, "state_dict": STATE, "global_step": 7}


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("step=1.ckpt", "step=2.ckpt", "step=3.ckpt", "last.ckpt")):
        WholeCheckpointIO().save_checkpoint(CONTENT, tmp_path / name)
        os.utime(tmp_path / name, (i, i))
    return tmp_path


def test_no_flipped_bit_changes_what_is_read(folder):
    path, refused = folder / "last.ckpt", 0
    for place in flipped(path, 60):
        try:
            found = read_checkpoint(path)
        except DamagedFile:
            refused += 1
            continue
        assert found[CONFIG] == CONTENT[CONFIG], place
        assert all(torch.equal(found["state_dict"][name], value) for name, value in STATE.items()), place
    assert refused >= 30  # of a file of which the rest is padding and dates
    for _ in flipped(path, 1, seed=3):
        with pytest.raises(DamagedFile, match=r"checksum"):
            read_weights(path)


def test_the_newest_whole_one_is_named(folder):
    for name in ("last.ckpt", "step=3.ckpt"):
        (folder / name).write_bytes((folder / name).read_bytes()[:-300])
    with pytest.raises(DamagedFile, match=r"Cannot read .*last.ckpt: .*\. Use .* next to it: .*step=2.ckpt$"):
        read_checkpoint(folder / "last.ckpt")
    (folder / "step=2.ckpt").unlink()
    (folder / "step=1.ckpt").unlink()
    with pytest.raises(DamagedFile, match=r"There is no other checkpoint"):
        read_checkpoint(folder / "last.ckpt")
