"""Files are whole or absent, and a flipped bit does not pass."""

from __future__ import annotations

import multiprocessing
import resource
import zipfile

import numpy as np
import pytest
from bit_flips import flipped

from fm_lightning.files import (
    DamagedFile,
    check_archive,
    create,
    read_arrays,
    read_json,
    replacing,
    write_arrays,
    write_json,
    write_whole,
)

VALUE = {"rows": {"base": {"f_mem": 0.25, "name": "Ä $x$"}}, "count": 3, "seeds": (1, 2), "none": None}
ARRAYS = {"a": np.arange(600, dtype=np.float32).reshape(20, 30), "b": np.array(3.5), "c": np.array(["x", "yz"])}


def fail_half_way(path):
    with replacing(path) as temporary:
        temporary.write_text("half")
        path.parent.read_bytes()


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path):
    path = write_whole(tmp_path / "a.txt", "old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(IsADirectoryError):
        fail_half_way(path)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text() == "old"


def test_json_comes_back_and_every_flipped_bit_is_found(tmp_path):
    path = write_json(tmp_path / "a.json", VALUE)
    assert read_json(path) == VALUE | {"seeds": [1, 2]}
    for place in flipped(path, 200):
        try:
            found = read_json(path)
        except DamagedFile:
            continue
        assert found == VALUE | {"seeds": [1, 2]}, place  # only white space may differ
    path.write_text('{"count": 4}')
    with pytest.raises(DamagedFile, match=r"a.json: it has no checksum, so this version did not write it\. Delete"):
        read_json(path)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"\xff\xfe", b"{", b"[" * 100_000])
def test_what_is_no_json_object_is_damaged(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"Cannot read .*a.json: .+\. Delete it"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_come_back_and_every_flipped_bit_is_found(tmp_path, compressed):
    path = write_arrays(tmp_path / "a.npz", ARRAYS, compressed)
    for place in flipped(path, 200):
        try:
            found = read_arrays(path)
        except DamagedFile:
            continue
        assert found.keys() == ARRAYS.keys(), place
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{place} {name}")
    assert read_arrays(path).keys() == ARRAYS.keys()


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_what_is_no_archive_is_damaged(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DamagedFile, match=r"Cannot read .*a.npz") as error:
        read_arrays(tmp_path / "a.npz")
    assert "pickle" not in str(error.value)
    with pytest.raises(DamagedFile, match=r"Cannot read .*a.npz"):
        check_archive(tmp_path / "a.npz")


def test_one_array_is_no_archive(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(DamagedFile, match="not a zip"):
        read_arrays(tmp_path / "a.npy")


def test_a_member_that_differs_is_named(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("first", b"1" * 100)
        archive.writestr("second", b"2" * 100)
    check_archive(path)
    path.write_bytes(path.read_bytes().replace(b"22222", b"22322", 1))
    with pytest.raises(DamagedFile, match=r"checksum does not match \(second\)"):
        check_archive(path)


def make(path) -> bool:
    return create(path, "mine")


def test_of_many_processes_one_creates_a_file(tmp_path):
    with multiprocessing.get_context("fork").Pool(8) as pool:
        for i in range(10):
            assert sum(pool.map(make, [tmp_path / str(i)] * 8, chunksize=1)) == 1
    assert (tmp_path / "3").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 10
