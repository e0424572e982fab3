"""The energy metric against numpy, and on trajectories that were really integrated."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.flow import KTS, Schedule, integrate
from fm_lightning.metrics import KineticPathEnergy
from fm_lightning.trajectory import Trajectory


def random_trajectory(n, steps, seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return Trajectory(
        x1=torch.from_numpy(rng.standard_normal((n, 2))).float(),
        energy=torch.from_numpy(scale * rng.random((steps, n))).float(),
        field_energy=torch.from_numpy(scale * rng.random(n)).float(),
        displacement=torch.from_numpy(scale * rng.random(n)).float(),
        times=torch.arange(steps + 1, dtype=torch.float64) / steps,
        gain=torch.ones(steps, dtype=torch.float64),
        nfe=steps,
        seeds=torch.arange(n),
    )


def scalars(metric):
    return {k: float(v) for k, v in metric.compute().items() if torch.as_tensor(v).numel() == 1}


def reference(traj, split):
    energy = traj.energy.double().numpy()
    times = traj.times.numpy()
    kpe = energy.sum(0)
    return {
        "kpe_mean": kpe.mean(),
        "kpe_early_mean": sum((energy[i] for i in range(len(energy)) if times[i] < split), np.zeros(len(kpe))).mean(),
        "kpe_late_mean": sum((energy[i] for i in range(len(energy)) if times[i] >= split), np.zeros(len(kpe))).mean(),
        "displacement_mean": traj.displacement.double().numpy().mean(),
        "field_energy_mean": traj.field_energy.double().numpy().mean(),
        "excess_mean": (kpe - traj.displacement.double().numpy()).mean(),
    }


def check(got, traj, split=0.6):
    for key, want in reference(traj, split).items():
        assert got[key] == pytest.approx(want, rel=2e-5, abs=1e-5), key
    kpe = traj.energy.double().numpy().sum(0)
    if len(kpe) > 1:
        assert got["kpe_std"] == pytest.approx(kpe.std(ddof=1), rel=1e-4, abs=1e-6) or got["kpe_std"] == pytest.approx(
            kpe.std(), rel=1e-4, abs=1e-6
        )


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 50),
    steps=st.sampled_from([1, 5, 10, 100]),
    batch=st.integers(1, 50),
    seed=st.integers(0, 9999),
)
def test_the_table_equals_numpy_in_any_batching(n, steps, batch, seed):
    traj, metric = random_trajectory(n, steps, seed), KineticPathEnergy()
    for i in range(0, n, batch):
        metric.update(traj[i : i + batch])
    got = scalars(metric)
    check(got, traj)
    assert got["kpe_early_mean"] + got["kpe_late_mean"] == pytest.approx(got["kpe_mean"], rel=1e-5)


def test_the_spread_of_large_energies_keeps_its_digits():
    """Mean 1e5, standard deviation 1: a difference of float32 squares would answer 0 or a wild number."""
    kpe = 1e5 + np.random.default_rng(0).standard_normal(500)
    traj = random_trajectory(500, 1, 0)
    traj = Trajectory(**{**vars(traj), "energy": torch.from_numpy(kpe[None]).float()})
    metric = KineticPathEnergy()
    for i in range(0, 500, 50):
        metric.update(traj[i : i + 50])
    assert scalars(metric)["kpe_std"] == pytest.approx(kpe.std(), rel=0.01)


def test_one_sample_has_a_mean():
    metric = KineticPathEnergy()
    traj = random_trajectory(1, 5, 3)
    metric.update(traj)
    check(scalars(metric), traj)


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_real_trajectory(solver):
    x0 = torch.from_numpy(np.random.default_rng(0).standard_normal((12, 3))).float()
    traj = integrate(
        lambda x, t, y=None: torch.sin(x) + t[:, None], x0, Schedule(KTS(0.2, 0.02), steps=20, solver=solver)
    )
    metric = KineticPathEnergy()
    metric.update(traj)
    got = scalars(metric)
    check(got, traj)
    assert got["excess_mean"] > 0


def test_reset_forgets():
    metric, traj = KineticPathEnergy(), random_trajectory(8, 5, 1)
    metric.update(random_trajectory(8, 5, 2, scale=100))
    metric.reset()
    metric.update(traj)
    check(scalars(metric), traj)


def test_a_rank_without_samples_may_update():
    metric, traj = KineticPathEnergy(), random_trajectory(8, 5, 1)
    metric.update(traj)
    metric.update(traj[:0])
    check(scalars(metric), traj)
