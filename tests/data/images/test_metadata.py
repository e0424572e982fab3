"""Metadata files of image folders: what they say of an image counts, and nothing is guessed, dropped or taken twice."""

from __future__ import annotations

import json

import pytest
from image_files import arrays, loaded, png, refused

from fm_lightning.data.images.source import open_source

FLAT = [f"{i}.png" for i in range(8)]
TREE = [f"{split}/{kind}/{i}.png" for split in ("train", "test") for kind in ("ant", "bee") for i in range(3)]
SLICES = {"train_part": "train[:6]", "held_out_part": "train[6:]"}


def write(folder, names, text=None, file="metadata.csv"):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(arrays(1)[0]))
    if text is not None:
        (folder / file).write_bytes(text.encode())
    return folder


def table(names, values, column="label"):
    return f"file_name,{column}\n" + "".join(f"{name},{value}\n" for name, value in zip(names, values))


def kinds(source, split="train", column="label"):
    """File name -> class, as the dataset has them."""
    data = open_source(str(source))[split].dataset
    names = data.features[column].names if column == "label" else None
    paths = data.data.column("image").to_pylist()
    return {
        path["path"].removeprefix(f"{source}/"): names[value] if names else value
        for path, value in zip(paths, data[column])
    }


VALUES = ["cat", "dog", "dog", "cat", "cat", "dog", "cat", "dog"]


@pytest.mark.parametrize("form", ["plain", "bom and crlf", "shuffled", "./", "absolute"])
def test_labels_go_with_their_files(tmp_path, form):
    source = tmp_path / "set"
    rows = list(zip(FLAT, VALUES))
    if form == "shuffled":
        rows = rows[::-1]
    prefix = {"./": "./", "absolute": f"{source}/"}.get(form, "")
    text = table([prefix + name for name, _ in rows], [value for _, value in rows])
    write(source, FLAT, "\ufeff" + text.replace("\n", "\r\n") if form == "bom and crlf" else text)
    assert kinds(source) == dict(zip(FLAT, VALUES))
    data = loaded(source, conditional=True, order="source", **SLICES)
    assert data.class_names == ["cat", "dog"]
    assert data.train_split.y.tolist() == [0, 1, 1, 0, 0, 1]
    assert data.held_out_split.y.tolist() == [0, 1]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_each_split_may_have_its_own(tmp_path, suffix):
    import pyarrow as pa
    from pyarrow import parquet

    for split, values in (("train", [7, 30, 7, 30, 7, 30, 30, 30]), ("test", [30, 7] * 4)):
        place = write(tmp_path / "set" / split, FLAT)
        rows = [{"file_name": name, "label": value} for name, value in zip(FLAT, values)]
        if suffix == "parquet":
            parquet.write_table(pa.Table.from_pylist(rows), place / "metadata.parquet")
        else:
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (place / f"metadata.{suffix}").write_text(table(FLAT, values) if suffix == "csv" else lines)
    for source in (tmp_path / "set", {split: str(tmp_path / "set" / split) for split in ("train", "test")}):
        data = loaded(source, conditional=True, order="source")
        assert data.class_names == ["7", "30"], "in the order of numbers"
        assert data.train_split.y.tolist() == [0, 1, 0, 1, 0, 1, 1, 1]
        assert data.held_out_split.y.tolist() == [1, 0] * 4


def test_labels_count_and_directories_are_a_column(tmp_path):
    values = ["x", "y"] * 6
    source = write(tmp_path / "set", TREE, table(TREE, values))
    assert kinds(source) | kinds(source, "test") == dict(zip(TREE, values))
    assert loaded(source, conditional=True).class_names == ["x", "y"]
    assert loaded(source, conditional=True, label_column="directory").class_names == ["ant", "bee"]


def test_of_directories_and_another_column_none_is_picked(tmp_path):
    source = write(tmp_path / "set", TREE, table(TREE, ["x", "y"] * 6, "sex"))
    message = refused("no class labels", source, conditional=True)
    assert "image (Image), sex (string), directory (string)" in message
    assert loaded(source, conditional=True, label_column="sex").class_names == ["x", "y"]
    assert loaded(source, conditional=True, label_column="directory").class_names == ["ant", "bee"]
    assert loaded(source).num_classes == 0


def test_names_are_relative_to_the_file(tmp_path):
    inner = [f"pictures/{name}" for name in FLAT]
    above = write(tmp_path / "above", inner, table(inner, VALUES))
    assert kinds(above) == dict(zip(inner, VALUES))
    nested = write(tmp_path / "nested", inner)
    (nested / "pictures" / "metadata.csv").write_text(table(FLAT, VALUES))
    assert kinds(nested) == dict(zip(inner, VALUES))


def test_numbers_as_written(tmp_path):
    source = write(tmp_path / "set", FLAT, table(FLAT, ["10", "2", "007", "10", "2", "007", "2", "10"]))
    data = loaded(source, conditional=True, order="source", **SLICES)
    assert (data.class_names, data.train_split.y.tolist()) == (["2", "007", "10"], [2, 0, 1, 2, 0, 1])
    source = write(tmp_path / "floats", FLAT, table(FLAT, [0.5, 1, 1, 1, 0.5, 1, 1, 1]))
    refused("holds float64", source, conditional=True, label_column="label", **SLICES)


def test_an_image_without_a_class(tmp_path):
    source = write(tmp_path / "set", FLAT, table(FLAT, [*VALUES[:-1], ""]))
    refused("Row 7 of train, .*/7.png has no class", source, conditional=True, **SLICES)
    assert len(loaded(source, **SLICES).train_split) == 6


def test_text_with_commas_and_line_breaks(tmp_path):
    text = "file_name,text,label\n" + "".join(f'{n},"a, b\nc",{v}\n' for n, v in zip(FLAT, VALUES))
    assert kinds(write(tmp_path / "set", FLAT, text)) == dict(zip(FLAT, VALUES))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (table([*FLAT, "gone.png"], [*VALUES, "cat"]), "Row 8 of .* names 'gone.png', but there is no such image"),
        (table([*FLAT, ""], [*VALUES, "cat"]), "Row 8 of .* names '', but there is no such image"),
        (table(FLAT[:5], VALUES), r"no row for 3 of 8 images, for example .*/5.png"),
        (table([*FLAT, "0.png"], [*VALUES, "dog"]), "Row 8 of .* names '0.png', but an earlier row names it"),
        (table(FLAT, VALUES).replace("file_name", "isic_id"), "needs a column file_name .*but has isic_id, label"),
        (table(FLAT, VALUES).replace(",", ";"), "needs a column file_name .*but has file_name;label"),
        (table(FLAT, VALUES, "image"), "none called image"),
        (table(FLAT, VALUES) + "8.png,a,b\n", "more or fewer cells"),
        (table(FLAT, VALUES, "label,label").replace("png,", "png,x,"), "named twice"),
        ("file_name,label\n", "but has no columns"),
        ("", "but has no columns"),
    ],
)
def test_what_does_not_fit_its_images(tmp_path, text, words):
    message = refused(words, write(tmp_path / "set", FLAT, text), **SLICES)
    assert "metadata.csv" in message
    assert "to leave it out" in message


def test_files_that_are_no_tables(tmp_path):
    for i, (file, text) in enumerate(
        [("metadata.jsonl", '{"file_name"'), ("metadata.jsonl", "[1]"), ("metadata.parquet", "x" * 99)]
    ):
        refused(f"Cannot read .*{file}", write(tmp_path / str(i), FLAT, text, file), **SLICES)
    latin = write(tmp_path / "latin", FLAT)
    (latin / "metadata.csv").write_bytes(table(FLAT, ["ä"] * 8).encode("latin1"))
    refused("Cannot read .*'utf-8' codec", latin, **SLICES)
    lines = "\n".join(json.dumps({"file_name": name, "age": [1, "old"][i % 2]}) for i, name in enumerate(FLAT))
    refused("column 'age' mixes types", write(tmp_path / "mixed", FLAT, lines, "metadata.jsonl"))


def test_other_files_say_nothing(tmp_path):
    source = write(tmp_path / "set", TREE, "no table", "my_metadata.csv")
    assert loaded(source, conditional=True).class_names == ["ant", "bee"]


@pytest.mark.parametrize(("one", "two"), [("ant", "ant "), ("caf\u00e9", "cafe\u0301"), ("sea lion", "sea  lion")])
def test_two_spellings_of_one_class_are_refused(tmp_path, one, two):
    values = [one, two] * 4
    source = write(tmp_path / "set", FLAT, table(FLAT, values))
    message = refused("differ only in blanks or Unicode form", source, conditional=True, **SLICES)
    assert ascii(two) in message
    assert loaded(source, **SLICES).num_classes == 0, "no classes were requested"
