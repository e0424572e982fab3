"""Labels are 0 to K - 1 of the K classes that occur, whatever a column holds."""

from __future__ import annotations

import datasets
import pytest
import torch
from image_files import arrays, loaded, png, refused


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
    refused("no class given in row 1 of train", refused_at, conditional=True, label_column="kind")
    turned = write(tmp_path / "turned", train=(good, feature), test=(values, feature))
    refused("no class given in row 1 of test", turned, conditional=True, label_column="kind")


def test_columns_that_are_no_classes(tmp_path):
    folder = write(tmp_path / "set", train=([0.5, 1.0], value("float64")), test=([0.5, 1.0], value("float64")))
    refused("holds float64", folder, conditional=True, label_column="kind")
    refused("has no class labels", folder, conditional=True)


def test_no_class_is_held_out_alone(tmp_path):
    kinds = value("string")
    folder = write(tmp_path / "set", train=(["a", "b", "a"], kinds), test=(["a", "c"], kinds))
    refused("without any of c .1 of 3 classes", folder, conditional=True, label_column="kind")
