"""Folders: directories alone decide, subsets and slices are fair draws, under any names of files and directories."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import arrays, flat, loaded, png, refused, values, write_parquet
from image_files import write_images as write

SLICES = {"train_part": "train[:90%]", "held_out_part": "train[90%:]"}


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
    message = refused("holds train, named for splits, and bus, car", folder)
    assert f"source: {{train: {folder}}}" in message
    data = loaded(
        {"train": str(folder)}, conditional=True, **SLICES | {"train_part": "train[:9]", "held_out_part": "train[9:]"}
    )
    assert data.class_names == ["bus", "car", "train"]
    assert np.bincount(data.train_split.y).tolist() == [3, 3, 3]
    assert len(data.train_split) + len(data.held_out_split) == 12


def test_directories_beside_splits_are_not_dropped(tmp_path):
    folder = write(tmp_path / "stl", [f"{part}/{i}.png" for part in ("train", "test", "unlabeled") for i in range(3)])
    refused("holds test, train, named for splits, and unlabeled", folder)
    data = loaded({part: str(folder / part) for part in ("train", "test")})
    assert (len(data.train_split), len(data.held_out_split)) == (3, 3)
    refused("holds train, named for splits, and files", write(tmp_path / "loose", ["train/0.png", "1.png", "2.png"]))
    refused(
        "holds test and testing, both named for test",
        write(tmp_path / "twice", ["train/0.png", "test/1.png", "testing/2.png"]),
    )


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
    message = refused("lack 1 of 3 classes: class2", folder, conditional=True, n=10, **SLICES)
    assert "conditional: false" in message
    assert len(loaded(folder, n=10, **SLICES).train_split) == 10
    refused(
        "lack 2 of 3 classes: class1, class2",
        folder,
        conditional=True,
        order="source",
        train_part="train[:20]",
        held_out_part="train[38:40]",
    )
    names = [*(f"train/ant/{i}.png" for i in range(3)), "test/ant/1.png", "test/bee/2.png"]
    refused("lack 1 of 2 classes: bee", write(tmp_path / "unseen", names), conditional=True)


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
    refused("extra.parquet is not named for a split", files("train-0.parquet", "test-0.parquet", "extra.parquet"))
    assert len(loaded(files("data/train-0.parquet", "data/test-0.parquet")).held_out_split) == 8
    both = files("en/train-0.parquet", "en/test-0.parquet", "fr/train-0.parquet", "fr/test-0.parquet")
    refused("are in en, fr", both)
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
