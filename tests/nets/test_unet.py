from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fm_lightning.adapters.torchcfm import load, options
from fm_lightning.errors import UserError
from fm_lightning.nets import UNet
from fm_lightning.nets.unet_blocks import SelfAttention, sinusoids


def small(**changes) -> UNet:
    arguments = {
        "shape": (3, 8, 8),
        "num_channels": 8,
        "num_res_blocks": 1,
        "channel_mult": (1, 2),
        "attention_resolutions": (4,),
        "num_heads": 2,
        "groups": 4,
    }
    return UNet(**(arguments | changes))


def randomised(net: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 1 + 0.2 * noise)
    return net


def inputs(batch: int = 3, size: tuple[int, ...] = (3, 8, 8)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, *size, generator=generator), torch.linspace(0, 1, batch)


@pytest.mark.parametrize("size", [(3, 8, 8), (3, 4, 12), (3, 16, 2)])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_scale_shift_norm": True, "resblock_updown": True},
        {"channel_mult": (1,), "attention_resolutions": (8,)},
        {"num_res_blocks": 3, "conv_resample": False, "channel_dropout": True, "dropout": 0.5},
    ],
)
def test_output_is_like_the_input(size: tuple[int, ...], changes: dict) -> None:
    x, t = inputs(size=size)
    v = randomised(small(**changes))(x, t)
    assert v.shape == x.shape
    assert v.isfinite().all()
    assert v.std() > 0.01


def test_an_untrained_network_is_the_velocity_zero_and_learns() -> None:
    net = small()
    x, t = inputs()
    v = net(x, t)
    assert (v == 0).all()
    zero_convolutions = sum(bool((p == 0).all()) for p in net.parameters() if p.ndim == 4)
    assert zero_convolutions == 8 + 4 + 1  # residual blocks, attentions, output
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(5):
        loss = (net(x, t) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.9 * x.square().mean()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


@torch.no_grad()
def test_samples_do_not_see_each_other_and_time_may_be_a_number() -> None:
    net = randomised(small()).eval()
    x, t = inputs()
    torch.testing.assert_close(net(x, t)[1:2], net(x[1:2], t[1:2]))
    torch.testing.assert_close(net(x, torch.tensor(0.5)), net(x, torch.full((3,), 0.5)))


@torch.no_grad()
def test_channels_last_stays_channels_last() -> None:
    net = randomised(small(num_res_blocks=2, use_scale_shift_norm=True, attention_resolutions=(8, 4))).eval()
    x, t = inputs()
    expected = net(x, t)
    net = net.to(memory_format=torch.channels_last)
    broken: list[str] = []
    for name, module in net.named_modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm | SelfAttention):
            module.register_forward_hook(
                lambda module, args, out, name=name: (
                    None if out.is_contiguous(memory_format=torch.channels_last) else broken.append(name)
                )
            )
    v = net(x.to(memory_format=torch.channels_last), t)
    assert not broken
    torch.testing.assert_close(v, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_uses_the_fused_kernel(memory_format: torch.memory_format, dtype: torch.dtype) -> None:
    net = randomised(small()).to(dtype=dtype, memory_format=memory_format)
    x, t = inputs()
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where it cannot be used
        net(x.to(dtype=dtype, memory_format=memory_format), t).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_gradient(dropout: float) -> None:
    x, t = inputs()
    gradients = []
    for checkpoint in (False, True):
        net = randomised(small(checkpoint=checkpoint, dropout=dropout, num_classes=3))
        torch.manual_seed(0)
        net(x, t, torch.tensor([0, 1, 2])).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(recomputed, plain, rtol=0, atol=0)


def test_checkpointing_keeps_less() -> None:
    x, t = inputs()

    def kept(net: UNet) -> int:
        total = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(x, t)
        return total

    assert kept(small(checkpoint=True, num_res_blocks=2)) < 0.5 * kept(small(num_res_blocks=2))


@torch.no_grad()
def test_autocast_and_half_weights_return_the_input_s_dtype() -> None:
    net = randomised(small()).eval()
    x, t = inputs()
    exact = net(x, t)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = net(x, t)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, rtol=0.05, atol=0.1)
    half = net.bfloat16()(x, t)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, rtol=0.05, atol=0.1)


def test_dropout_acts_in_training_only() -> None:
    net = randomised(small(dropout=0.5))
    x, t = inputs()
    assert not torch.equal(net(x, t), net(x, t))
    net.eval()
    assert torch.equal(net(x, t), net(x, t))
    kinds = {type(m) for m in small(dropout=0.5, channel_dropout=True).modules()}
    assert nn.Dropout2d in kinds
    assert nn.Dropout not in kinds


def test_time_is_told_raw_by_default() -> None:
    t = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)
    embedded = sinusoids(t, 4)
    expected = torch.stack([t.cos(), (0.01 * t).cos(), t.sin(), (0.01 * t).sin()], 1)
    torch.testing.assert_close(embedded, expected, rtol=0, atol=1e-8)
    assert sinusoids(t.bfloat16(), 5).shape == (3, 5)
    assert sinusoids(t.bfloat16(), 5).dtype == torch.float32
    net, scaled = small(), small(time_scale=999.0)
    randomised(net)
    scaled.load_state_dict(net.state_dict())
    x, t = inputs()
    torch.testing.assert_close(scaled(x, t / 999), net(x, t))


def test_the_paper_s_celeba_network() -> None:
    """4.06 M as the ancestor counts: with its frozen table of 1000 x 32 sinusoids, no weight of ours."""
    with torch.device("meta"):
        net = UNet(
            (1, 32, 32),
            32,
            2,
            (1, 2, 4),
            (16, 8),
            groups=8,
            dropout=0.1,
            channel_dropout=True,
            time_scale=999,
        )
    count = sum(p.numel() for p in net.parameters())
    assert count == 4_023_233
    assert round((count + 1000 * 32) / 1e6, 2) == 4.06


def test_the_cifar_network() -> None:
    with torch.device("meta"):
        net = UNet(num_head_channels=64, dropout=0.1)
    assert sum(p.numel() for p in net.parameters()) == 35_746_307


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (3, 9, 8)}, "9 x 8 are not multiples of 2"),
        (
            {"shape": (3, 4, 4), "channel_mult": (1, 1, 1, 1)},
            "3 times, and 4 x 4 are not multiples of 8",
        ),
        ({"shape": (64,)}, r"\[channels, height, width\], not \[64\]"),
        ({"num_channels": 10}, r"num_channels=10 .*\[10, 20\] channels, not multiples of groups=4"),
        ({"channel_mult": (1, 0.1)}, "channel_mult"),
        ({"channel_mult": ()}, "channel_mult"),
        ({"attention_resolutions": (16,)}, r"16 of .* is not among \[8, 4\]"),
        ({"num_heads": 3}, "num_heads=3 .*do not divide 16"),
        ({"num_head_channels": 32}, "num_head_channels=32 do not divide 16"),
        ({"null_class": True}, "num_classes"),
    ],
)
def test_settings_that_do_not_fit(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        small(**changes)
    assert "\n" not in str(error.value)


def test_calls_that_do_not_fit() -> None:
    net = small(num_classes=3)
    x, t = inputs()
    y = torch.tensor([0, 1, 2])
    for arguments, message in [
        ((x[:, :1], t, y), r"\[3, height, width\], not \[1, 8, 8\]"),
        ((x[0], t, y), r"not \[8, 8\]"),
        ((x[..., :7], t, y), "1 times, and 8 x 7 are not multiples of 2"),
        ((x[..., :0], t, y), "8 x 0"),
        ((x, t), "needs labels"),
        ((x, t, y + 1), r"labels 0 ... 2, not 1 ... 3"),
        ((x, t, y - 1), r"labels 0 ... 2, not -1 ... 1"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            net(*arguments)
        assert "\n" not in str(error.value)


@torch.no_grad()
def test_labels() -> None:
    x, t = inputs()
    y = torch.tensor([0, 1, 2])
    unconditional = randomised(small())
    assert torch.equal(unconditional(x, t, y), unconditional(x, t))
    net = randomised(small(num_classes=3, null_class=True))
    assert net.null_label == 3
    assert (net(x, t, y) - net(x, t, torch.full_like(y, 3))).abs().amax((1, 2, 3)).min() > 1e-3
    with pytest.raises(UserError, match=r"0 ... 3"):
        net(x, t, y + 2)
    assert small(num_classes=3).null_label is None


def test_an_empty_batch() -> None:
    x, t = inputs()
    assert small()(x[:0], t[:0]).shape == (0, 3, 8, 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learn_sigma": True}, "learn_sigma"),
        ({"use_fp16": True}, "use_fp16"),
        ({"num_heads_upsample": 2}, "num_heads_upsample"),
        ({"dim": (3, 48, 48)}, "channel_mult"),
    ],
)
def test_torchcfm_arguments_without_counterpart(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        options(**({"dim": (3, 32, 32), "num_channels": 32, "num_res_blocks": 1} | changes))
    assert "\n" not in str(error.value)


def test_no_state_dict() -> None:
    with pytest.raises(UserError, match="There is no file"):
        load(small(), "weights.pt")
    with pytest.raises(UserError, match="its keys are none"):
        load(small(), {})


@pytest.mark.slow
def test_compiles_into_one_graph() -> None:
    net = randomised(small(num_classes=3)).eval()
    x, t = inputs()
    y = torch.tensor([0, 1, 2])
    expected = net(x, t, y)
    torch.testing.assert_close(torch.compile(net, fullgraph=True, backend="eager")(x, t, y), expected)
