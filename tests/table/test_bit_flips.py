"""One flipped bit in any file of an evaluation is found, and what it held is made again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bit_flips import flipped
from test_evaluation import command, content, same

from fm_lightning.files import DamagedFile
from fm_lightning.table.evaluation import FOLDER, Evaluation, find_parts

MEASURES = ["near-1", "far-2"]
FILES = [
    "part.json",
    "lines.parquet",
    "energy.npy",
    "samples.npy",
    "near-1.parquet",
    "near-1.json",
    "far-2.parquet",
    "far-2.json",
    "far-2.features.npy",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    command(folder, ["base", "kts"], 10, 4, MEASURES, keep=True)
    return folder


def test_every_file_of_a_part_is_tried(run):
    part = Evaluation.open(run).parts[0].path
    assert sorted(FILES) == sorted(file.name for file in part.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_in_a_part_is_found(run, name):
    whole = content(run, ["base", "kts"], MEASURES)
    path = Evaluation.open(run).parts[1].path / name
    for place in flipped(path):
        sound, torn = find_parts(run / FOLDER)
        if name.endswith(".json") and not torn:  # white space
            same(content(run, ["base", "kts"], MEASURES), whole)
            continue
        assert [part.path for part, _ in torn] == [path.parent], place
        assert len(sound) == 2
    assert find_parts(run / FOLDER)[1] == []


def test_a_flipped_bit_in_the_manifest_is_found(run):
    path = run / FOLDER / "manifest.json"
    whole = Evaluation.open(run).manifest
    for place in flipped(path):
        try:
            found = Evaluation.open(run).manifest
        except DamagedFile:
            continue
        assert found == whole, place  # white space


def test_a_damaged_part_is_sampled_again(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "copy")
    whole = content(run, ["base", "kts"], MEASURES)
    path = Evaluation.open(folder).parts[2].path / "samples.npy"
    for _ in flipped(path, 1):
        assert command(folder, ["base", "kts"], 10, 4, MEASURES, keep=True) == 4
        same(content(folder, ["base", "kts"], MEASURES), whole)
