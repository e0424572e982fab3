"""Folders: directories alone decide, subsets and slices are fair draws, whatever files and directories are called."""

from __future__ import annotations

import os
import unicodedata

import numpy as np
import pytest
from image_files import arrays, loaded, pixels, png, refused, write_parquet
from PIL import Image as PIL

SLICES = {"train_part": "train[:90%]", "held_out_part": "train[90%:]"}


def flat(value, size=4):
    """An image whose pixels say which it is: classes by hundreds."""
    return np.full((size, size, 3), value, np.uint8)


def write(folder, names):
    """One image a name; image i holds the value i everywhere."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(flat(i)).save(folder / name)
    return folder


def values(split):
    return pixels(split)[:, 0, 0, 0].tolist()


# ---------------------------------------------------------------- directories decide


def test_words_in_file_names_decide_nothing(tmp_path):
    words = ["steam_train_01", "test", "my-dev-board", "train", "eval.2", "validation_7", "TEST-3", "testing"]
    names = [f"{word}.png" for word in words] + [f"{i:03}.png" for i in range(92)]
    data = loaded(write(tmp_path / "set", names), **SLICES)
    assert [len(data.train_split), len(data.held_out_split)] == [90, 10]
    assert sorted(values(data.train_split) + values(data.held_out_split)) == list(range(100))


@pytest.mark.parametrize("train", ["train", "training", "Train"])
@pytest.mark.parametrize(
    ("other", "split"), [("test", "test"), ("val", "validation"), ("valid", "validation"), ("dev", "validation")]
)
def test_directories_named_for_splits(tmp_path, train, other, split):
    names = [f"{train}/test_{i}.png" for i in range(5)] + [f"{other}/train_{i}.png" for i in range(3)]
    data = loaded(write(tmp_path / "set", names))
    assert sorted(values(data.train_split)) == [0, 1, 2, 3, 4]
    assert sorted(values(data.held_out_split)) == [5, 6, 7]
    loaded(tmp_path / "set", held_out_part=split)


def test_a_class_may_be_called_train(tmp_path):
    names = [f"{kind}/{i}.png" for kind in ("bus", "car", "train") for i in range(4)]
    folder = write(tmp_path / "vehicles", names)
    message = refused("holds train beside bus, car", folder)
    assert f"source: {{train: {folder}}}" in message
    data = loaded(
        {"train": str(folder)}, conditional=True, **SLICES | {"train_part": "train[:9]", "held_out_part": "train[9:]"}
    )
    assert data.class_names == ["bus", "car", "train"]
    assert np.bincount(data.train_split.y).tolist() == [3, 3, 3]
    assert len(data.train_split) + len(data.held_out_split) == 12


def test_directories_beside_splits_are_not_dropped(tmp_path):
    folder = write(tmp_path / "stl", [f"{part}/{i}.png" for part in ("train", "test", "unlabeled") for i in range(3)])
    refused("holds test, train beside unlabeled", folder)
    data = loaded({part: str(folder / part) for part in ("train", "test")})
    assert (len(data.train_split), len(data.held_out_split)) == (3, 3)
    refused("holds train beside files", write(tmp_path / "loose", ["train/0.png", "1.png", "2.png"]))
    refused("holds test, testing", write(tmp_path / "twice", ["train/0.png", "test/1.png", "testing/2.png"]))


def test_what_archives_wrap_around(tmp_path):
    names = [
        f"pets/pets/{part}/{kind}/{i}.png" for part in ("train", "test") for kind in ("ant", "bee") for i in range(3)
    ]
    data = loaded(write(tmp_path / "set", [*names, "__MACOSX/pets/._0.png"]), conditional=True)
    assert (data.class_names, len(data.train_split), len(data.held_out_split)) == (["ant", "bee"], 6, 6)


def test_deeper_directories_belong_to_their_class(tmp_path):
    names = [f"{kind}/{year}/{i}.png" for kind in ("ant", "bee") for year in ("train", "test") for i in range(5)]
    data = loaded(write(tmp_path / "set", names), conditional=True, **SLICES)
    assert data.class_names == ["ant", "bee"]
    assert len(data.train_split) == 18


def test_numbered_classes_are_in_the_order_of_numbers(tmp_path):
    folder = write(tmp_path / "set", [f"{kind}/{i}.png" for kind in range(12) for i in range(2)])
    data = loaded(folder, conditional=True, train_part="train[:12]", held_out_part="train[12:]")
    assert data.class_names == [str(kind) for kind in range(12)]


# ---------------------------------------------------------------- order


def classes(tmp_path, counts):
    return write(tmp_path / "set", [f"class{c}/{i:03}.png" for c, n in enumerate(counts) for i in range(n)])


@pytest.mark.parametrize("conditional", [True, False])
def test_slices_and_subsets_of_class_folders_are_stratified(tmp_path, conditional):
    data = loaded(classes(tmp_path, [20] * 5), conditional=conditional, **SLICES)
    kinds = [
        np.bincount(np.array(values(split)) // 20, minlength=5).tolist()
        for split in (data.train_split, data.held_out_split)
    ]
    assert kinds == [[18] * 5, [2] * 5]
    some = loaded(tmp_path / "set", conditional=conditional, n=32, **SLICES)
    assert set(np.bincount(np.array(values(some.train_split)) // 20)) <= {6, 7}
    assert values(some.train_split) == values(data.train_split)[:32], "subsets are nested"
    if conditional:
        assert (some.train_split.y.numpy() == np.array(values(some.train_split)) // 20).all()


def test_unequal_classes_keep_their_shares(tmp_path):
    data = loaded(classes(tmp_path, [80, 15, 5]), conditional=True, **SLICES)
    assert np.bincount(data.train_split.y).tolist() in ([72, 13, 5], [72, 14, 4], [71, 14, 5], [72, 13, 4 + 1])
    assert data.label_shares.tolist() == pytest.approx([0.8, 0.15, 0.05], abs=0.012)


def test_the_order_is_neither_the_names_nor_the_run_s(tmp_path):
    folder = write(tmp_path / "set", [f"{i:03}.png" for i in range(60)])
    orders = [values(loaded(folder, base_seed=seed, **SLICES).train_split) for seed in (0, 1)]
    assert orders[0] == orders[1]
    assert orders[0] != sorted(orders[0])
    assert 15 < np.mean(orders[0][:30]) < 45
    assert values(loaded(folder, order="source", **SLICES).train_split) == list(range(54))
    assert "order" in refused("order='sorted'", folder, order="sorted")


def test_held_out_directories_are_in_random_order_too(tmp_path):
    names = [f"{part}/class{c}/{i:02}.png" for part in ("train", "test") for c in range(4) for i in range(8)]
    data = loaded(write(tmp_path / "set", names))
    assert np.bincount((np.array(values(data.held_out_split)[:8]) - 32) // 8).tolist() == [2, 2, 2, 2]


def test_a_conditional_training_part_without_a_class_is_refused(tmp_path):
    folder = classes(tmp_path, [20, 20, 1])
    message = refused("without any of class2 .1 of 3 classes", folder, conditional=True, n=10, **SLICES)
    assert "conditional: false" in message
    assert len(loaded(folder, n=10, **SLICES).train_split) == 10
    refused(
        "without any of class1, class2",
        folder,
        conditional=True,
        order="source",
        train_part="train[:20]",
        held_out_part="train[38:40]",
    )
    names = [*(f"train/ant/{i}.png" for i in range(3)), "test/ant/1.png", "test/bee/2.png"]
    refused("without any of bee", write(tmp_path / "unseen", names), conditional=True)


# ---------------------------------------------------------------- parquet: the hub's names, and sorted rows


def test_parquet_files_are_named_for_splits_by_all_or_none(tmp_path):
    def files(*names):
        folder = tmp_path / "-".join(names)
        for name in names:
            write_parquet(folder / name, map(png, arrays(8, hash(name) % 99)))
        return folder

    assert len(loaded(files("steam_train_0.parquet", "a.parquet"), **SLICES).train_split) == 14
    assert (
        len(loaded(files("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet")).train_split)
        == 16
    )
    refused("extra.parquet is named for no split", files("train-0.parquet", "test-0.parquet", "extra.parquet"))
    assert len(loaded(files("data/train-0.parquet", "data/test-0.parquet")).held_out_split) == 8
    both = files("en/train-0.parquet", "en/test-0.parquet", "fr/train-0.parquet", "fr/test-0.parquet")
    refused("parquet files lie in en, fr", both)
    assert len(loaded(both, config="fr").train_split) == 8
    refused("config='de'", both, config="de")
    folders = files("train/0.parquet", "train/1.parquet", "test/train.parquet")
    assert (len(loaded(folders).train_split), len(loaded(folders).held_out_split)) == (16, 8)


def test_sorted_rows_are_drawn_in_random_order_and_random_ones_stay(tmp_path):
    blobs = [png(flat(i)) for i in range(60)]
    runs, turns = [i // 20 for i in range(60)], np.random.default_rng(0).integers(3, size=60).tolist()
    write_parquet(tmp_path / "sorted" / "a.parquet", blobs, runs)
    write_parquet(tmp_path / "random" / "a.parquet", blobs, turns)
    write_parquet(tmp_path / "unknown" / "a.parquet", blobs)
    for conditional in (True, False):
        data = loaded(tmp_path / "sorted", n=30, conditional=conditional, **SLICES)
        assert np.bincount(np.array(values(data.train_split)) // 20).tolist() == [10, 10, 10]
        assert values(loaded(tmp_path / "random", conditional=conditional, **SLICES).train_split) == list(range(54))
    assert values(loaded(tmp_path / "unknown", **SLICES).train_split) == list(range(54))
    assert values(loaded(tmp_path / "unknown", order="random", **SLICES).train_split) != list(range(54))
    assert values(loaded(tmp_path / "sorted", order="source", **SLICES).train_split) == list(range(54))


def test_rows_sorted_by_a_column_that_is_no_class(tmp_path):
    import datasets

    rows = {
        "image": [{"bytes": png(flat(i)), "path": None} for i in range(60)],
        "video": [f"clip {i // 6}" for i in range(60)],
    }
    rows["number"] = list(range(60))  # sorted, and says nothing
    (tmp_path / "set").mkdir()
    features = datasets.Features(
        {"image": datasets.Image(), "video": datasets.Value("string"), "number": datasets.Value("int64")}
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / "a.parquet")
    assert values(loaded(tmp_path / "set", **SLICES).train_split) != list(range(54))
    data = loaded(tmp_path / "set", label_column="video", conditional=True, **SLICES)
    assert np.bincount(data.train_split.y).min() >= 5


def test_an_unreadable_row_is_named_as_the_source_has_it(tmp_path):
    blobs = [png(flat(i)) for i in range(40)]
    blobs[33] = b"broken"
    write_parquet(tmp_path / "set" / "a.parquet", blobs, [i // 20 for i in range(40)])
    refused("index 33 of train, 33.png", tmp_path / "set", **SLICES)
    data = loaded(tmp_path / "set", skip_unreadable=True, **SLICES)
    assert sorted(values(data.train_split) + values(data.held_out_split)) == [i for i in range(40) if i != 33]


# ---------------------------------------------------------------- names, links, other files


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
    (folder / "ant" / "6.png").symlink_to(tmp_path / "elsewhere" / "0.png")
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
            message = refused(f"{n} images given|holds|held_out_split", folder, **options)
            assert "at least" in message


@pytest.mark.parametrize("n", [4, 5, 11, 19, 20, 29])
def test_what_a_message_advises_works(tmp_path, n):
    folder = write(tmp_path / "set", [f"{i}.png" for i in range(n)])
    for options in ({}, {"held_out_part": "train"}, {"held_out_part": "train[100%:]"}, {"held_out_part": "train[-1:]"}):
        advice = refused("given", folder, **options).partition("type e.g. ")[2]
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
    refused("b given, which cannot be read .Permission denied", folder)
