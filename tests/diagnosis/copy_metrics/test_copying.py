"""Each measure of copying on a case worked out by hand, against brute force in float64, and next to its floor."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from fm_lightning.diagnosis.copy_measures import agree, disagreement, saying
from fm_lightning.diagnosis.copy_metrics import (
    COPY_MEASURES,
    AuthPct,
    CalibratedDistance,
    DataCopying,
    DescriptorCosine,
)
from fm_lightning.diagnosis.copy_metrics.data_copying import mann_whitney_z
from fm_lightning.errors import UserError
from fm_lightning.estimate import Interval
from fm_lightning.flow import Schedule, integrate
from fm_lightning.metrics import MemorizationRate

LINE = torch.tensor([[0.0], [1.0], [3.0], [7.0]])


def column(*values):
    return torch.tensor(values)[:, None]


def measured(metric, samples, batch=None):
    for part in samples.split(batch or len(samples)):
        metric.update(part)
    return metric.compute()


def test_calibrated_by_hand():
    """0.5 lies 0.5, 0.5, 2.5 from its three nearest: 0.5 / (0.5 * 3.5 / 3) = 6 / 7. 3 is a copy. 11: 4 / (0.5 * 22 / 3)."""
    metric = CalibratedDistance(LINE, neighbours=3)
    found = metric.measure(column(0.5, 3.0, 11.0))["calibrated"]
    torch.testing.assert_close(found, torch.tensor([6 / 7, 0.0, 12 / 11]))


def test_an_exact_copy_of_what_stands_there_often():
    assert CalibratedDistance(torch.zeros(4, 2), neighbours=4).measure(torch.zeros(1, 2))["calibrated"].tolist() == [
        0.0
    ]


def test_calibrated_copies_lie_below_the_held_out_quantile():
    rng = torch.Generator().manual_seed(0)
    train, held, fresh = (torch.randn(n, 8, generator=rng) for n in (300, 1000, 400))
    metric = CalibratedDistance(train, held)
    numbers = measured(metric, torch.cat([fresh, train[:100] + 0.01]))
    assert numbers["calibrated_copies_floor"] == pytest.approx(0.01)
    assert 0.2 <= numbers["calibrated_copies"] <= 0.23
    assert numbers["calibrated_copies_lo"] > numbers["calibrated_copies_floor_hi"]
    distances = torch.cdist(held.double(), train.double()).sort(1).values[:, :50]
    brute = distances[:, 0] / (0.5 * distances.mean(1))
    assert metric.threshold == pytest.approx(float(torch.quantile(brute, 0.01)), rel=1e-5)


def test_auth_pct_by_hand():
    """Radii 1, 1, 2, 4. 0.5 is 0.5 from 0, 4.5 is 1.5 from 3: copies. -2 is 2 from 0, 12 is 5 from 7: authentic."""
    metric = AuthPct(LINE)
    samples = column(0.5, -2.0, 4.5, 12.0)
    columns = metric.measure(samples)
    assert columns["radius"].tolist() == [1, 1, 2, 4]
    assert metric.copied(columns).tolist() == [True, False, True, False]
    assert measured(metric, samples, batch=1)["auth_pct"] == 50


def test_auth_pct_of_exact_duplicates():
    """Two equal training images: their radius is 0, and only an exact copy is one."""
    metric = AuthPct(torch.cat([LINE, LINE[:1]]))
    assert metric.copied(metric.measure(column(0.0, 0.1))).tolist() == [True, False]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(2, 40), st.integers(1, 6), st.integers(0, 10**6))
def test_auth_pct_equals_brute_force(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, train = rng.standard_normal((n, d)).astype(np.float32), rng.standard_normal((m, d)).astype(np.float32)
    across = np.linalg.norm(x[:, None].astype(float) - train[None].astype(float), axis=2)
    within = np.linalg.norm(train[:, None].astype(float) - train[None].astype(float), axis=2)
    np.fill_diagonal(within, np.inf)
    gap = across.min(1) - within.min(1)[across.argmin(1)]
    keep = np.abs(gap) > 1e-5
    if keep.any():
        numbers = measured(AuthPct(torch.from_numpy(train)), torch.from_numpy(x[keep]), batch=7)
        assert numbers["auth_pct"] == pytest.approx(100 * (gap[keep] > 0).mean())


def test_c_t_by_hand():
    """Distances 0.5, 1.5, 2.5 against 1, 2, 3, 4: U = 3, Z = (3 - 5.5) / sqrt(8)."""
    metric = DataCopying(column(0.0), column(1.0, 2.0, 3.0, 4.0), cells=1, least=2)
    numbers = measured(metric, column(0.5, -1.5, 2.5))
    assert numbers["c_t"] == pytest.approx(-2.5 / math.sqrt(8))
    assert numbers["c_t_covered"] == 1
    assert numbers["c_t_lo"] < numbers["c_t"] < numbers["c_t_hi"]


def test_c_t_weighs_cells_by_the_held_out_share():
    """Around 0 as above; around 100 the distances 5, 6, 7 against 1, 2: U = 6, Z = (6 - 2.5) / sqrt(3). Weights 4 and 2."""
    held = column(1.0, 2.0, 3.0, 4.0, 101.0, 102.0)
    metric = DataCopying(column(0.0, 100.0), held, cells=2, least=2)
    samples = column(0.5, -1.5, 2.5, 105.0, 106.0, 107.0)
    expected = (4 * -2.5 / math.sqrt(8) + 2 * 3.5 / math.sqrt(3)) / 6
    assert measured(metric, samples, batch=4)["c_t"] == pytest.approx(expected)
    left_out = measured(DataCopying(column(0.0, 100.0), held, cells=2, least=2), samples[:5])
    assert left_out["c_t"] == pytest.approx(-2.5 / math.sqrt(8)), "two samples in a cell are too few"
    assert left_out["c_t_covered"] == pytest.approx(0.6)
    assert measured(DataCopying(column(0.0, 100.0), held, cells=2, least=20), samples) == {"c_t_covered": 0.0}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_z_is_the_published_one(n, m, seed):
    rng = np.random.default_rng(seed)
    ours, theirs = rng.integers(10, size=n).astype(float), rng.integers(10, size=m).astype(float)
    u = mannwhitneyu(ours, theirs, alternative="less").statistic
    expected = (u - (n * m / 2 - 0.5)) / math.sqrt(n * m * (n + m + 1) / 12)
    assert mann_whitney_z(ours, theirs)[0] == pytest.approx(expected)


def test_c_t_of_real_samples_is_about_standard_normal():
    """And its interval covers 0 nearly always."""
    rng = torch.Generator().manual_seed(1)
    train = torch.randn(200, 4, generator=rng)
    found = []
    for _ in range(40):
        held, fresh = torch.randn(300, 4, generator=rng), torch.randn(300, 4, generator=rng)
        metric = DataCopying(train, held)
        found.append(metric.value(metric.measure(fresh)))
    values = np.array([f.value for f in found])
    assert abs(values.mean()) < 0.35
    # An average over three cells of Z's with standard deviation 1: about 1 / sqrt(3).
    assert 0.35 < values.std() < 0.9
    assert np.mean([f.low <= 0 <= f.high for f in found]) > 0.85


def test_cosine_by_hand():
    metric = DescriptorCosine(torch.tensor([[1.0, 0.0], [0.0, 2.0]]), threshold=0.5)
    samples = torch.tensor([[3.0, 3.0], [5.0, 0.0], [-1.0, 0.0], [-1.0, 0.2]])
    columns = metric.measure(samples)
    torch.testing.assert_close(columns["cosine"], torch.tensor([math.sqrt(0.5), 1.0, 0.0, 0.2 / math.sqrt(1.04)]))
    assert columns["nearest"].tolist() == [0, 0, 1, 1]
    numbers = measured(metric, samples)
    assert numbers["cosine_copies"] == 0.5


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 30), st.integers(2, 20), st.integers(0, 10**6))
def test_cosine_equals_brute_force(n, m, d, seed):
    rng = np.random.default_rng(seed)
    x, train = rng.standard_normal((n, d)) + 0.3, 50 * rng.standard_normal((m, d))
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, train)]
    metric = DescriptorCosine(torch.from_numpy(train))
    np.testing.assert_allclose(metric.measure(torch.from_numpy(x))["cosine"], (unit[0] @ unit[1].T).max(1), atol=2e-6)


def test_five_measures_see_noisy_copies_and_let_real_samples_be():
    rng = torch.Generator().manual_seed(2)
    train, held, fresh = (torch.randn(n, 6, generator=rng) for n in (400, 800, 500))
    copies = train[torch.randint(400, (500,), generator=rng)] + 0.05 * torch.randn(500, 6, generator=rng)
    said = {}
    for name, samples in (("fresh", fresh), ("copies", copies)):
        metrics = [
            CalibratedDistance(train, held),
            AuthPct(train, held),
            DataCopying(train, held),
            DescriptorCosine(train, held, 0.97),
        ]
        columns = [m.measure(samples) for m in metrics]
        said[name] = {m.key: saying(m.value(c), m.floor, m.lower_is_copying) for m, c in zip(metrics, columns)}
        flags = {m.key: m.copied(c) for m, c in zip(metrics, columns)}
        assert len(disagreement(flags)[0]) == 6
        assert agree(said[name])
    assert set(said["copies"].values()) == {"copies"}
    assert set(said["fresh"].values()) == {"no more than real images"}
    ratio = MemorizationRate(train)
    ratio.update(integrate(lambda x, t, y: torch.zeros_like(x), copies, Schedule(steps=1)))
    assert ratio.compute()["f_mem"] > 0.9


def test_the_floor_is_the_number_of_held_out_samples():
    rng = torch.Generator().manual_seed(3)
    train, held = torch.randn(100, 3, generator=rng), torch.randn(150, 3, generator=rng)
    numbers = measured(AuthPct(train, held), train)
    assert numbers["auth_pct_floor"] == measured(AuthPct(train), held)["auth_pct"]
    assert numbers["auth_pct"] == 0
    with pytest.raises(UserError, match="4 numbers each and the reference 3"):
        AuthPct(train).measure(torch.randn(5, 4))


def test_every_measure_has_a_name_and_a_label_of_its_own():
    for names in ([kind.name for kind in COPY_MEASURES], [kind.label for kind in COPY_MEASURES]):
        assert len(set(names)) == len(names)
    assert {kind.unit for kind in COPY_MEASURES} <= {"share", "percent", "z"}


def test_disagreement_by_hand():
    a, b = torch.tensor([1, 1, 0, 0, 0]).bool(), torch.tensor([1, 0, 1, 0, 0]).bool()
    (pair,), disputed = disagreement({"a": a, "b": b})
    assert (pair["both"], pair["only_first"], pair["only_second"]) == (1, 1, 1)
    assert pair["kappa"] == pytest.approx((0.6 - 0.52) / 0.48)
    assert disputed.tolist() == [False, True, True, False, False]
    assert agree({"a": "copies", "b": "no floor"})
    assert not agree({"a": "copies", "b": "no more than real images"})
    assert disagreement({"a": a & ~a, "b": b & ~b})[0][0]["kappa"] is None
    with pytest.raises(UserError, match="a of 5, b of 4"):
        disagreement({"a": a, "b": b[:4]})
    with pytest.raises(UserError, match="no measures"):
        disagreement({})


def test_sayings_by_hand():
    assert saying(Interval(0.3, 0.2, 0.4), Interval(0.1, 0.05, 0.15), False) == "copies"
    assert saying(Interval(0.3, 0.1, 0.4), Interval(0.1, 0.05, 0.15), False) == "no more than real images"
    assert saying(Interval(30, 20, 40), Interval(60, 50, 70), True) == "copies"
    assert saying(Interval(80, 75, 85), Interval(60, 50, 70), True) == "fewer than real images"
    assert saying(Interval(80, 75, 85), None, True) == "no floor"


def test_fingerprints_follow_what_is_measured():
    train = torch.randn(60, 3)
    prints = {
        AuthPct(train).fingerprint,
        AuthPct(train[:59]).fingerprint,
        CalibratedDistance(train).fingerprint,
        CalibratedDistance(train, neighbours=20).fingerprint,
        CalibratedDistance(train, alpha=1.0).fingerprint,
        DescriptorCosine(train).fingerprint,
        DataCopying(train, train).fingerprint,
        DataCopying(train, train, cells=2).fingerprint,
    }
    assert len(prints) == 8
    assert AuthPct(train, train).fingerprint == AuthPct(train).fingerprint
    assert DescriptorCosine(train, threshold=0.9).fingerprint == DescriptorCosine(train).fingerprint
    assert DataCopying(train, train, least=3).fingerprint == DataCopying(train, train).fingerprint


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AuthPct(LINE[:1]), "has no nearest other one"),
        (lambda: AuthPct(LINE, LINE[:0]), "held_out is empty"),
        (lambda: CalibratedDistance(LINE), "neighbours=50 must be between 1 and the 4 training images"),
        (lambda: CalibratedDistance(LINE, neighbours=2, alpha=0.0), "alpha=0 must be positive"),
        (
            lambda: CalibratedDistance(LINE, LINE, neighbours=2),
            "4 held-out samples have no 1% quantile. Pass at least 100",
        ),
        (lambda: CalibratedDistance(LINE, neighbours=2).threshold, "no threshold for copies. Pass held_out"),
        (lambda: DataCopying(LINE, None), "C_T compares samples with held-out ones"),
        (lambda: DataCopying(LINE, LINE, cells=5), "cells=5 must be between 1 and the 4"),
        (lambda: measured(DataCopying(LINE, LINE[:1], cells=2, least=0), LINE), "Cell 1 of 2 has no held-out samples"),
        (lambda: DescriptorCosine(LINE), "Descriptor 0 has length 0"),
        (lambda: DescriptorCosine(LINE[1:], threshold=2), "threshold=2 must be between"),
    ],
)
def test_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()
