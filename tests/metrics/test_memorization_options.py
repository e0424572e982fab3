"""Mirror images, near-duplicates and the k-th neighbour, against brute force in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.metrics import MemorizationRate, Reference, find_groups, nearest, nearest_distinct
from fm_lightning.metrics.memorization import ratio
from fm_lightning.trajectory import Trajectory


def trajectory(x1):
    n = len(x1)
    return Trajectory(
        x1=x1,
        energy=torch.zeros(1, n),
        field_energy=torch.zeros(n),
        displacement=torch.zeros(n),
        times=torch.linspace(0, 1, 2, dtype=torch.float64),
        gain=torch.ones(1, dtype=torch.float64),
        nfe=1,
        seeds=torch.arange(n),
    )


def measure(samples, reference, **options):
    metric = MemorizationRate(reference, **options)
    metric.update(trajectory(samples))
    return metric.compute(), metric.per_seed()


def images(n, seed=0, shape=(2, 3, 4)):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, *shape))).float()


def far(a, b, mirrored=False):
    """[q, n] distances in float64, to the nearer of each image and its mirror image."""

    def plain(x):
        return (x.double().flatten(1)[:, None] - b.double().flatten(1)[None]).square().sum(2).sqrt().numpy()

    return np.minimum(plain(a), plain(a.flip(-1))) if mirrored else plain(a)


def brute_groups(reference, relative, mirrored=False):
    d = far(reference, reference, mirrored)
    n = len(d)
    others = d + np.diag(np.full(n, np.inf))
    limit = relative * np.sort(others.min(1))[(n - 1) // 2]
    leader = []
    for i in range(n):
        near = [j for j in range(i) if leader[j] == j and (d[i, j] < limit or d[i, j] == 0)]
        leader.append(min(near, key=lambda j: (d[i, j], j)) if near else i)
    return leader


def brute_neighbours(samples, reference, k, mirrored=False, leader=None):
    leader = list(range(len(reference))) if leader is None else leader
    out, index = [], []
    for row in far(samples, reference, mirrored):
        best = {}
        for j in np.argsort(row, kind="stable"):
            best.setdefault(leader[j], (row[j], j))
        nearest_ones = sorted(best.values())[:k]
        out.append([d for d, _ in nearest_ones])
        index.append([int(j) for _, j in nearest_ones])
    return np.array(out), np.array(index)


def clumped(n, seed, shape=(2, 3, 4)):
    """Images of which some are near-duplicates, exact copies, mirrored copies or symmetric."""
    rng = np.random.default_rng(seed)
    reference = images(n, seed, shape)
    for i in range(1, n):
        other = reference[int(rng.integers(i))]
        kind = rng.integers(6)
        if kind == 0:
            reference[i] = other + 0.02 * reference[i]
        elif kind == 1:
            reference[i] = other.flip(-1) + 0.02 * reference[i]
        elif kind == 2 and i % 3 == 0:
            reference[i] = other
        elif kind == 3:
            reference[i] = (reference[i] + reference[i].flip(-1)) / 2
    return reference


def near_copies(reference, n, seed):
    rng = np.random.default_rng(seed)
    pick = reference[torch.from_numpy(rng.integers(len(reference), size=n))]
    pick = torch.where(torch.from_numpy(rng.random(n) < 0.5)[:, None, None, None], pick, pick.flip(-1))
    scale = torch.from_numpy(rng.choice([1e-3, 0.1, 0.5, 2.0], size=n)).float()[:, None, None, None]
    return pick + scale * torch.from_numpy(rng.standard_normal(pick.shape)).float()


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(4, 40), k=st.integers(1, 5), mirrored=st.booleans(), grouped=st.booleans(), seed=st.integers(0, 10**6)
)
def test_different_neighbours_equal_brute_force(n, k, mirrored, grouped, seed):
    reference = clumped(n, seed)
    samples = near_copies(reference, 30, seed + 1)
    prepared = Reference(reference)
    groups = find_groups(prepared, 0.4, mirrored=mirrored) if grouped else None
    leader = brute_groups(reference, 0.4, mirrored) if grouped else None
    if grouped:
        assert groups.leader.tolist() == leader
        k = min(k, len(set(leader)))
    k = min(k, n)
    distances, index = nearest_distinct(samples, prepared, k, mirrored=mirrored, groups=groups)
    wanted, where = brute_neighbours(samples, reference, k, mirrored, leader)
    np.testing.assert_allclose(distances.numpy(), wanted, rtol=1e-5, atol=1e-6)
    # A symmetric image and exact copies are equally far: there another index is as good.
    other = index.numpy() != where
    reached = np.take_along_axis(far(samples, reference, mirrored), index.numpy(), 1)
    np.testing.assert_allclose(reached[other], wanted[other], rtol=1e-5, atol=1e-6)


def test_defaults_are_the_plain_nearest_two_bit_for_bit():
    reference, samples = images(50), images(80, 1)
    distances, index = nearest(samples, reference, 2)
    _, rows = measure(samples, reference)
    assert torch.equal(ratio(rows), distances[:, 0] / distances[:, 1])
    assert torch.equal(rows["nearest"], index[:, 0])
    names = set(measure(samples, reference)[0])
    assert not names & {"f_mem_k", "nn_ratio_k_median", "near_duplicates"}


def test_a_mirrored_copy_counts_only_if_asked_and_names_the_image():
    reference = images(20)
    samples = reference[5:15].flip(-1) + 0.01
    assert measure(samples, reference)[0]["f_mem"] == 0.0
    values, rows = measure(samples, reference, mirrored=True)
    assert values["f_mem"] == 1.0
    assert rows["nearest"].tolist() == list(range(5, 15))


def test_a_symmetric_image_is_not_its_own_second_neighbour():
    """With all mirror images simply searched as well, d1 = d2 here and no copy would be seen."""
    reference = images(20)
    reference[3] = (reference[3] + reference[3].flip(-1)) / 2
    sample = reference[3:4] + 0.01 * images(1, 9)
    twice = nearest(sample, torch.cat([reference, reference.flip(-1)]), 2)[0][0]
    assert twice[0] == twice[1]
    values, rows = measure(sample, reference, mirrored=True)
    assert values["f_mem"] == 1.0
    assert rows["nearest"].tolist() == [3]


def test_near_duplicates_hide_copies_until_they_are_left_out():
    reference = images(40)
    reference[30:33] = reference[7] + 1e-2 * images(3, 5)
    samples = reference[[7, 30, 31, 32]] + 1e-2 * images(4, 6)
    plain, _ = measure(samples, reference)
    assert plain["f_mem"] == 0.0
    values, rows = measure(samples, reference, leave_out_duplicates=0.3)
    assert values["f_mem"] == 1.0
    assert values["near_duplicates"] == 3
    assert rows["nearest"].tolist() == [7] * 4
    assert measure(samples, reference, k=5)[0]["f_mem_k"] == 1.0
    assert measure(samples, reference, k=4)[0]["f_mem_k"] == 0.0, "four alike fool the fourth neighbour"


def test_the_k_th_ratio_is_reported_beside_and_equals_brute_force():
    reference = clumped(30, 3)
    samples = near_copies(reference, 60, 4)
    plain, _ = measure(samples, reference)
    values, rows = measure(samples, reference, k=4)
    assert all(values[name] == plain[name] for name in plain)
    d, _ = brute_neighbours(samples, reference, 4)
    np.testing.assert_allclose(ratio(rows, 4).numpy(), d[:, 0] / d[:, 3], rtol=1e-4)
    assert values["f_mem_k"] == pytest.approx((d[:, 0] / d[:, 3] < 1 / 3).mean())
    assert values["f_mem_k"] >= values["f_mem"]


def test_more_exact_copies_than_neighbours_looked_at():
    reference = torch.cat([images(10), images(1, 2).expand(40, -1, -1, -1)])
    groups = find_groups(Reference(reference), 0.3)
    assert groups.near_duplicates == 39
    assert groups.leader[10:].tolist() == [10] * 40
    values, _ = measure(reference[20:22] + 1e-3, reference, leave_out_duplicates=0.3)
    assert values["f_mem"] == 1.0


def test_only_exact_copies_where_over_half_of_all_are_copies():
    reference = torch.cat([images(3)] * 4)
    assert find_groups(Reference(reference), 0.5).near_duplicates == 9


def test_a_group_does_not_grow_along_a_chain():
    """Points 1 apart in a row, pairs of others 4 apart: each is near the next, yet one does not stand for all."""
    chain = torch.arange(8.0)[:, None] * 0.3
    lone = 100 + 4 * torch.arange(20.0)[:, None]
    groups = find_groups(Reference(torch.cat([chain, lone])), 0.1)
    assert groups.distance == pytest.approx(0.4)
    assert groups.leader[:8].tolist() == [0, 0, 2, 2, 4, 4, 6, 6]


def test_pixels_encoded_when_read_give_the_same_bits():
    stored = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 3, 4, 4), dtype=np.uint8))

    def encode(x):
        return x.float().div_(127.5).sub_(1)

    samples = encode(stored[:40]) + 0.1 * images(40, 1, (3, 4, 4))
    whole = nearest(samples, Reference(encode(stored)), 3)
    lazy = nearest(samples, Reference(stored, encode=encode), 3, budget=100_000)
    mapped = nearest(samples, Reference(stored.numpy(), encode=encode), 3)
    for got in (lazy, mapped):
        assert torch.equal(got[0], whole[0])
        assert torch.equal(got[1], whole[1])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"k": 1}, "k=1"),
        ({"k": 21}, "k=21"),
        ({"leave_out_duplicates": 0.0}, "leave_out_duplicates=0"),
        ({"leave_out_duplicates": 1.5}, "leave_out_duplicates=1.5"),
    ],
)
def test_options_out_of_range(options, named):
    with pytest.raises(UserError, match=named) as caught:
        MemorizationRate(images(20), **options)
    assert "\n" not in str(caught.value)


def test_points_have_no_mirror_image():
    with pytest.raises(UserError, match="mirrored"):
        measure(torch.randn(4, 2), torch.randn(9, 2), mirrored=True)


def test_a_training_set_of_copies_alone_has_no_second_image():
    with pytest.raises(UserError, match="The 5 training images are all equal"):
        MemorizationRate(torch.zeros(5, 3), leave_out_duplicates=0.3)
