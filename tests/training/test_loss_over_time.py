"""The loss over t: closed form and Gaussian against brute force in float64, and what the numbers mean."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_lightning.data import Digits
from fm_lightning.flow import GaussianVelocity, LinearPath
from fm_lightning.training.loss_over_time import SIDES, Draws, LossOverTime, budget, summary

N = 30


@pytest.fixture(scope="module")
def digits():
    data = Digits(n=N)
    data.prepare()
    return data


def measured(data, path=None, share=(0, 1), per_bin=12):
    return LossOverTime(data, path or LinearPath(), Draws(10, per_bin, 3), 50, share=share)


def bridge(m, side):
    """Everything drawn by hand, in float64."""
    places = torch.arange(len(m.draws))
    split = m.splits[side]
    x1 = m.data.encode(split.x[m.samples[side]]).double().flatten(1)
    x0 = m.draws.noise(places, m.data.shape).double().flatten(1)
    t = (places.double() + 0.5) / len(places)
    return x0, x1, t[:, None]


def test_the_closed_form_is_the_posterior_mean_over_training_points(digits):
    m = measured(digits)
    x0, x1, t = bridge(m, "train")
    points = digits.reference().double().flatten(1)
    x_t = (1 - t) * x0 + t * x1
    expected = []
    for x, time, target in zip(x_t, t[:, 0], x1 - x0):
        log = -((x - time * points) ** 2).sum(1) / (2 * (1 - time) ** 2)
        weights = (log - log.max()).exp()
        mean = (weights / weights.sum()) @ points
        expected.append((((mean - x) / (1 - time) - target) ** 2).mean())
    torch.testing.assert_close(m.references["closed_form", "train"], torch.stack(expected), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("side", SIDES)
def test_the_gaussian_is_the_conditional_mean_of_a_joint_normal(digits, side):
    m = measured(digits)
    x0, x1, t = bridge(m, side)
    points = digits.reference().double().flatten(1)
    mean, c, one = points.mean(0), torch.cov(points.T, correction=0), torch.eye(64, dtype=torch.float64)
    expected = []
    for x, time, target in zip((1 - t) * x0 + t * x1, t[:, 0], x1 - x0):
        covariance = (1 - time) ** 2 * one + time**2 * c  # of x_t
        with_u = time * c - (1 - time) * one  # of x1 - x0 with x_t
        v = mean + with_u @ torch.linalg.solve(covariance, x - time * mean)
        expected.append(((v - target) ** 2).mean())
    torch.testing.assert_close(m.references["gaussian", side], torch.stack(expected), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("n", [5, 400])
def test_the_gaussian_field_with_fewer_and_more_points_than_dimensions(n):
    generator = torch.Generator().manual_seed(n)
    points = (
        torch.randn(n, 40, generator=generator, dtype=torch.float64) @ torch.randn(40, 40, generator=generator).double()
    )
    x, t = torch.randn(7, 40, generator=generator).double() * 3, torch.linspace(0, 0.99, 7).double()
    c, mean, one = torch.cov(points.T, correction=0), points.mean(0), torch.eye(40).double()
    found = GaussianVelocity(points)(x, t)
    for row, xi, ti in zip(found, x, t):
        s = (1 - ti) ** 2 * one + ti**2 * c
        torch.testing.assert_close(row, mean + (ti * c - (1 - ti) * one) @ torch.linalg.solve(s, xi - ti * mean))


def test_closed_form_is_the_least_on_training_samples_and_gaussian_beats_it_on_others(digits):
    m = measured(digits, per_bin=40)
    losses = {
        ("network", side): m.losses(lambda x0, x1, t, y: ((x1 - x0) ** 2).flatten(1).mean(1), side) for side in SIDES
    }
    found = summary(losses | m.references, m)
    late = {name: curve["value"][-1] for name, curve in found["curves"].items()}
    assert late["closed_form/train"] < 1e-6
    assert 0.3 < late["gaussian/train"] < 1.5
    assert late["gaussian/held_out"] > late["gaussian/train"]
    closed, gaussian = (found["curves"][f"{field}/train"] for field in ("closed_form", "gaussian"))
    assert all(a < b for a, b in zip(closed["value"][3:], gaussian["value"][3:]))  # before, they know equally little
    assert closed["all"][0] < gaussian["all"][0] < found["curves"]["network/train"]["all"][0]


def test_intervals_and_pairs(digits):
    m = measured(digits, per_bin=100)  # 399 held-out images, 1,000 draws: about 2.5 each
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1000, generator=generator, dtype=torch.float64)
    found = summary({("network", "train"): a, ("network", "held_out"): a + 0.1 * b}, m)
    value, low, high = found["differences"]["gap"]["all"]
    assert value == pytest.approx(0.1 * float(b.mean()))
    assert low < value < high
    assert (high - low) / 2 == pytest.approx(1.96 * 0.1 * float(b.std()) / np.sqrt(1000), rel=0.2)
    curve = found["curves"]["network/train"]
    part = a[300:400]
    assert curve["value"][3] == pytest.approx(float(part.mean()))
    assert curve["high"][3] - curve["value"][3] == pytest.approx(1.95996 * float(part.std()) / 10, rel=1e-5)
    # Draws of one held-out image that agree count once: the interval is that of the images.
    image = torch.rand(399, generator=generator, dtype=torch.float64)[m.samples["held_out"]]
    each = summary({("network", "held_out"): image, ("network", "train"): a}, m)["curves"]["network/held_out"]["all"]
    assert (each[2] - each[0]) == pytest.approx(1.96 * float(image.std()) / np.sqrt(399), rel=0.15)


def test_each_sample_is_drawn_equally_often_and_noise_is_shared(digits):
    m = measured(digits, per_bin=30)
    counts = torch.bincount(m.samples["train"], minlength=N)
    assert (counts == 10).all()
    for k in range(10):
        assert len(m.samples["train"][30 * k : 30 * k + 30].unique()) == 30
    (a, _, t, _), (b, _, s, _) = (m._batch(torch.arange(5), side) for side in SIDES)
    assert torch.equal(a, b)
    assert torch.equal(t, s)


def test_processes_share_the_work(digits):
    def loss(x0, x1, t, y):
        return (x0 * x1).flatten(1).mean(1) + t

    whole = measured(digits).losses(loss, "train")
    parts = [measured(digits, share=(rank, 7)).losses(loss, "train") for rank in range(7)]
    torch.testing.assert_close(sum(parts), whole)


def test_a_conditional_network_is_compared_with_its_classes():
    data = Digits(n=N, conditional=True)
    data.prepare()
    m = measured(data)
    points, labels = data.reference().double().flatten(1), data.train_split.y
    x0, x1, t = bridge(m, "train")
    expected = []
    for x, time, target, y in zip((1 - t) * x0 + t * x1, t[:, 0], x1 - x0, labels[m.samples["train"]]):
        own = points[labels == y]
        weights = torch.softmax(-((x - time * own) ** 2).sum(1) / (2 * (1 - time) ** 2), 0)
        expected.append((((weights @ own - x) / (1 - time) - target) ** 2).mean())
    torch.testing.assert_close(m.references["closed_form", "train"], torch.stack(expected), rtol=1e-5, atol=1e-9)


def test_left_out_where_the_closed_form_does_not_hold(digits):
    m = measured(digits, LinearPath(sigma_min=0.1))
    assert m.references == {}
    assert "sigma_min" in m.left_out


def test_the_budget_is_a_tenth():
    assert 2 * 10 * budget(500, 100, 10) <= 500 * 100 / 10
    assert budget(500, 100, 10) == 200
    assert budget(200, 10, 10) == 10
    assert budget(13, 4, 10) == 2
