"""Guidance: the formula, which channels and which times, what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.nets import Guided, ResidualMLP, UNet, Velocity, drop_labels


class Labelled(Velocity):
    """v = (1 + y) x + t, and a count of what it was asked."""

    num_classes, null_label = 9, 9

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        self.batches.append(len(x))
        return (1 + y.to(x)).reshape(-1, *[1] * (x.ndim - 1)) * x + t.reshape(-1, *[1] * (x.ndim - 1))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, generator=generator), torch.linspace(0, 1, 4), torch.tensor([0, 1, 2, 3])


def both(net: nn.Module, x: Tensor, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return net(x, t, torch.full_like(y, 9)), net(x, t, y)


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.5, 4.0])
def test_the_formula(scale: float, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, t, y = batch
    net = Labelled()
    null, conditional = both(net, x, t, y)
    for function in (Guided(net, scale), Guided(net, scale).at(0.3)):
        net.batches.clear()
        torch.testing.assert_close(function(x, t, y), null + scale * (conditional - null))
        assert net.batches == ([4] if scale == 1 else [8])
    assert Guided(net, scale).evaluations(0.3) == (1 if scale == 1 else 2)


@pytest.mark.parametrize("shape", [(3,), (4,), (4, 2, 2), (7, 3)])
@pytest.mark.parametrize("channels", [1, 3, None])
def test_other_channels_keep_the_conditional_velocity(shape: tuple[int, ...], channels: int | None) -> None:
    x, t, y = torch.randn(5, *shape), torch.rand(5), torch.arange(5) % 3
    null, conditional = both(Labelled(), x, t, y)
    got = Guided(Labelled(), 2.5, channels=channels)(x, t, y)
    last = shape[0] if channels is None else channels
    torch.testing.assert_close(got[:, :last], (null + 2.5 * (conditional - null))[:, :last])
    assert torch.equal(got[:, last:], conditional[:, last:])


@pytest.mark.parametrize(
    ("t", "guided"), [(0.0, False), (0.19, False), (0.2, True), (0.5, True), (0.7, True), (0.701, False), (1.0, False)]
)
def test_outside_the_interval_the_network_is_called_once(
    t: float, guided: bool, batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    x, _, y = batch
    times = torch.full((4,), t)
    null, conditional = both(Labelled(), x, times, y)
    net = Labelled()
    field = Guided(net, 2.0, interval=(0.2, 0.7))
    want = null + 2 * (conditional - null) if guided else conditional
    torch.testing.assert_close(field.at(t)(x, times, y), want)
    assert net.batches == [8 if guided else 4]
    assert field.evaluations(t) == (2 if guided else 1)
    torch.testing.assert_close(field(x, times, y), want)  # asked without saying the time beforehand


def test_every_sample_has_its_own_time(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, _, y = batch
    times = torch.tensor([0.0, 0.2, 0.7, 0.9])
    null, conditional = both(Labelled(), x, times, y)
    got = Guided(Labelled(), 3.0, interval=(0.2, 0.7))(x, times, y)
    torch.testing.assert_close(got[1:3], (null + 3 * (conditional - null))[1:3])
    assert torch.equal(got[[0, 3]], conditional[[0, 3]])


@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.4, 1.0)])
def test_a_told_time_beyond_the_end_is_the_end(
    interval: tuple[float, float], batch: tuple[Tensor, Tensor, Tensor]
) -> None:
    x, _, y = batch
    times = torch.full((4,), 1.02)
    field = Guided(Labelled(), 2.0, interval=interval)
    null, conditional = both(Labelled(), x, times, y)
    assert field.evaluations(1.02) == 2
    for got in (field(x, times, y), field.at(1.02)(x, times, y)):
        torch.testing.assert_close(got, null + 2 * (conditional - null))


def test_equal_functions_may_be_called_together() -> None:
    field = Guided(Labelled(), 2.0, interval=(0.2, 0.7))
    assert field.at(0.3) == field.at(0.6) != field.at(0.1) == field.at(0.9)
    assert field.parts_at(0.3) == field.parts_at(0.6) != field.parts_at(0.1)


def test_an_expanded_time_stays_one_number() -> None:
    strides = []

    class Asked(Labelled):
        def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
            strides.append(t.stride(0))
            return super().forward(x, t, y)

    x, y = torch.ones(3, 2), torch.zeros(3, dtype=torch.int64)
    Guided(Asked(), 2.0)(x, torch.full((1,), 0.5).expand(3), y)
    Guided(Asked(), 2.0)(x, torch.full((3,), 0.5), y)
    assert strides == [0, 1]


def test_an_explicit_null_label_comes_first(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, t, y = batch
    torch.testing.assert_close(Guided(Labelled(), 0.0, null_label=0)(x, t, y), x + t[:, None])


def test_it_passes_on_what_the_network_is() -> None:
    net = UNet((1, 4, 4), 8, 1, (1,), (), num_heads=1, num_classes=2, null_class=True, groups=4)
    field = Guided(net, 2.0)
    assert (field.num_classes, field.null_label, field.singular_end) == (2, 2, False)
    with pytest.raises(UserError, match="UNet takes"):
        field.check_shape((3, 4, 4))


def test_guided_unet() -> None:
    net = UNet((1, 4, 4), 8, 1, (1,), (), num_heads=1, num_classes=2, null_class=True, groups=4).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(parameter.numel()))
        x, t, y = torch.randn(3, 1, 4, 4), torch.rand(3), torch.tensor([0, 1, 1])
        null, conditional = net(x, t, torch.full_like(y, 2)), net(x, t, y)
        assert (null - conditional).abs().max() > 1e-3
        torch.testing.assert_close(Guided(net, 3.0)(x, t, y), null + 3 * (conditional - null), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, "channels=0 must be at least 1"),
        ({"channels": -2}, "channels=-2"),
        ({"interval": (0.7, 0.2)}, r"interval=\[0.7, 0.2\] must be two ascending times"),
        ({"interval": (0.5, 0.5)}, "interval"),
        ({"interval": (200, 800)}, "interval"),
        ({"interval": (-0.1, 1)}, "interval"),
        ({"interval": (0.5,)}, "interval"),
    ],
)
def test_settings_that_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        Guided(Labelled(), 2.0, **settings)
    assert "\n" not in str(error.value)


def test_bad_input(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, t, y = batch
    with pytest.raises(UserError, match="needs labels"):
        Guided(Labelled(), 2.0)(x, t)
    for call in (Guided(Labelled(), 2.0, channels=4), Guided(Labelled(), 2.0, channels=4).at(0.5)):
        with pytest.raises(UserError, match=r"channels=4 exceeds the 3 channels of samples of shape \[3\]"):
            call(x, t, y)
    plain = UNet((1, 4, 4), 8, 1, (1,), (), num_heads=1, num_classes=2, groups=4)
    for net in (nn.Linear(3, 3), ResidualMLP([3], num_classes=2), plain):
        with pytest.raises(UserError, match=rf"{type(net).__name__} has no null label.*null_class=True"):
            Guided(net, 2.0)


def test_drop_labels() -> None:
    labels = torch.arange(8)
    draws = torch.tensor([0.0, 0.05, 0.1, 0.5, 0.9, 0.99, 0.0999, 0.3])
    dropped = drop_labels(labels, draws, 0.1, 10)
    assert dropped.tolist() == [10, 10, 2, 3, 4, 5, 10, 7]
    assert dropped.dtype == torch.int64
    assert labels.tolist() == list(range(8))
    assert torch.equal(drop_labels(labels, draws, 0.0, 10), labels)
    assert (drop_labels(labels, draws, 1.0, 10) == 10).all()
