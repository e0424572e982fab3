"""Orders: fair in every stretch, nested, the same for ever; and which orders chance could have made."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.data.order import fixed_order, in_random_order, stratified_order

some_labels = st.lists(st.integers(-3, 4), min_size=1, max_size=80).map(np.array)


@given(some_labels)
def test_every_row_once(labels):
    for known in (labels, None):
        assert sorted(stratified_order(known, len(labels))) == list(range(len(labels)))


@given(some_labels, st.integers(0, 80), st.integers(0, 80))
@settings(max_examples=200)
def test_any_stretch_has_each_class_s_share_to_within_one(labels, a, b):
    n = len(labels)
    start, stop = sorted((min(a, n), min(b, n)))
    stretch = labels[stratified_order(labels, n)[start:stop]]
    for label in np.unique(labels):
        share = (labels == label).mean() * (stop - start)
        # Whoever stands at the ends is one of every class: a rounding for each.
        assert abs((stretch == label).sum() - share) <= 1 + len(np.unique(labels)) * (labels == label).mean()


def test_ninety_ten_of_five_sorted_classes():
    labels = np.repeat(np.arange(5), 20)
    drawn = labels[stratified_order(labels, 100)]
    assert np.bincount(drawn[:90]).tolist() == [18] * 5
    assert np.bincount(drawn[90:]).tolist() == [2] * 5
    assert set(np.bincount(drawn[:32])) <= {6, 7}


def test_orders_are_random_within_a_class_and_among_ties():
    labels = np.repeat(np.arange(5), 200)
    order = stratified_order(labels, 1000)
    within = order[labels[order] == 2]
    assert abs(np.corrcoef(within, np.arange(200))[0, 1]) < 0.2
    firsts = labels[order].reshape(-1, 5)[:, 0]
    assert np.bincount(firsts, minlength=5).min() > 20


def test_orders_stay_as_they_are():
    assert fixed_order(8).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert stratified_order(np.array([0, 0, 0, 0, 1, 1, 1, 1]), 8).tolist() == [3, 6, 7, 2, 1, 4, 0, 5]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("counts", [[500, 500], [950, 50], [100] * 10, [7, 1, 400, 30]])
def test_chance_is_recognised(seed, counts):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    assert in_random_order(labels)


@pytest.mark.parametrize(
    "labels",
    [
        [0, 0, 0, 1, 1, 1],
        [1, 1, 0, 0],
        np.repeat(np.arange(100), 3),
        np.repeat(np.arange(1000)[::-1], 2),
        np.repeat(np.tile(np.arange(10), 5), 8),  # shards, sorted in themselves
        np.concatenate([np.zeros(900), np.random.default_rng(0).permutation(np.repeat([0, 1], 50))]),
    ],
)
def test_runs_are_seen(labels):
    assert not in_random_order(np.asarray(labels))


@pytest.mark.parametrize(
    "labels", [[], [3], [3, 3, 3], list(range(50)), np.tile(np.arange(10), 30), [0, 1, 1, 0, 1, 0]]
)
def test_what_says_nothing_is_left_as_it_is(labels):
    assert in_random_order(np.asarray(labels))


def test_the_test_s_size_on_random_permutations():
    """The standardised number of runs has mean 0 and deviation 1: the closed form is right."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [50, 30, 15, 5])
    runs = [1 + (np.diff(rng.permutation(labels)) != 0).sum() for _ in range(4000)]
    n, c = 100, np.bincount(labels).astype(float)
    expected = n + 1 - (c**2).sum() / n
    s2, s3 = (c**2).sum(), (c**3).sum()
    deviation = ((s2 * (s2 + n * (n + 1)) - 2 * n * s3 - n**3) / (n**2 * (n - 1))) ** 0.5
    assert np.mean(runs) == pytest.approx(expected, abs=4 * deviation / 4000**0.5)
    assert np.std(runs) == pytest.approx(deviation, rel=0.05)
