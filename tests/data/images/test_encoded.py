"""Rows of a table name files inside the source, or are refused without reading or fetching anything."""

from __future__ import annotations

import json
import socket

import datasets
import pyarrow as pa
import pytest
from image_files import arrays, loaded, pixels, png, refused
from pyarrow import parquet

ADDRESSES = [
    "http://127.0.0.1:9/a.png",
    "https://example.org/a.png",
    "s3://bucket/a.png",
    "hf://datasets/a/b/a.png",
    "file:///etc/a.png",
    "zip://a.png::http://example.org/a.zip",
    "zip://a.png::../outside.zip",
    "../outside.png",
    "/outside.png",
    "//server/share/a.png",
    "\\\\server\\share\\a.png",
    "inside/../../outside.png",
    "link/outside.png",
]


def table(folder, names):
    """Rows that hold a name and no bytes, in a training and a test table."""
    folder.mkdir(exist_ok=True)
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    features = datasets.Features({"image": datasets.Image()}).to_dict()
    # `datasets` itself would store the bytes.
    schema = pa.schema({"image": kind}, {"huggingface": json.dumps({"info": {"features": features}})})
    rows = pa.table({"image": pa.array([{"bytes": None, "path": name} for name in names], kind)}, schema)
    for split in ("train", "test"):
        parquet.write_table(rows, folder / f"{split}-0.parquet")
    return folder


@pytest.fixture
def no_network(monkeypatch):
    def connect(*args):
        raise AssertionError(f"connects to {args}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)


@pytest.mark.parametrize("name", ADDRESSES)
def test_a_row_that_leaves_the_source_is_refused(tmp_path, no_network, name):
    (tmp_path / "outside.png").write_bytes(png(arrays(1)[0]))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path)
    (tmp_path / "set" / "good.png").write_bytes(png(arrays(1)[0]))
    source = table(tmp_path / "set", ["good.png", f"{tmp_path}{name}" if name == "/outside.png" else name])
    source = {split: str(source / f"{split}-0.parquet") for split in ("train", "test")}
    for options in ({}, {"skip_unreadable": True}):
        refused("Image index 1 of train, .* is not inside the source", source, image_column="image", **options)


def test_rows_may_name_files_of_the_source(tmp_path, no_network):
    source, images = tmp_path / "set", arrays(4)
    names = ["0.png", "inner/1.png", f"{source}/2.png", "inner/../3.png"]
    (source / "inner").mkdir(parents=True)
    for place, image in zip(("0.png", "inner/1.png", "2.png", "3.png"), images):
        (source / place).write_bytes(png(image))
    table(source, names)
    options = {"image_column": "image", "order": "source"}
    tables = {split: str(source / f"{split}-0.parquet") for split in ("train", "test")}
    assert (pixels(loaded(tables, **options).train_split) == images).all()
    (source / "0.png").write_bytes(png(images[3]))
    assert (pixels(loaded(tables, **options).train_split)[0] == images[3]).all(), "the cache follows the files"
    (source / "2.png").unlink()
    assert "2.png" in refused("2 of 8 images cannot be read", tables, **options)


def test_a_row_without_bytes_and_name(tmp_path):
    refused("no image in this row", table(tmp_path / "set", [None, None]), image_column="image")
