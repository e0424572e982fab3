"""F_mem against a float64 brute force, with exact copies and exact duplicates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.errors import UserError
from fm_lightning.metrics import MemorizationRate
from fm_lightning.metrics.memorization import escaped_same_nearest, most_copied
from fm_lightning.trajectory import Trajectory


def trajectory(x1, seeds=None):
    """A trajectory of which only the samples matter here."""
    n = len(x1)
    return Trajectory(
        x1=x1,
        energy=torch.rand(3, n),
        field_energy=torch.rand(n),
        displacement=torch.rand(n),
        times=torch.linspace(0, 1, 4, dtype=torch.float64),
        gain=torch.ones(3, dtype=torch.float64),
        nfe=3,
        seeds=seeds,
    )


def brute(samples, reference, threshold=1 / 3):
    """(copied [N] bool, ratio [N]) by loops over float64 differences."""
    copied, ratios = [], []
    reference = np.asarray(reference, dtype=np.float64).reshape(len(reference), -1)
    for x in np.asarray(samples, dtype=np.float64).reshape(len(samples), -1):
        d = sorted(math.sqrt(((x - r) ** 2).sum()) for r in reference)
        copied.append(d[0] == 0 or d[0] < threshold * d[1])
        ratios.append(d[0] / d[1] if d[1] > 0 else 0.0)
    return np.array(copied), np.array(ratios)


def wilson(k, n, z=1.959963984540054):
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def measure(samples, reference, batch=None, **kwargs):
    metric = MemorizationRate(reference, **kwargs)
    for part in samples.split(batch or len(samples)):
        metric.update(trajectory(part))
    return {k: float(v) for k, v in metric.compute().items() if torch.as_tensor(v).numel() == 1}


def mixture(n, reference, rng):
    """Copies with all kinds of noise among samples that are no copies, as float32."""
    pick = torch.from_numpy(rng.integers(len(reference), size=n))
    scale = torch.from_numpy(rng.choice([0.0, 1e-6, 1e-3, 0.05, 0.3, 1.0, 3.0], size=n)).float()
    z = torch.from_numpy(rng.standard_normal(reference[pick].shape)).float()
    return reference[pick] + scale.reshape(-1, *[1] * (reference.dim() - 1)) * z


def check(samples, reference, threshold=1 / 3, **kwargs):
    got = measure(samples, reference, threshold=threshold, **kwargs)
    copied, ratios = brute(samples, reference, threshold)
    n = len(samples)
    # float32 distances decide ties at the threshold either way; no sample of these tests lies that near.
    with np.errstate(divide="ignore"):
        near = (np.abs(ratios - threshold) < 1e-5).sum()
    assert near == 0
    assert got["f_mem"] == pytest.approx(copied.mean(), abs=1e-6)
    low, high = wilson(copied.sum(), n)
    assert got["f_mem_lo"] == pytest.approx(low, abs=1e-5)
    assert got["f_mem_hi"] == pytest.approx(high, abs=1e-5)
    middle = sorted(ratios)
    assert middle[(n - 1) // 2] - 1e-5 <= got["nn_ratio_median"] <= middle[n // 2] + 1e-5
    return got


SHAPES = [(2,), (1, 8, 8), (3, 4, 5)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n", "m"), [(1, 2), (40, 2), (37, 3), (200, 150)])
def test_f_mem_equals_brute_force(shape, n, m):
    rng = np.random.default_rng(n + m)
    reference = torch.from_numpy(rng.standard_normal((m, *shape))).float()
    check(mixture(n, reference, rng), reference)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 60),
    m=st.integers(2, 60),
    d=st.integers(1, 12),
    threshold=st.sampled_from([0.1, 0.2, 1 / 3, 0.5]),
    batch=st.integers(1, 70),
    offset=st.sampled_from([0.0, 100.0]),
    seed=st.integers(0, 10**6),
)
def test_f_mem_equals_brute_force_at_random(n, m, d, threshold, batch, offset, seed):
    rng = np.random.default_rng(seed)
    reference = torch.from_numpy(rng.standard_normal((m, d)) + offset).float()
    samples = mixture(n, reference, rng)
    _, ratios = brute(samples, reference, threshold)
    samples = samples[torch.from_numpy(np.abs(ratios - threshold) > 1e-4)]
    if len(samples):
        check(samples, reference, threshold, batch=batch)


def test_exact_copies_count():
    reference = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 1, 8, 8))).float()
    got = measure(reference[:20].clone(), reference)
    assert got["f_mem"] == 1.0
    assert got["nn_ratio_median"] == 0.0


def test_an_exact_copy_of_a_point_held_twice_counts():
    """d1 = d2 = 0: no ratio, but nothing could be more of a copy."""
    reference = torch.from_numpy(np.random.default_rng(0).standard_normal((20, 6))).float()
    twice = torch.cat([reference, reference[:5]])
    samples = torch.cat([reference[:5], reference[10:12] + 5.0])
    got = check(samples, twice)
    assert got["f_mem"] == pytest.approx(5 / 7)
    assert not math.isnan(got["nn_ratio_median"])


def test_a_near_copy_of_a_point_with_a_near_duplicate_is_the_measure_s_blind_spot():
    reference = torch.from_numpy(np.random.default_rng(0).standard_normal((20, 6))).float()
    twice = torch.cat([reference, reference[:5] + 1e-6])
    got = check(reference[:5] + 1e-3, twice)
    assert got["f_mem"] == 0.0


def test_copies_far_from_the_origin_keep_their_digits():
    """Distances of 1e-2 among points of norm 1e4: |a|^2 + |b|^2 - 2ab in float32 would be off by 10."""
    rng = np.random.default_rng(3)
    reference = (torch.from_numpy(rng.standard_normal((40, 16))) + 2500).float()
    samples = reference[:30] + 0.02 * torch.from_numpy(rng.standard_normal((30, 16))).float()
    assert check(samples, reference)["f_mem"] == 1.0


def test_the_threshold_is_strict():
    """On a line: d1 = 1, d2 = 3 is exactly a third; float32 keeps these numbers exactly."""
    reference = torch.tensor([[0.0], [4.0]])
    for x, copied in ((0.75, 1.0), (1.25, 0.0), (4.5, 1.0), (2.0, 0.0)):
        assert measure(torch.tensor([[x]]), reference)["f_mem"] == copied
    assert measure(torch.tensor([[1.0]]), reference, threshold=0.5)["f_mem"] == 1.0
    assert measure(torch.tensor([[4.0 / 3]]), reference, threshold=0.49)["f_mem"] == 0.0


@pytest.mark.parametrize("batch", [1, 3, 64, 101])
def test_batching_does_not_matter(batch):
    rng = np.random.default_rng(9)
    reference = torch.from_numpy(rng.standard_normal((60, 10))).float()
    samples = mixture(101, reference, rng)
    whole, parts = measure(samples, reference), measure(samples, reference, batch=batch)
    assert whole.keys() == parts.keys()
    for key in whole:
        assert parts[key] == pytest.approx(whole[key], abs=1e-6), key


def test_wilson_at_the_edges():
    reference = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    none = measure(torch.full((10, 2), 5.0), reference)
    assert (none["f_mem"], none["f_mem_lo"]) == (0.0, pytest.approx(0.0, abs=1e-7))
    assert none["f_mem_hi"] == pytest.approx(wilson(0, 10)[1], abs=1e-6)
    every = measure(torch.zeros(10, 2), reference)
    assert (every["f_mem"], every["f_mem_hi"]) == (1.0, pytest.approx(1.0, abs=1e-7))
    assert every["f_mem_lo"] == pytest.approx(wilson(10, 10)[0], abs=1e-6)


def test_reset_forgets():
    reference = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    metric = MemorizationRate(reference)
    metric.update(trajectory(reference.clone()))
    metric.reset()
    metric.update(trajectory(reference + 100))
    assert float(metric.compute()["f_mem"]) == 0.0


def test_samples_are_measured_as_they_are_without_clipping():
    reference = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert measure(torch.tensor([[6.0, 6.0]]), reference)["f_mem"] == 0.0  # clipped to [-1, 1] it would be a copy


@pytest.mark.parametrize("n", [0, 1])
def test_a_reference_without_a_second_neighbour_is_refused(n):
    with pytest.raises(UserError) as caught:
        MemorizationRate(torch.zeros(n, 3))
    assert "\n" not in str(caught.value)
    assert "2" in str(caught.value)


def test_a_rank_without_samples_may_update():
    reference = torch.from_numpy(np.random.default_rng(0).standard_normal((10, 1, 4, 4))).float()
    metric = MemorizationRate(reference)
    metric.update(trajectory(reference[:4]))
    metric.update(trajectory(reference[:0]))
    assert float(metric.compute()["f_mem"]) == 1.0


def test_nothing_of_the_reference_goes_into_a_state_dict():
    metric = MemorizationRate(torch.randn(10, 3))
    metric.update(trajectory(torch.randn(4, 3)))
    assert not metric.state_dict()


# ---------------------------------------------------------------- two schedules over the same seeds


def pair(n=80, seed=0):
    rng = np.random.default_rng(seed)
    reference = torch.from_numpy(rng.standard_normal((30, 6))).float()
    before = mixture(n, reference, rng)
    after = before + 0.4 * torch.from_numpy(rng.standard_normal(before.shape)).float()
    return reference, before, after


def updated(reference, samples, order=None, shift=0):
    metric = MemorizationRate(reference)
    rows = torch.arange(len(samples)) if order is None else order
    for part in rows.split(17):
        metric.update(trajectory(samples[part], part + shift))
    return metric


def test_the_change_is_paired_by_seed():
    reference, before, after = pair()
    was, now = brute(before, reference)[0], brute(after, reference)[0]
    order = torch.from_numpy(np.random.default_rng(3).permutation(80))
    metric, there = updated(reference, after, order), updated(reference, before).per_seed()
    change = metric.change(metric.per_seed(), there)
    assert change.value == pytest.approx(now.mean() - was.mean())
    assert tuple(change) == tuple(metric.change(updated(reference, after).per_seed(), there))
    assert change.low < change.value < change.high


def test_escaped_copies_and_their_images_by_brute_force():
    reference, before, after = pair()
    was, now = brute(before, reference)[0], brute(after, reference)[0]
    nearest = [[int(((x - reference).double() ** 2).sum(1).argmin()) for x in s] for s in (before, after)]
    escaped = [i for i in range(80) if was[i] and not now[i]]
    assert len(escaped) >= 5
    same = np.mean([nearest[0][i] == nearest[1][i] for i in escaped])
    order = torch.from_numpy(np.random.default_rng(3).permutation(80))
    metric = updated(reference, after, order)
    got = escaped_same_nearest(metric.per_seed(), updated(reference, before).per_seed())
    assert got == pytest.approx(same)


def test_the_most_copied_images_by_brute_force():
    reference, before, _ = pair()
    was = brute(before, reference)[0]
    nearest = [int(((x - reference).double() ** 2).sum(1).argmin()) for x in before]
    counts = np.bincount([n for n, copied in zip(nearest, was) if copied], minlength=30)
    metric = updated(reference, before)
    index, count = most_copied(metric.per_seed(), count=4)
    assert count.tolist() == sorted(counts, reverse=True)[:4]
    assert [counts[i] for i in index.tolist()] == count.tolist()


@pytest.mark.parametrize("shift", [0, 1000])
def test_unlike_seeds_cannot_be_paired(shift):
    reference, before, after = pair()
    other = updated(reference, after if shift else after[:50], shift=shift)
    with pytest.raises(UserError):
        other.change(other.per_seed(), updated(reference, before).per_seed())
    with pytest.raises(UserError):
        escaped_same_nearest(other.per_seed(), updated(reference, before).per_seed())
