"""The training objective, and what the module leaves to others."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fm_lightning import FlowMatching
from fm_lightning.callbacks import DivergenceWatch
from fm_lightning.data.batches import TrainBatch
from fm_lightning.errors import NotFiniteError, UserError
from fm_lightning.flow import Discrete, Guidance, LinearPath, LogitNormal, Schedule, Stratified, Uniform
from fm_lightning.nets import ResidualMLP, UNet, drop_labels
from fm_lightning.noise import step_generator
from fm_lightning.training.draws import Draws
from fm_lightning.training.optim import Warmup


class Affine(nn.Module):
    def forward(self, x, t, y=None):
        return 2 * x + t[:, None]


@pytest.mark.parametrize("sigma_min", [0.0, 0.1])
def test_loss_is_the_mean_squared_error_of_the_velocity(sigma_min):
    module = FlowMatching(Affine(), path=LinearPath(sigma_min))
    x0, x1, t = torch.randn(7, 3), torch.randn(7, 3), torch.rand(7)
    loss = module.loss(x0, x1, t, None)
    for i in range(7):
        x_t = (1 - (1 - sigma_min) * t[i]) * x0[i] + t[i] * x1[i]
        error = 2 * x_t + t[i] - (x1[i] - (1 - sigma_min) * x0[i])
        assert loss[i] == pytest.approx(float((error**2).mean()), rel=1e-5)


def test_the_loss_is_computed_in_float32_whatever_the_network_returns():
    class Half(nn.Module):
        def forward(self, x, t, y=None):
            return x.bfloat16()

    assert FlowMatching(Half()).loss(torch.randn(2, 3), torch.randn(2, 3), torch.rand(2), None).dtype == torch.float32


def test_a_minimum_of_the_loss_is_the_conditional_expectation():
    """Data at one point: the regression target at x_t is (x1 - x_t) / (1 - t), and its loss is zero."""

    class Exact(nn.Module):
        def forward(self, x, t, y=None):
            return (1.5 - x) / (1 - t[:, None])

    x1 = torch.full((64, 2), 1.5)
    loss = FlowMatching(Exact()).loss(torch.randn(64, 2), x1, torch.rand(64) * 0.9, None)
    assert float(loss.max()) < 1e-8


@pytest.mark.parametrize("times", [Uniform(), Discrete(), Stratified(), LogitNormal(), LogitNormal(mean=1.0, std=0.5)])
def test_times_lie_in_the_unit_interval_and_repeat_with_the_generator(times):
    first = times(1000, step_generator(0, 3, "cpu", "bridge"))
    assert first.shape == (1000,)
    assert first.dtype == torch.float32
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, times(1000, step_generator(0, 3, "cpu", "bridge")))
    assert not torch.equal(first, times(1000, step_generator(0, 4, "cpu", "bridge")))


def test_stratified_times_fill_every_stratum():
    t = Stratified()(100, step_generator(0, 0, "cpu", "bridge"))
    assert torch.equal((t * 100).floor().long().clamp_max(99), torch.arange(100))


def test_a_loss_that_is_not_finite_is_reported_with_its_first_step():
    watch, trainer = DivergenceWatch(), SimpleNamespace(log_every_n_steps=5)

    def take(step, value):
        batch = TrainBatch(torch.zeros(1), None, step, 0, 1)
        watch.on_train_batch_end(trainer, None, {"loss": torch.tensor(value)}, batch, step)

    for step, value in enumerate([1.0, 2.0, float("nan"), 1.0]):
        take(step, value)
    with pytest.raises(NotFiniteError, match="step 2"):
        take(4, float("inf"))


def test_only_the_networks_parameters_are_in_the_state():
    module = FlowMatching(ResidualMLP([2], width=8, depth=1))
    assert set(module.state_dict()) == {f"net.{name}" for name, _ in module.net.named_parameters()}


def test_a_network_for_classes_learns_from_labels():
    net = ResidualMLP([2], width=8, depth=1, num_classes=3)
    x, t = torch.randn(6, 2), torch.rand(6)
    y = torch.arange(6) % 3
    assert not torch.allclose(net(x, t, y), net(x, t, (y + 1) % 3))


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("constant", [0.25, 0.5, 0.75, 1, 1, 1, 1, 1]), ("linear", [0.25, 0.5, 0.75, 1, 1, 0.75, 0.5, 0.25])],
)
def test_warmup(decay, expected):
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = Warmup(optimizer, warmup_steps=4, decay=decay, total_steps=8)
    seen = []
    for _ in range(8):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert seen == pytest.approx(expected)


def test_discrete_times_are_those_of_the_release():
    t = Discrete(1000)(5000, step_generator(0, 0, "cpu", "bridge")) * 999
    assert torch.equal(t.round(), t.round().clamp(0, 999))
    torch.testing.assert_close(t, t.round(), atol=1e-3, rtol=0)
    assert t.min() < 5
    assert t.max() > 994


def test_labels_are_dropped_from_seed_and_place_alone():
    net = UNet((1, 8, 8), 8, 1, (1,), (), groups=4, num_classes=3, null_class=True)
    y = torch.arange(40) % 3

    def dropped_from(first):
        share = TrainBatch(torch.zeros(40 - first), y[first:], 3, first, 40)
        return drop_labels(y[first:], Draws(0, share, torch.device("cpu")).labels(), 0.5, net.null_label)

    whole, half = dropped_from(0), dropped_from(20)
    assert torch.equal(whole[20:], half)
    dropped = whole == net.null_label
    assert 8 <= int(dropped.sum()) <= 32
    assert torch.equal(whole[~dropped], y[~dropped])


def test_guidance_samples_the_guided_velocity_and_needs_a_null_label():
    net = UNet((1, 8, 8), 8, 1, (1,), (), groups=4, num_classes=3, null_class=True)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.1)
    module = FlowMatching(net, guidance=2.0)
    x, t, y = torch.randn(3, 1, 8, 8), torch.rand(3), torch.arange(3)
    null = net(x, t, torch.full((3,), net.null_label))
    guidance = module.plan.prediction["base"].schedule.guidance
    torch.testing.assert_close(guidance.of(net)(x, t, y), null + 2 * (net(x, t, y) - null))
    assert set(module.state_dict()) == {f"net.{name}" for name, _ in net.named_parameters()}
    with pytest.raises(UserError, match="null"):
        FlowMatching(UNet((1, 8, 8), 8, 1, (1,), (), groups=4, num_classes=3), guidance=2.0)
    with pytest.raises(UserError, match=r"The schedule more has guidance 3, and ResidualMLP has no null label"):
        FlowMatching(ResidualMLP([2]), test_schedules={"more": Schedule(guidance=Guidance(3.0))})


def test_a_network_that_forgets_a_dimension_is_refused_by_the_loss():
    """[B, 1] against [B, 2] would broadcast: a loss of nothing in particular."""

    class Narrow(nn.Module):
        def forward(self, x, t, y=None):
            return x[:, :1]

    x0, x1 = torch.randn(2, 4, 2)
    with pytest.raises(UserError, match=r"Narrow returns a velocity of shape \[4, 1\] for samples of shape \[4, 2\]"):
        FlowMatching(Narrow()).loss(x0, x1, torch.rand(4), None)


def test_a_warmup_of_negative_length():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match="`warmup_steps=-1` is negative"):
        Warmup(optimizer, warmup_steps=-1)
