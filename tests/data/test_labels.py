"""Labels of samples: by the training shares, each by its seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.data import Digits, FlowData, Split, seed_labels
from fm_lightning.data.labels import class_shares
from fm_lightning.errors import UserError


class Unequal(FlowData):
    """1 000 points of two classes, 95:5."""

    shape = (2,)
    num_classes = 2

    def load(self):
        y = (torch.arange(1000) % 20 == 0).long()
        x = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * 0.1 + 10 * y[:, None]
        self.train_split = self.held_out_split = self.real_split = Split(x, y)


def loaded(**options):
    data = Unequal(**options)
    data.setup()
    return data


def test_samples_have_the_shares_of_training():
    labels = loaded().labels_of(torch.arange(4000))
    assert float(labels.double().mean()) == pytest.approx(0.05, abs=4 * (0.05 * 0.95 / 4000) ** 0.5)
    assert float(loaded(label_shares="uniform").labels_of(torch.arange(4000)).double().mean()) == pytest.approx(
        0.5, abs=0.04
    )
    assert loaded(label_shares=[0, 2]).labels_of(torch.arange(50)).tolist() == [1] * 50


@settings(max_examples=50, deadline=None)
@given(
    weights=st.lists(st.sampled_from([0, 1, 5, 0.3]), min_size=1, max_size=9).filter(any),
    seeds=st.lists(st.integers(-1, 10**8), min_size=1, max_size=20),
    base=st.integers(-3, 3),
)
def test_a_label_depends_on_its_seed_and_the_base_seed_alone(weights, seeds, base):
    shares = torch.tensor(weights, dtype=torch.float64)
    together = seed_labels(torch.tensor(seeds), shares, base)
    alone = [int(seed_labels(torch.tensor([s]), shares, base)) for s in seeds]
    assert together.dtype == torch.int64
    assert together.tolist() == alone
    assert (shares[together] > 0).all()


def test_another_base_seed_draws_other_labels():
    one, two = (loaded(base_seed=b, label_shares="uniform").labels_of(torch.arange(500)) for b in (0, 1))
    assert 0.4 < float((one == two).double().mean()) < 0.6


def test_labels_are_independent_of_the_noise():
    from fm_lightning.noise import noise

    seeds = torch.arange(3000)
    labels, start = loaded(label_shares="uniform").labels_of(seeds), noise(seeds, (3,), 0)
    assert (start[labels == 1].mean(0) - start[labels == 0].mean(0)).abs().max() < 0.15


def test_unknown_training_labels_are_taken_as_uniform():
    assert class_shares("training", 4, None).tolist() == [0.25] * 4
    assert class_shares("uniform", 3, torch.tensor([0, 0, 2])).tolist() == [0.5, 0, 0.5]
    assert class_shares("training", 0, None) is None


@pytest.mark.parametrize(
    "asked", [[1.0], [1.0, 1.0, 1.0], [-1.0, 2.0], [0.0, 0.0], [float("nan"), 1.0], "often", [0.5, float("inf")]]
)
def test_shares_that_are_none(asked):
    with pytest.raises(UserError, match="label_shares"):
        loaded(label_shares=asked)


def test_shares_of_what_training_never_saw():
    with pytest.raises(UserError, match="samples class 1"):
        class_shares([0.5, 0.5], 2, torch.tensor([0, 0]))
    with pytest.raises(UserError, match="needs classes"):
        class_shares([0.5, 0.5], 0, None)


def test_a_perfect_model_of_unequal_classes_is_near_the_real_samples():
    """A distance of 34 with labels in turns became one of 0.01."""
    from fm_lightning.metrics import frechet_distance, moments

    data = loaded()
    labels = data.labels_of(torch.arange(2000))
    samples = torch.randn(2000, 2, generator=torch.Generator().manual_seed(1)) * 0.1 + 10 * labels[:, None]
    assert frechet_distance(*moments(samples), *moments(data.real())) < 0.5


def test_seeds_that_do_not_reach_all_classes_say_so(capsys):
    data = Digits(100, conditional=True)
    data.setup()
    data._share = lambda: None
    reached = len(data.labels_of(torch.arange(7)).unique())
    data._seeds(0, 7)
    assert f"{10 - reached} of 10 classes get none of the 7 seeds" in capsys.readouterr().out
    data._seeds(0, 1000)
    assert capsys.readouterr().out == ""
    left_out = set()
    for base in range(4):
        data.base_seed = base
        left_out.add(frozenset(np.setdiff1d(np.arange(10), data.labels_of(torch.arange(7)).numpy())))
    assert len(left_out) > 1, "not the same classes in every run"
