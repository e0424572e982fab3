from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.nets import Guided, UNet, drop_labels


class Labelled(nn.Module):
    """v = (1 + y) x + t, and a count of what it was asked."""

    null_label = 9

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        assert y is not None
        self.batches.append(len(x))
        return (1 + y.to(x))[:, None] * x + t[:, None]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, generator=generator), torch.linspace(0, 1, 4), torch.tensor([0, 1, 2, 3])


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0, 1.5, 4.0])
def test_the_formula(scale: float, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, t, y = batch
    net = Labelled()
    null, conditional = net(x, t, torch.full_like(y, 9)), net(x, t, y)
    net.batches.clear()
    torch.testing.assert_close(Guided(net, scale)(x, t, y), null + scale * (conditional - null))
    assert net.batches == ([4] if scale == 1 else [8])


def test_an_explicit_null_label_comes_first(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, t, y = batch
    torch.testing.assert_close(Guided(Labelled(), 0.0, null_label=0)(x, t, y), x + t[:, None])


def test_guided_unet() -> None:
    net = UNet((1, 4, 4), 8, 1, (1,), (), num_heads=1, num_classes=2, null_class=True, groups=4).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.2, generator=torch.Generator().manual_seed(parameter.numel()))
        x, t, y = torch.randn(3, 1, 4, 4), torch.rand(3), torch.tensor([0, 1, 1])
        null, conditional = net(x, t, torch.full_like(y, 2)), net(x, t, y)
        assert (null - conditional).abs().max() > 1e-3
        torch.testing.assert_close(Guided(net, 3.0)(x, t, y), null + 3 * (conditional - null), rtol=1e-4, atol=1e-5)


def test_bad_input(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    x, t, _ = batch
    with pytest.raises(UserError, match="no labels"):
        Guided(Labelled(), 2.0)(x, t)
    with pytest.raises(UserError, match="Linear without a null label"):
        Guided(nn.Linear(3, 3), 2.0)
    plain = UNet((1, 4, 4), 8, 1, (1,), (), num_heads=1, num_classes=2, groups=4)
    with pytest.raises(UserError, match=r"UNet without a null label.*null_class=True"):
        Guided(plain, 2.0)


def test_drop_labels() -> None:
    labels = torch.arange(8)
    draws = torch.tensor([0.0, 0.05, 0.1, 0.5, 0.9, 0.99, 0.0999, 0.3])
    dropped = drop_labels(labels, draws, 0.1, 10)
    assert dropped.tolist() == [10, 10, 2, 3, 4, 5, 10, 7]
    assert dropped.dtype == torch.int64
    assert labels.tolist() == list(range(8))
    assert torch.equal(drop_labels(labels, draws, 0.0, 10), labels)
    assert (drop_labels(labels, draws, 1.0, 10) == 10).all()
