"""Axes and points of a study."""

import pytest

from fm_lightning.errors import UserError
from fm_lightning.study.axes import check_axes, points, short_names

AXES = {"data.init_args.n": [25, 50], "model.net.init_args.width": [64], "seed_everything": [0, 1]}


def test_every_combination_once_with_a_name_of_its_own():
    found = list(points(AXES))
    assert [point.name for point in found] == [
        "n25-width64-seed0",
        "n50-width64-seed0",
        "n25-width64-seed1",
        "n50-width64-seed1",
    ]
    assert found[2].values == {"data.init_args.n": 25, "model.net.init_args.width": 64, "seed_everything": 1}


def test_names_tell_apart_what_ends_alike():
    assert short_names(["model.optimizer.init_args.decay", "trainer.callbacks.EMA.decay", "seed_everything"]) == {
        "model.optimizer.init_args.decay": "optimizer_decay",
        "trainer.callbacks.EMA.decay": "EMA_decay",
        "seed_everything": "seed",
    }
    (point,) = points({"data": ["fm_lightning.data.Digits"], "model.optimizer.init_args.lr": [0.001]})
    assert point.name == "dataDigits-lr0.001"


@pytest.mark.parametrize(
    ("axes", "says"),
    [
        ({}, "no axes"),
        ({"data.init_args.n": 25}, "no list of values"),
        ({"data.init_args.n": []}, "no list of values"),
        ({"data.init_args.n": [25, 25]}, "repeats a value"),
        ({"trainer.max_steps": [10, 20]}, "trains some runs longer"),
        ({"model.net": [{"class_path": "a.b.C", "init_args": {"c": c}} for c in (1, 2)]}, "would name their runs 'C'"),
    ],
)
def test_refused(axes, says):
    with pytest.raises(UserError, match=says):
        check_axes(axes)
