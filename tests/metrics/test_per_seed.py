"""The contract of per-seed metrics: measured columns are what ``compute`` summarizes, and a fingerprint names them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_lightning.diagnosis.copy_metrics import AuthPct
from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, Schedule, integrate
from fm_lightning.metrics import (
    FrechetDistance,
    KineticPathEnergy,
    LocalSupport,
    MemorizationRate,
    RawFeatures,
    Reference,
    ShardedReference,
)
from fm_lightning.metrics.energy import mean_power
from fm_lightning.metrics.features.extractor import ModuleFeatures

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(40, 1, 3, 4, generator=GENERATOR)
X0 = torch.randn(30, 1, 3, 4, generator=GENERATOR)


def trajectory(steps=7):
    def velocity(x, t, y=None):
        return torch.sin(x) + t[:, None, None, None]

    return integrate(velocity, X0, Schedule(KTS(0.2, 0.02), steps=steps), seeds=torch.arange(100, 130))


def metrics():
    yield KineticPathEnergy()
    yield MemorizationRate(IMAGES, k=4, mirrored=True, leave_out_duplicates=0.6)
    yield FrechetDistance(RawFeatures(), IMAGES.flatten(1))


@pytest.mark.parametrize("metric", metrics(), ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("batch", [1, 7, 30])
def test_compute_summarizes_what_measure_gives(metric, batch):
    whole, order = trajectory(), torch.randperm(30, generator=torch.Generator().manual_seed(1))
    metric.reset()
    for rows in order.split(batch):
        metric.update(whole[rows])
    metric.update(whole[:0])
    lines, measured = metric.per_seed(), metric.measure(whole)
    assert lines["seeds"].tolist() == list(range(100, 130))
    assert set(lines) - {"times"} == {"seeds", *measured}
    for name, column in measured.items():
        assert len(column) == 30
        torch.testing.assert_close(lines[name], column)
    assert metric.summarize(lines) == metric.compute()


@pytest.mark.parametrize("metric", list(metrics())[1:], ids=lambda m: type(m).__name__)
def test_plain_samples_serve_as_well_as_trajectories(metric):
    whole = trajectory()
    metric.update(whole)
    want = metric.compute()
    metric.reset()
    metric.update(whole.x1[:13])
    metric.update(whole.x1[13:])
    assert metric.compute() == pytest.approx(want)
    assert metric.per_seed()["seeds"].tolist() == list(range(30))
    metric.reset()
    metric.update(whole.x1, seeds=torch.arange(30).flip(0))
    assert torch.equal(metric.per_seed()[metric.columns[0]], metric.measure(whole.x1)[metric.columns[0]].flip(0))


def test_energy_needs_a_trajectory_and_one_schedule():
    metric = KineticPathEnergy()
    with pytest.raises(UserError, match="Samples alone have no energy"):
        metric.update(X0)
    metric.update(trajectory(7))
    with pytest.raises(UserError, match="Use one metric per schedule"):
        metric.update(trajectory(8))


def test_the_split_may_change_after_measuring():
    whole = trajectory(10)
    columns = KineticPathEnergy(0.6).measure(whole) | {"times": whole.times}
    for split in (0.0, 0.1, 0.25, 0.3, 0.6, 1.0):
        found = KineticPathEnergy(split).summarize(columns)
        assert found["kpe_early_mean"] == pytest.approx(float(whole.early(split).double().mean()), abs=1e-6)
        assert found["kpe_late_mean"] == pytest.approx(float(whole.late(split).double().mean()), abs=1e-6)
    del columns["times"]
    assert "kpe_early_mean" not in KineticPathEnergy(0.6).summarize(columns)
    torch.testing.assert_close(mean_power(columns["energy"], whole.times), whole.power.double().mean(1))


def test_threshold_and_fewer_neighbours_may_change_after_measuring():
    columns = MemorizationRate(IMAGES, k=5).measure(IMAGES[:20] + 0.3)
    for threshold, k in ((0.2, 2), (0.5, 3), (1.0, 5)):
        other = MemorizationRate(IMAGES, threshold, k=k)
        other.update(IMAGES[:20] + 0.3)
        assert other.summarize(columns) == other.compute()


@pytest.mark.parametrize("seeds", [torch.arange(29), torch.arange(31), torch.zeros(30, 1), torch.tensor(3)])
def test_seeds_that_do_not_match_are_refused(seeds):
    with pytest.raises(UserError, match="Pass one seed per sample"):
        MemorizationRate(IMAGES).update(X0, seeds=seeds)


def test_a_seed_counts_once():
    metric = MemorizationRate(IMAGES)
    metric.update(X0, seeds=torch.arange(len(X0)))
    metric.update(X0[:3], seeds=torch.tensor([70, 4, 71]))
    with pytest.raises(UserError, match="MemorizationRate has seen seed 4 more than once"):
        metric.compute()
    plain = MemorizationRate(IMAGES)
    plain.update(X0)
    plain.update(X0)
    assert len(plain.per_seed()["seeds"]) == 2 * len(X0), "without seeds they are numbered as they come"


@pytest.mark.parametrize("swap", [False, True])
def test_bytes_are_not_compared_with_another_unit(swap):
    pixels = torch.randint(0, 256, (30, 3, 4, 4), dtype=torch.uint8)
    floats = pixels.float() / 127.5 - 1
    reference, samples = (floats, pixels) if swap else (pixels, floats)
    for metric in (MemorizationRate(reference), LocalSupport(reference), AuthPct(reference)):
        with pytest.raises(UserError, match="Bring both into the model's space"):
            metric.update(samples)
    both = MemorizationRate(pixels)
    both.update(pixels)
    assert both.compute()["f_mem"] == 1


def test_memorization_fingerprints():
    metric = MemorizationRate(IMAGES)
    same = [
        MemorizationRate(IMAGES.clone(), threshold=0.1),
        MemorizationRate(Reference(IMAGES.numpy())),
        MemorizationRate(ShardedReference(IMAGES)),
        MemorizationRate(ShardedReference(IMAGES, strided=True)),
    ]
    assert {m.fingerprint for m in same} == {metric.fingerprint}
    changed = IMAGES.clone()
    changed[-1, 0, 2, 3] += 1e-6
    others = [
        MemorizationRate(IMAGES, k=3),
        MemorizationRate(IMAGES, mirrored=True),
        MemorizationRate(IMAGES, leave_out_duplicates=0.9),
        MemorizationRate(changed),
        MemorizationRate(IMAGES.flip(0)),
        MemorizationRate(IMAGES[:-1]),
        MemorizationRate(IMAGES.double()),
        MemorizationRate(IMAGES.flatten(1)),
        MemorizationRate(Reference(IMAGES, encode=lambda x: 2 * x)),
    ]
    assert others[2].groups.near_duplicates
    assert len({m.fingerprint for m in (metric, *others)}) == 1 + len(others)


def test_feature_fingerprints():
    def of(extractor, real=IMAGES, read=None):
        return FrechetDistance(extractor, real.flatten(1), read).fingerprint

    assert of(RawFeatures()) == of(RawFeatures(), 2 * IMAGES)  # features do not depend on what they are compared with
    nets = [torch.nn.Linear(12, 12) for _ in "ab"]
    extractors = [RawFeatures(), RawFeatures(2), *(ModuleFeatures(net, "fd_net") for net in nets)]
    found = [of(extractor) for extractor in extractors]
    found.append(of(ModuleFeatures(nets[0], "fd_other")))
    found.append(of(RawFeatures(), read=torch.flatten))
    assert len(set(found)) == len(found)


def test_changes_line_by_line_need_the_same_lines():
    metric = MemorizationRate(IMAGES)
    here, there = metric.measure(X0), metric.measure(IMAGES[:30])
    assert metric.change(here, there).value == pytest.approx(metric.estimate(here).value - 1)
    seeds = torch.arange(30)
    with pytest.raises(UserError, match="same seeds"):
        metric.change(here | {"seeds": seeds}, there | {"seeds": seeds + 1})
    with pytest.raises(UserError, match="different seeds"):
        metric.change(here, {name: column[:29] for name, column in there.items()})
    whole = replace(trajectory(), seeds=None)
    metric.update(whole)
    assert metric.per_seed()["seeds"].tolist() == seeds.tolist()
