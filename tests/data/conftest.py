"""Caches of a test's own, and a folder of images."""

from __future__ import annotations

import pytest
from image_files import arrays, png, write_parquet


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("FM_LIGHTNING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "hf")


@pytest.fixture
def folder(tmp_path):
    """Parquet files of 30 training and 12 test images with classes: the folder and the training pixels."""
    train, test = arrays(30), arrays(12, 1)
    write_parquet(tmp_path / "set" / "train-0.parquet", map(png, train), [i % 3 for i in range(30)])
    write_parquet(tmp_path / "set" / "test-0.parquet", map(png, test), [i % 3 for i in range(12)])
    return tmp_path / "set", train
