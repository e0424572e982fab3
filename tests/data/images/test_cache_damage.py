"""A damaged cache of decoded images is named and decoded again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bit_flips import flipped
from PIL import Image

from fm_lightning.data import ImageData


def loaded(folder: Path) -> torch.Tensor:
    data = ImageData(str(folder), train_part="train[:8]", held_out_part="train[8:]")
    data.setup()
    return torch.cat([data.train_split.x, data.held_out_split.x]).clone()


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A folder of images that was read once, and its cache."""
    monkeypatch.setenv("FM_LIGHTNING_CACHE", str(tmp_path / "cache"))
    (tmp_path / "images").mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"images/{i:02}.png")
    whole = loaded(tmp_path / "images")
    place = max((tmp_path / "cache").rglob("images.npy"), key=lambda path: path.stat().st_size).parent
    return tmp_path / "images", place, whole


def test_flipped_bits_are_repaired(cached, capsys):
    folder, place, whole = cached
    kept = place.with_name("kept")
    shutil.copytree(place, kept)
    for name in ("images.npy", "record.json"):
        for _ in flipped(kept / name, 4, seed=1):
            shutil.rmtree(place)
            shutil.copytree(kept, place)
            assert torch.equal(loaded(folder), whole)
            assert "is damaged" in capsys.readouterr().out


@pytest.mark.parametrize("harm", ["cut", "array gone", "record gone"])
def test_an_incomplete_cache_is_repaired(cached, capsys, harm):
    folder, place, whole = cached
    array = place / "images.npy"
    if harm == "cut":
        array.write_bytes(array.read_bytes()[:200])
    else:
        (array if harm == "array gone" else place / "record.json").unlink()
    assert torch.equal(loaded(folder), whole)
    assert "is damaged" in capsys.readouterr().out
