"""What is wrong with a split is said at setup, with the split's name and the row; what can be converted is."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from fm_lightning.data import Digits, FlowData, Split
from fm_lightning.errors import UserError

NAMES = ["train_split", "held_out_split", "real_split"]


def good(n=6, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 4, 3, 3)).astype(np.float32)


class Mine(FlowData):
    """Latents from elsewhere, with the given splits."""

    shape = (4, 3, 3)

    def __init__(self, splits=None, num_classes=0, **options):
        super().__init__(**options)
        usual = {name: Split(torch.from_numpy(good(seed=i))) for i, name in enumerate(NAMES)}
        self.given, self.num_classes = usual | (splits or {}), num_classes

    def load(self):
        for name, split in self.given.items():
            if split is not None:
                setattr(self, name, split)


def loaded(splits=None, **options):
    data = Mine(splits, **options)
    data.setup()
    return data


def refused(match, splits=None, **options):
    with pytest.raises(UserError, match=match) as caught:
        loaded(splits, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_not_finite(name, value):
    x = good(9)
    x[7, 0, 1, 1] = value
    refused(f"Row 7 of {name} has NaN", {name: Split(torch.from_numpy(x))})


@pytest.mark.parametrize("name", NAMES)
def test_missing_empty_short_and_other_things(name):
    refused(f"{name} is missing", {name: None})
    refused(f"{name} is of type Tensor", {name: torch.zeros(5, 4, 3, 3)})
    refused(f"{name} has the shape .0, 4, 3, 3.", {name: Split(torch.zeros(0, 4, 3, 3))})
    refused(f"Samples of {name} have the shape .4, 3.", {name: Split(torch.zeros(5, 4, 3))})
    refused(f"{name} must be numbers, but is list", {name: Split([[1.0], [2.0]])})
    refused(f"{name} must be numbers, but is an array of object", {name: Split(np.array([[None], [1]]))})
    refused(f"{name} has the shape .5.", {name: Split(torch.zeros(5))})


def test_one_sample_can_be_trained_on_but_not_compared_with():
    one = Split(torch.from_numpy(good(1)))
    assert len(loaded({"train_split": one}).train_split) == 1
    for name in NAMES[1:]:
        refused(f"{name} has the shape .1, 4, 3, 3.. It needs at least 2", {name: one})


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8"])
def test_arrays_of_any_precision_are_taken(dtype):
    splits = {name: Split(good(seed=3).astype(dtype)) for name in NAMES}
    data = loaded(splits)
    assert data.reference().dtype == torch.float32
    np.testing.assert_array_equal(data.reference().numpy(), good(seed=3).astype(dtype).astype(np.float32))
    assert data.held_out().dtype == data.real().dtype == torch.float32


def test_bfloat16_and_mapped_files(tmp_path):
    np.save(tmp_path / "x.npy", good(50))
    mapped = Split(np.load(tmp_path / "x.npy", mmap_mode="r"))
    half = Split(torch.from_numpy(good()).bfloat16())
    data = loaded({"train_split": mapped, "real_split": half})
    assert data.real().dtype == torch.float32
    assert (data.reference(torch.tensor([3, 49])).numpy() == good(50)[[3, 49]]).all()


def test_whole_numbers_need_an_encoding():
    pixels = Split(torch.zeros(5, 4, 3, 3, dtype=torch.uint8))
    assert "encode()" in refused("of type uint8", {"train_split": pixels})


def test_an_encoding_that_makes_nan(monkeypatch):
    monkeypatch.setattr(Mine, "encode", lambda self, x: x / 0 * 0)
    refused("into NaN")


def test_labels():
    def labelled(train, held_out=(0, 1), real=(0, 1)):
        given = dict(zip(NAMES, (train, held_out, real)))
        return {
            n: Split(torch.from_numpy(good(len(y))), y if not isinstance(y, tuple) else torch.tensor(y))
            for n, y in given.items()
        }

    for y in (np.array([0, 1, 1], "u1"), torch.tensor([0, 1, 1], dtype=torch.int32), np.array([False, True, True])):
        assert loaded(labelled(y), num_classes=2).train_split.y.dtype == torch.int64
    refused("Row 2 of train_split has the label 2.*without gaps", labelled((0, 1, 2)), num_classes=2)
    refused("Row 1 of train_split has the label 2.*Subtract 1", labelled((1, 2), (1, 2), (2, 1)), num_classes=2)
    refused("Row 0 of real_split has the label -1", labelled((0, 1), real=(-1, 1)), num_classes=2)
    refused("Row 1 of held_out_split has class 1, which no", labelled((0, 0)), num_classes=2)
    refused("train_split has labels, and num_classes=0", labelled((0, 1)))
    refused("train_split has no labels, and num_classes=2", num_classes=2)
    refused("float32 and shape .2., for 2 samples.*long", labelled(torch.tensor([0.0, 1.0])), num_classes=2)
    refused("shape .2, 1.*Flatten", labelled(torch.tensor([[0], [1]])), num_classes=2)
    refused("shape .2, 2.*argmax", labelled(torch.eye(2).long()), num_classes=2)
    refused("array of <U3.*return_inverse", labelled(np.array(["cat", "dog"])), num_classes=2)
    assert loaded(labelled((0, 0), (0, 0), (0, 0)), num_classes=1).label_shares.tolist() == [1]
    short = labelled((0, 1)) | {"train_split": Split(torch.from_numpy(good(3)), torch.tensor([0, 1]))}
    refused("labels of train_split .* for 3 samples", short, num_classes=2)


def test_a_shape_that_is_missing_or_no_shape():
    for shape in (None, (4, 0, 3), (4.0,)):
        with pytest.raises(UserError, match="shape="):
            type("Other", (Mine,), {"shape": shape})().setup()


def test_digits_of_fewer_classes_than_there_are():
    with pytest.raises(UserError, match="which no training sample has"):
        Digits(5, conditional=True).setup()
    Digits(5).setup()


def test_pixels_are_asked_of_the_data():
    class Pictures(Mine):
        def to_uint8(self, x):
            return x.byte()

    assert not loaded().has_pixels
    assert Pictures().has_pixels
    assert Digits().has_pixels
    with pytest.raises(TypeError, match="Mine has no pixels"):
        loaded().to_uint8(torch.zeros(1, 4, 3, 3))


# ---------------------------------------------------------------- floors and fingerprints


def test_a_floor_of_sorted_samples_is_drawn_from_all_classes():
    y = torch.arange(5).repeat_interleave(20)
    x = y[:, None, None, None].expand(100, 4, 3, 3).float()
    data = loaded({name: Split(x, y) for name in NAMES}, num_classes=5)
    floor = data.floor(data.held_out_split)
    assert np.bincount(floor[torch.arange(10)][:, 0, 0, 0].long()).tolist() == [2] * 5
    assert torch.equal(torch.cat(list(floor.split(7)))[:, 0, 0, 0].sort().values, y.float())
    shuffled = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    kept = data.floor(Split(x[shuffled], y[shuffled]))
    assert torch.equal(kept[:10], x[shuffled][:10])


def test_fingerprints_change_with_what_they_name():
    def named(change=lambda data: None, **options):
        data = Mine(**options)
        change(data)
        data.setup()
        return data.fingerprint, data.comparison_fingerprint

    def other(name):
        def change(data):
            x = data.given[name].x.clone()
            x[5, 3, 2, 2] += 1e-6
            data.given[name] = Split(x)

        return change

    base = named()
    assert named() == base
    assert re.fullmatch(r"[0-9a-f]{16}", base[0])
    for name, same in (("train_split", 1), ("held_out_split", 0), ("real_split", 0)):
        found = named(other(name))
        assert found[same] == base[same]
        assert found[1 - same] != base[1 - same]
    assert named(lambda data: setattr(data, "flip", True))[0] != base[0]
    assert named(lambda data: setattr(data, "encode", lambda x: x * 2))[0] != base[0]
    shapes = Mine({name: Split(torch.from_numpy(good()).reshape(6, 4, 9)) for name in NAMES})
    shapes.shape = (4, 9)
    shapes.setup()
    assert shapes.fingerprint != base[0]
    y = torch.zeros(6, dtype=torch.int64)
    labelled = loaded({name: Split(torch.from_numpy(good()), y) for name in NAMES}, num_classes=1)
    assert labelled.fingerprint != loaded({name: Split(torch.from_numpy(good())) for name in NAMES}).fingerprint
