"""What lies in folders: names of any kind, links, archives, other files, too few images."""

from __future__ import annotations

import os
import unicodedata
import zipfile

import pytest
from image_files import arrays, flat, loaded, png, refused, values, write_parquet
from image_files import write_images as write

SLICES = {"train_part": "train[:90%]", "held_out_part": "train[90%:]"}
LAST = {"train_part": "train[:4]", "held_out_part": "train[4:]"}


@pytest.mark.parametrize("name", ["flowers [v1]", "a*b?c", "[!x]", "ü 花 {1}", "a[b", "100%", "a:b", "a#b"])
def test_names_are_no_patterns(tmp_path, name):
    folder = write(
        tmp_path / name / "set [2]", [f"{name} {i}.png" for i in range(8)] + [f"[ab]*{i}.png" for i in range(12)]
    )
    data = loaded(folder, **SLICES)
    assert sorted(values(data.train_split) + values(data.held_out_split)) == list(range(20))
    write_parquet(tmp_path / name / "p" / "train-[0].parquet", map(png, arrays(5)))
    write_parquet(tmp_path / name / "p" / "test-[0].parquet", map(png, arrays(3)))
    assert len(loaded(tmp_path / name / "p").train_split) == 5
    one = tmp_path / name / "p" / "train-[0].parquet"
    files = {"train": str(one), "test": str(tmp_path / name / "p" / "test-[0].parquet")}
    assert len(loaded(files).held_out_split) == 3
    assert len(loaded(str(one), train_part="train[:3]", held_out_part="train[3:]").train_split) == 3


def test_links_hidden_files_and_what_is_no_image(tmp_path):
    folder = write(tmp_path / "set", [f"ant/{i}.PNG" for i in range(6)] + [f"bee/{i}.png" for i in range(6)])
    write(tmp_path / "elsewhere", [f"{i}.png" for i in range(6)])
    (folder / "cow").symlink_to(tmp_path / "elsewhere")
    (folder / "ant" / "up").symlink_to(folder)  # a circle
    (folder / "ant" / "6.png").symlink_to(write(tmp_path / "alone", ["0.png"]) / "0.png")
    for junk in (
        ".DS_Store",
        "ant/.0.png",
        "ant/notes.txt",
        ".cache/0.png",
        "README.md",
        "bee/Thumbs.db",
        "labels.npy",
    ):
        (folder / junk).parent.mkdir(exist_ok=True)
        (folder / junk).write_text("no image")
    data = loaded(folder, conditional=True, train_part="train[:15]", held_out_part="train[15:]")
    assert data.class_names == ["ant", "bee", "cow"]
    assert len(data.train_split) + len(data.held_out_split) == 19
    (folder / "ant" / "7.png").symlink_to(tmp_path / "nowhere.png")
    assert "ant/7.png" in refused(
        "1 of 20 images cannot be read", folder, train_part="train[:15]", held_out_part="train[15:]"
    )


def test_what_other_systems_leave_in_folders(tmp_path):
    names = [f"{kind}/{i}.png" for kind in ("ant", "bee") for i in range(6)]
    junk = ["$RECYCLE.BIN/0.png", "ant/@eaDir/0.png/SYNOPHOTO_THUMB_M.png", "#recycle/1.png", "ant/._0.png"]
    data = loaded(
        write(tmp_path / "set", names + junk), conditional=True, train_part="train[:9]", held_out_part="train[9:]"
    )
    assert data.class_names == ["ant", "bee"]
    assert sorted(values(data.train_split) + values(data.held_out_split)) == list(range(12))


def test_a_link_to_nowhere_may_have_been_a_class(tmp_path):
    folder = write(tmp_path / "set", [f"{kind}/{i}.png" for kind in ("ant", "bee") for i in range(3)])
    (folder / "cow").symlink_to(tmp_path / "nowhere")
    refused("Cannot read .*cow: No such file or directory.*link", folder)


def test_photographs_that_nobody_reads_are_not_dropped(tmp_path):
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(20)])
    (folder / "a.HEIC").write_bytes(b"x")
    refused("Cannot read .*a.HEIC .1 such files next to 20 images.*Convert them", folder, **SLICES)


def test_images_outside_of_a_class(tmp_path):
    folder = write(tmp_path / "set", ["0.png", *(f"{kind}/{i}.png" for kind in ("ant", "bee") for i in range(3))])
    message = refused("no class labels.*in the directory of a class", folder, conditional=True, **LAST)
    assert message.endswith("Set conditional: false")
    assert len(loaded(folder, **LAST).train_split) == 4


def test_image_files_as_a_source(tmp_path):
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(20)])
    for source in (folder / "0.png", str(folder / "*.png")):
        assert refused("is no folder", source).endswith(f"Set source: {folder}")


def test_archives(tmp_path):
    (tmp_path / "set").mkdir()
    with zipfile.ZipFile(tmp_path / "set" / "all.zip", "w") as archive:
        for i in range(20):
            archive.writestr(f"{i:02}.png", png(flat(i)))
    data = loaded(tmp_path / "set", **SLICES)
    assert sorted(values(data.train_split) + values(data.held_out_split)) == list(range(20))
    assert values(data.train_split) != sorted(values(data.train_split))
    assert "Unpack it" in refused("all.zip' for train is an archive", str(tmp_path / "set" / "all.zip"))


def test_names_in_another_normal_form_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = unicodedata.normalize("NFD", "Blüten")
    write(tmp_path / name, [f"{unicodedata.normalize('NFD', 'ü')}{i}.png" for i in range(20)])
    assert len(loaded(name, **SLICES).train_split) == 18
    assert len(loaded(f"./{name}/", **SLICES).train_split) == 18
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(loaded(f"~/{name}", **SLICES).train_split) == 18


def test_folders_without_images_or_with_two_kinds(tmp_path):
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("words")
    refused("no image column", tmp_path / "text")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".a.png").write_bytes(png(flat(0)))
    refused("no files", tmp_path / "hidden")
    folder = write(tmp_path / "both", ["0.png"])
    write_parquet(folder / "train.parquet", map(png, arrays(3)))
    refused("holds 1 images and 1 parquet files", folder)


def test_too_few_images_end_in_one_message_that_works(tmp_path):
    """Three messages advised each other in a circle."""
    for n in (1, 2, 3):
        folder = write(tmp_path / f"set{n}", [f"{i}.png" for i in range(n)])
        for options in (
            {},
            SLICES,
            {"train_part": "train", "held_out_part": "train"},
            {"train_part": "train[:1]", "held_out_part": "train[1:]"},
        ):
            if len(options) and n == 3 and options["train_part"] == "train[:1]":
                continue  # works
            message = refused(f"has {n} images|rows|held_out_split", folder, **options)
            assert "at least" in message


@pytest.mark.parametrize("n", [4, 5, 11, 19, 20, 29])
def test_what_a_message_advises_works(tmp_path, n):
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(n)])
    for options in ({}, {"held_out_part": "train"}, {"held_out_part": "train[100%:]"}, {"held_out_part": "train[-1:]"}):
        advice = refused("", folder, **options).partition("Set for example ")[2]
        parts = dict(item.split(": ") for item in advice.split(", "))
        data = loaded(folder, **{name: part.strip("'") for name, part in parts.items()})
        assert len(data.train_split) + len(data.held_out_split) == n


def test_a_directory_that_cannot_be_read(tmp_path, monkeypatch):
    folder = write(tmp_path / "set", ["a/0.png", "b/1.png"])
    scan = os.scandir

    def closed(place):
        if str(place).endswith("b"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr("os.scandir", closed)
    refused("Cannot read .*b: Permission denied", folder)
