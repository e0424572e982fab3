"""Denoiser, noise, data, v and score of one mixture of Gaussians: all are the same velocity."""

from __future__ import annotations

import pytest
import torch

from fm_lightning.adapters import FromDenoiser, FromNoise, FromScore, Reversed
from fm_lightning.errors import UserError
from fm_lightning.flow import Guidance, Schedule, integrate, log_likelihood

CENTRES = torch.tensor([[1.0, 0.2, -0.5], [-0.8, 0.6, 0.9], [0.1, -1.2, 0.3]], dtype=torch.float64)
STD = 0.3
SQUARES = torch.linspace(0.99999**0.5, 0.0064**0.5, 400, dtype=torch.float64) ** 2
RATIOS = ((1 - SQUARES) / SQUARES).sqrt()


def column(x):
    return x.reshape(-1, 1)


def denoiser(z, sigma, y=None):
    """E[x1 | x1 + sigma n] of the mixture, or of one centre alone for each label below 3."""
    sigma = column(sigma)
    total = STD**2 + sigma**2
    logits = -(z[:, None] - CENTRES).square().sum(2) / (2 * total)
    if y is not None:
        logits = torch.where((y[:, None] == torch.arange(3)) | (y[:, None] == 3), logits, -torch.inf)
    centre = logits.softmax(1) @ CENTRES
    return (STD**2 * z + sigma**2 * centre) / total


def truth(x, t, y=None):
    return (denoiser(x / column(t), (1 - t) / t, y) - x) / column(1 - t)


def on_steps(kind):
    """A network on the variance-preserving path, told real steps."""

    def network(z, step, *labels):
        left = step.floor().long().clamp(max=len(RATIOS) - 2)
        ratio = RATIOS[left] + (step - left) * (RATIOS[left + 1] - RATIOS[left])
        a = column(1 / (1 + ratio**2).sqrt())
        s = a * column(ratio)
        data = denoiser(z / a, ratio, *labels)
        noise = (z - a * data) / s
        return {"epsilon": noise, "sample": data, "v_prediction": a * noise - s * data, "score": -noise / s}[kind]

    return network


def linear_score(x, t):
    return -(x - column(t) * denoiser(x / column(t), (1 - t) / t)) / column(1 - t) ** 2


def exploding_score(z, sigma):
    return (denoiser(z, sigma) - z) / column(sigma) ** 2


VELOCITIES = {
    "denoiser": FromDenoiser(denoiser),
    **{kind: FromNoise(on_steps(kind), SQUARES, kind) for kind in ("epsilon", "sample", "v_prediction", "score")},
    "score linear": FromScore(linear_score),
    "score exploding": FromScore(exploding_score, "exploding"),
}


def noise(n=6):
    return torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", VELOCITIES)
def test_all_give_the_same_trajectories_energies_and_likelihood(name):
    schedule = Schedule(steps=12, solver="rk4", t_start=0.1, t_end=0.95)
    ours, true = (integrate(v, noise(), schedule) for v in (VELOCITIES[name], truth))
    torch.testing.assert_close(ours.x1, true.x1, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(ours.energy, true.energy, rtol=1e-10, atol=1e-10)
    ours, true = (log_likelihood(v, noise(), schedule) for v in (VELOCITIES[name], truth))
    torch.testing.assert_close(ours.log_p, true.log_p, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", VELOCITIES)
def test_the_ends_exist_and_are_the_nearest_trained_level(name):
    field, x = VELOCITIES[name], noise(4)
    first, last = field.trained_on
    assert 0 < first < last < 1
    at = field(x, torch.tensor([0.0, first, last, 1.0], dtype=torch.float64))
    assert at.isfinite().all()
    torch.testing.assert_close(at[0], field(x[:1], torch.tensor([first], dtype=torch.float64))[0])
    torch.testing.assert_close(at[3], field(x[3:], torch.tensor([last], dtype=torch.float64))[0])
    assert integrate(field, x, Schedule(steps=4, solver="heun")).x1.isfinite().all()


def test_trained_levels_are_declared():
    assert FromDenoiser(denoiser, 0.002, 80).trained_on == pytest.approx((1 / 81, 1 / 1.002))
    assert FromNoise(on_steps("epsilon"), SQUARES).trained_on == pytest.approx(
        (float(1 / (1 + RATIOS[-1])), float(1 / (1 + RATIOS[0])))
    )


def test_clipping_belongs_to_the_velocity():
    x, t = noise(), torch.full((6,), 0.3, dtype=torch.float64)
    clipped = FromNoise(on_steps("epsilon"), SQUARES, clip=0.2)(x, t)
    data = denoiser(x / 0.3, torch.full((6,), 7 / 3, dtype=torch.float64))
    torch.testing.assert_close(clipped, data.clamp(-0.2, 0.2) - (x - 0.3 * data) / 0.7, rtol=1e-9, atol=1e-9)


def test_whole_steps_are_the_nearest_and_integers():
    told = []

    def network(z, step):
        told.append(step)
        return torch.zeros_like(z)

    field = FromNoise(network, SQUARES, integer_steps=True)
    between = 1 / (1 + 0.7 * RATIOS[100] + 0.3 * RATIOS[101])
    field(noise(2), between.expand(2))
    assert told[0].dtype == torch.int64
    assert told[0].tolist() == [100, 100]


def test_classes_and_guidance():
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    schedule = Schedule(steps=6, t_start=0.1, t_end=0.9)
    for field in (
        FromDenoiser(denoiser, num_classes=3, null_label=3),
        FromNoise(on_steps("epsilon"), SQUARES, num_classes=3, null_label=3),
    ):
        one = integrate(field, noise(), schedule, labels=labels)
        torch.testing.assert_close(one.x1, integrate(truth, noise(), schedule, labels=labels).x1, rtol=1e-9, atol=1e-9)
        two = integrate(
            field, noise(), Schedule(steps=6, t_start=0.1, t_end=0.9, guidance=Guidance(0.0)), labels=labels
        )
        null = integrate(truth, noise(), schedule, labels=torch.full((6,), 3))
        torch.testing.assert_close(two.x1, null.x1, rtol=1e-9, atol=1e-9)
        with pytest.raises(UserError, match="needs labels"):
            field(noise(), torch.full((6,), 0.5, dtype=torch.float64))


def test_tuples_output_objects_and_learned_variances():
    class Output:
        def __init__(self, sample):
            self.sample = sample

    x, t = noise(), torch.full((6,), 0.3, dtype=torch.float64)
    wanted = FromDenoiser(denoiser)(x, t)
    for wrap in (lambda d: (d, 1), Output, lambda d: torch.cat([d, d + 5], 1)):
        assert torch.equal(FromDenoiser(lambda z, s, wrap=wrap: wrap(denoiser(z, s)))(x, t), wanted)
    for wrong, message in ((lambda z, s: {"a": z}, "returns a dict"), (lambda z, s: z[:, :1], r"shape \[6, 1\]")):
        with pytest.raises(UserError, match=message):
            FromDenoiser(wrong)(x, t)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FromDenoiser(denoiser, 0.0, 80.0), "sigma_min=0 and sigma_max=80"),
        (lambda: FromDenoiser(denoiser, 1.0, 0.5), "ascending"),
        (lambda: FromNoise(denoiser, SQUARES.flip(0)), "descending"),
        (lambda: FromNoise(denoiser, [0.5]), "descending"),
        (lambda: FromNoise(denoiser, SQUARES, "eps"), "prediction='eps' is unknown"),
        (lambda: FromNoise(denoiser, SQUARES, interpolation="cubic"), "interpolation='cubic'"),
        (lambda: FromNoise(denoiser, [0.9, 0.5, 0.0]), "zero terminal SNR"),
        (lambda: FromScore(denoiser, "vp"), "path='vp' is unknown"),
        (lambda: FromScore(denoiser, trained_on=(0.0, 1.0)), "does not decide the velocity at t = 0"),
        (lambda: FromScore(denoiser, trained_on=(0.5, 0.2)), "no range"),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_v_prediction_takes_a_last_step_without_signal():
    field = FromNoise(lambda z, step: torch.zeros_like(z), [0.9, 0.5, 0.0], "v_prediction")
    assert field(noise(), torch.zeros(6, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("given", [[1.9, 0.5], None, "linear", []])
def test_alphas_that_are_none(given):
    with pytest.raises(UserError, match="descending numbers between 1 and 0"):
        FromNoise(lambda z, s: z, given)


@pytest.mark.parametrize("kind", [FromDenoiser, Reversed])
def test_what_is_no_network(kind):
    with pytest.raises(UserError, match="takes a network, not a NoneType"):
        kind(None)


def test_a_plain_function_is_reversed():
    x = torch.ones(2, 3)
    assert torch.equal(Reversed(lambda x, t, y=None: x * t[:, None])(x, torch.full((2,), 0.25)), -0.75 * x)
