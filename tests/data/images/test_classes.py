"""Labels are 0 to K - 1 of the K classes that occur, for every type of column."""

from __future__ import annotations

import json

import datasets
import pytest
import torch
from image_files import arrays, loaded, png, refused
from pyarrow import parquet


def write(folder, **splits):
    """Each split: the values of the column "kind", of the feature given with them."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, (values, feature) in splits.items():
        rows = {"picture": [{"bytes": png(a), "path": None} for a in arrays(len(values))], "kind": values}
        features = datasets.Features({"picture": datasets.Image(), "kind": feature})
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-0.parquet")
    return folder


def value(kind):
    return datasets.Value(kind)


def opened(folder, **options):
    return loaded(folder, conditional=True, label_column="kind", order="source", **options)


@pytest.mark.parametrize(
    ("values", "kind", "names", "labels"),
    [
        ([3, 900, 3, 900], "int64", ["3", "900"], [0, 1, 0, 1]),
        ([900, 3, 20, 3], "int32", ["3", "20", "900"], [2, 0, 1, 0]),
        ([1, -1, 1, -1], "int8", ["-1", "1"], [1, 0, 1, 0]),
        (["dog", "cat", "dog", "a b"], "string", ["a b", "cat", "dog"], [2, 1, 2, 0]),
        (["10", "9", "10", "9"], "string", ["9", "10"], [1, 0, 1, 0]),
        ([True, False, True, True], "bool", ["False", "True"], [1, 0, 1, 1]),
        ([2**62, 5, 5, 5], "uint64", ["5", str(2**62)], [1, 0, 0, 0]),
    ],
)
def test_numbers_with_gaps_words_and_booleans(tmp_path, values, kind, names, labels):
    data = opened(write(tmp_path / "set", train=(values, value(kind)), test=(values[:3], value(kind))))
    assert (data.num_classes, data.class_names) == (len(names), names)
    assert data.train_split.y.tolist() == labels
    assert data.held_out_split.y.tolist() == labels[:3]


def test_only_what_occurs_counts(tmp_path):
    feature = datasets.ClassLabel(names=["zebra", "ant", "newt", "bee"])
    data = opened(write(tmp_path / "set", train=([3, 0, 3, 0], feature), test=([0, 3], feature)))
    assert data.class_names == ["zebra", "bee"], "in the dataset's order"
    assert data.train_split.y.tolist() == [1, 0, 1, 0]
    assert set(data.labels_of(torch.arange(100)).tolist()) == {0, 1}


def test_splits_that_number_their_classes_differently_go_by_name(tmp_path):
    one, two = datasets.ClassLabel(names=["ant", "bee"]), datasets.ClassLabel(names=["bee", "ant"])
    data = opened(write(tmp_path / "set", train=([0, 1, 1], one), test=([0, 1], two)))
    assert data.held_out_split.y.tolist() == [1, 0]
    mixed = write(tmp_path / "mixed", train=([0, 1, 1], value("int64")), test=(["1", "0"], value("string")))
    assert opened(mixed).held_out_split.y.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("values", "feature"), [([0, None, 1], "int64"), (["a", None, "b"], "string"), ([0, -1, 1], None)]
)
def test_rows_without_a_class_are_named(tmp_path, values, feature):
    feature = value(feature) if feature else datasets.ClassLabel(names=["a", "b"])
    good = [v for v in values if v not in (None, -1)]
    refused_at = write(tmp_path / "set", train=(values, feature), test=(good, feature))
    refused("Row 1 of train has no class", refused_at, conditional=True, label_column="kind")
    turned = write(tmp_path / "turned", train=(good, feature), test=(values, feature))
    refused("Row 1 of test has no class", turned, conditional=True, label_column="kind")


def test_an_empty_word_and_a_number_without_a_name_are_no_class(tmp_path):
    kinds = value("string")
    folder = write(tmp_path / "words", train=(["a", "", "b"], kinds), test=(["a", "b"], kinds))
    refused("Row 1 of train has no class", folder, conditional=True, label_column="kind")
    numbers = write(tmp_path / "set", train=([0, 5, 1], value("int64")), test=([0, 1], value("int64")))
    named = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    for file in numbers.iterdir():  # `datasets` itself writes no such file
        told = {b"huggingface": json.dumps({"info": {"features": named.to_dict()}})}
        parquet.write_table(parquet.read_table(file).replace_schema_metadata(told), file)
    refused("Row 1 of train has no class", numbers, conditional=True)
    assert loaded(numbers).num_classes == 0


def test_of_several_columns_none_is_picked(tmp_path):
    """CIFAR-100 has fine and coarse classes, and pairs of images two of them."""
    (tmp_path / "set").mkdir()
    one, two = datasets.ClassLabel(names=["x", "y"]), datasets.ClassLabel(names=["a", "b", "c", "d"])
    features = datasets.Features({"a": datasets.Image(), "b": datasets.Image(), "fine": two, "coarse": one})
    blobs = [{"bytes": png(a), "path": None} for a in arrays(4)]
    rows = {"a": blobs, "b": blobs[::-1], "fine": [0, 1, 2, 3], "coarse": [0, 0, 1, 1]}
    for split in ("train", "test"):
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / f"{split}-0.parquet")
    assert "Set for example image_column: a" in refused("columns a, b all hold images", tmp_path / "set")
    message = refused("classes in the columns fine, coarse", tmp_path / "set", image_column="a", conditional=True)
    assert "Set label_column: fine" in message
    options = {"conditional": True, "label_column": "coarse", "order": "source"}
    data = loaded(tmp_path / "set", image_column="b", **options)
    assert data.train_split.y.tolist() == [0, 0, 1, 1]
    assert torch.equal(data.train_split.x.flip(0), loaded(tmp_path / "set", image_column="a", **options).train_split.x)
    assert loaded(tmp_path / "set", image_column="a").num_classes == 0


def test_splits_have_their_classes_in_one_column(tmp_path):
    (tmp_path / "set").mkdir()
    for split, column in (("train", "fine"), ("test", "coarse")):
        features = datasets.Features({"a": datasets.Image(), column: datasets.ClassLabel(names=["x", "y"])})
        rows = {"a": [{"bytes": png(a), "path": None} for a in arrays(2)], column: [0, 1]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "set" / f"{split}-0.parquet")
    refused("classes are in coarse of test and in fine of train", tmp_path / "set", conditional=True)


def test_a_label_column_is_looked_for_even_if_nobody_asks_for_classes(tmp_path):
    folder = write(tmp_path / "set", train=([0, 1], value("int64")), test=([0, 1], value("int64")))
    assert "leave it out" in refused("label_column='kinds' is not among", folder, label_column="kinds")
    assert loaded(folder, label_column="kind").num_classes == 0


def test_columns_that_are_no_classes(tmp_path):
    folder = write(tmp_path / "set", train=([0.5, 1.0], value("float64")), test=([0.5, 1.0], value("float64")))
    refused("holds float64", folder, conditional=True, label_column="kind")
    refused("has no class labels", folder, conditional=True)


def test_no_class_is_held_out_alone(tmp_path):
    kinds = value("string")
    folder = write(tmp_path / "set", train=(["a", "b", "a"], kinds), test=(["a", "c"], kinds))
    refused("lack 1 of 3 classes: c", folder, conditional=True, label_column="kind")
