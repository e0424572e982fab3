"""Power-function averages: their lengths, and averages of other lengths from snapshots."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_lightning.adapters.power_average import LONGEST, coefficients, combine, exponent, keeps
from fm_lightning.errors import UserError


def direct(path: np.ndarray, gamma: float) -> np.ndarray:
    """``[D]`` the average of ``path [T, D]`` by the recursion, in float64."""
    average = np.zeros(path.shape[1])
    for step, weights in enumerate(path, 1):
        share = keeps(step, gamma)
        average = share * average + (1 - share) * weights
    return average


def walk(steps: int, seed: int) -> np.ndarray:
    """Weights that drift and jitter as in a training, ``[T, 5]``."""
    rng = np.random.default_rng(seed)
    time = np.arange(1, steps + 1)[:, None] / steps
    return np.sqrt(time) * rng.normal(size=5) + 0.05 * rng.normal(size=(steps, 5)).cumsum(0) / np.sqrt(steps)


@pytest.mark.parametrize("sigma_rel", [0.02, 0.05, 0.1, 0.2, 0.28])
def test_the_exponent_gives_the_standard_deviation(sigma_rel):
    gamma = exponent(sigma_rel)
    mean = (gamma + 1) / (gamma + 2)
    variance = (gamma + 1) / (gamma + 3) - mean**2  # of the density (gamma + 1) s^gamma on [0, 1]
    assert np.sqrt(variance) == pytest.approx(sigma_rel, rel=1e-9)


def test_the_longest_average_is_the_plain_mean():
    path = walk(300, 0)
    assert exponent(LONGEST) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(direct(path, 0.0), path.mean(0), rtol=1e-10)


def test_a_snapshot_of_the_wanted_average_is_taken_alone():
    factors = coefficients([100, 200, 200], [3.0, 3.0, 7.0], 200, 3.0)
    np.testing.assert_allclose(factors, [0, 1, 0], atol=1e-9)


@pytest.mark.parametrize("sigma_rel", [0.06, 0.08, 0.15, 0.25])
@pytest.mark.parametrize("end", [1000, 700])
def test_snapshots_at_every_tenth_give_any_length(sigma_rel, end):
    path, kept = walk(1000, 1), [exponent(0.05), exponent(0.1)]
    steps = [t for t in range(100, end + 1, 100) for _ in kept]
    gammas = kept * (len(steps) // 2)
    snapshots = [{"w": torch.from_numpy(direct(path[:t], g))} for t, g in zip(steps, gammas)]
    found = combine(snapshots, coefficients(steps, gammas, end, exponent(sigma_rel)))["w"].numpy()
    wanted = direct(path[:end], exponent(sigma_rel))
    assert np.abs(found - wanted).max() < 0.03 * np.abs(path[end - 1] - path[0]).max()


def test_whole_numbers_come_from_the_last_snapshot():
    states = [{"w": torch.tensor([1.0]), "n": torch.tensor(3)}, {"w": torch.tensor([3.0]), "n": torch.tensor(5)}]
    mixed = combine(states, [0.5, 0.5])
    assert mixed["w"].item() == 2
    assert mixed["n"].item() == 5


@pytest.mark.parametrize("sigma_rel", [0.0, -0.1, 0.3, float("nan")])
def test_lengths_that_no_average_has_are_refused(sigma_rel):
    with pytest.raises(UserError, match="at most"):
        exponent(sigma_rel)
