"""Held-out images are none of the training images under another name, and files of one split say the same."""

from __future__ import annotations

import os
import shutil

import datasets
import numpy as np
import pytest
from image_files import arrays, loaded, pixels, png, refused, write_parquet

SLICES = {"train_part": "train[:16]", "held_out_part": "train[16:]"}


def folder(place, n=20):
    place.mkdir(parents=True, exist_ok=True)
    for i, array in enumerate(arrays(n)):
        (place / f"{i}.png").write_bytes(png(array))
    return place


# ---------------------------------------------------------------- files given twice


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_held_out_image_is_no_link_to_a_training_image(tmp_path, link):
    source = folder(tmp_path / "set")
    rows = loaded(source, order="source", **SLICES)
    assert (pixels(rows.held_out_split) == arrays(20)[sorted(range(20), key=str)][16:]).all()
    link(source / "0.png", source / "z.png")  # first and last by name
    message = refused("the same file", source, order="source", **SLICES)
    assert "0.png" in message
    assert "z.png" in message
    parts = {"train_part": "train[1:16]", "held_out_part": "train[16:]"}
    assert len(loaded(source, order="source", **parts).held_out_split) == 5


def test_splits_that_are_one_folder(tmp_path):
    source = folder(tmp_path / "set" / "train")
    (tmp_path / "set" / "test").symlink_to(source)
    refused("held out in test", tmp_path / "set")
    refused("held out in test", {"train": str(source), "test": str(source)})
    folder(source / "inner")
    refused("inner/.*.png is in train", {"train": str(source), "test": str(source / "inner")})
    shutil.copytree(source, tmp_path / "other")
    assert len(loaded({"train": str(source), "test": str(tmp_path / "other")}).held_out_split) == 40


def test_splits_that_share_a_table(tmp_path):
    names = [write_parquet(tmp_path / f"{name}.parquet", map(png, arrays(8, i))) for i, name in enumerate("ab")]
    message = refused("b.parquet is in train and in test", {"train": str(tmp_path / "*.parquet"), "test": names[1]})
    assert "train_part: 'train[:90%]'" in message
    assert len(loaded({"train": names[0], "test": names[1]}).held_out_split) == 8


# ---------------------------------------------------------------- shards


def shard(file, columns, **features):
    values = columns | {"image": [{"bytes": png(a), "path": None} for a in arrays(4)]}
    rows = datasets.Dataset.from_dict(values, features=datasets.Features({"image": datasets.Image()} | features))
    file.parent.mkdir(exist_ok=True)
    rows.to_parquet(file)


def classes(*names):
    return datasets.ClassLabel(names=list(names))


@pytest.mark.parametrize("names", [("dog", "cat"), ("cat", "dog", "newt")])
def test_shards_number_their_classes_alike(tmp_path, names):
    source = tmp_path / "set"
    for split in ("train", "test"):
        shard(source / f"{split}-0.parquet", {"kind": [0, 1, 0, 1]}, kind=classes("cat", "dog"))
    assert loaded(source, conditional=True).train_split.y.tolist() == [0, 1, 0, 1]
    shard(source / "train-1.parquet", {"kind": [0, len(names) - 1, 0, 1]}, kind=classes(*names))
    refused("train-1.parquet numbers the classes in kind differently from train-0", source)


def test_shards_with_a_column_more(tmp_path):
    for split in ("train", "test"):
        shard(tmp_path / "set" / f"{split}-0.parquet", {})
    shard(tmp_path / "set" / "train-1.parquet", {"score": [1] * 4}, score=datasets.Value("int64"))
    refused("train-1.parquet has the column score", tmp_path / "set")


def test_a_table_without_rows(tmp_path):
    write_parquet(tmp_path / "set" / "train-0.parquet", map(png, arrays(8)))
    write_parquet(tmp_path / "set" / "test-0.parquet", [])
    refused("test-0.parquet' has no rows", tmp_path / "set")


def test_columns_of_numbers_are_no_images(tmp_path):
    """`datasets` made 44 of 300."""
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        rows = datasets.Dataset.from_dict({"image": [np.full((4, 4, 3), 300).tolist()] * 4})
        rows.to_parquet(tmp_path / "set" / f"{split}-0.parquet")
    refused("holds List, not encoded images", tmp_path / "set", image_column="image")
