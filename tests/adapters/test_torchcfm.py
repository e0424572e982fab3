"""Our U-Net computes what torchcfm's computes with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fm_lightning.adapters.torchcfm import load, load_torchcfm, options
from fm_lightning.errors import UserError
from fm_lightning.nets import UNet

reference = pytest.importorskip(
    "torchcfm.models.unet.unet",
    reason="torchcfm is not importable: pip install --no-deps torchcfm, and pip install POT",
    exc_type=ImportError,
)

SMALL = {"dim": (3, 8, 8), "num_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 2)}
CONFIGS = {
    "plain": {**SMALL, "attention_resolutions": "4"},
    "cifar shape": {
        "dim": (3, 16, 16),
        "num_channels": 32,
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 2, 2],
        "attention_resolutions": "8",
        "num_heads": 4,
        "num_head_channels": 16,
        "dropout": 0.1,
    },
    "many attentions": {**SMALL, "channel_mult": (2, 1, 3), "attention_resolutions": "8,4,2", "num_heads": 2},
    "head channels": {**SMALL, "attention_resolutions": "4", "num_heads": 3, "num_head_channels": 8},
    "scale shift": {**SMALL, "attention_resolutions": "8", "use_scale_shift_norm": True, "num_heads": 4},
    "resblock updown": {**SMALL, "attention_resolutions": "4", "resblock_updown": True, "num_heads": 2},
    "new attention order": {
        **SMALL,
        "attention_resolutions": "8,4",
        "num_heads": 4,
        "use_new_attention_order": True,
    },
    "classes": {**SMALL, "attention_resolutions": "4", "class_cond": True, "num_classes": 7},
    "everything": {
        "dim": (1, 12, 12),
        "num_channels": 64,
        "num_res_blocks": 2,
        "channel_mult": (0.5, 1, 2.5),
        "attention_resolutions": "6,3",
        "num_head_channels": 32,
        "use_scale_shift_norm": True,
        "resblock_updown": True,
        "class_cond": True,
        "num_classes": 3,
    },
    "default multipliers": {
        "dim": (1, 28, 28),
        "num_channels": 32,
        "num_res_blocks": 1,
        "num_heads": 2,
        # torchcfm reads "16" on 28 pixels as the factor 28 // 16 = 1: attention at full resolution.
        "attention_resolutions": "16",
    },
}


def randomised(net: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter random, also those that start at zero, scaled so that the output is of order 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in net.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        with torch.no_grad():
            if parameter.ndim > 1:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
            else:
                parameter.copy_(0.2 * noise + (1 if name.endswith("weight") else 0))  # norms; biases
    return net.eval()


def torchcfm_net(config: dict) -> nn.Module:
    return randomised(reference.UNetModelWrapper(**config))


def inputs(config: dict, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, *config["dim"], generator=generator, dtype=dtype)
    t = torch.tensor([0.0, 0.123, 0.77, 1.0], dtype=dtype)
    y = torch.tensor([0, 2, 1, 2]) if config.get("class_cond") else None
    return x, t, y


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_same_velocity_in_float32(name: str) -> None:
    config = CONFIGS[name]
    theirs = torchcfm_net(config)
    ours = load_torchcfm(theirs.state_dict(), **config)
    x, t, y = inputs(config)
    expected = theirs(t, x, y)
    assert 0.1 < expected.std() < 10
    for layout in (torch.contiguous_format, torch.channels_last):
        velocity = ours.to(memory_format=layout)(x.to(memory_format=layout), t, y)
        torch.testing.assert_close(velocity, expected, rtol=1e-5, atol=1e-5)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_same_velocity_in_float64(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = CONFIGS[name]
    theirs = torchcfm_net(config).double()
    ours = load_torchcfm(theirs.state_dict(), **config).double()
    ours.load_state_dict({k: v.double() for k, v in ours.state_dict().items()})
    theirs.dtype = torch.float64
    x, t, y = inputs(config, torch.float64)
    actual = ours(x, t, y)
    # torchcfm goes through float32 in norms, softmax and times, for every input type.
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    torch.testing.assert_close(actual, theirs(t, x, y), rtol=1e-11, atol=1e-11)


@torch.no_grad()
def test_the_comparison_sees_attention_time_and_class() -> None:
    """Guards the tests above: what they compare does depend on everything that they claim to compare."""
    config = CONFIGS["classes"] | {"num_heads": 4}
    weights = torchcfm_net(config).state_dict()
    x, t, y = inputs(config)
    assert y is not None
    ours = load_torchcfm(weights, **config)
    right = ours(x, t, y)
    for wrong in (
        load_torchcfm(weights, **config, use_new_attention_order=True)(x, t, y),
        load_torchcfm(weights, **(config | {"num_heads": 2}))(x, t, y),
        ours(x, t.flip(0), y),
        ours(x, t, y.flip(0)),
    ):
        assert (wrong - right).abs().max() > 1e-2


@torch.no_grad()
def test_other_options_of_the_base_class() -> None:
    """``conv_resample=False``, which the wrapper does not reach."""
    theirs = randomised(reference.UNetModel(8, 3, 32, 3, 1, (2,), channel_mult=(1, 2), conv_resample=False))
    ours = UNet((3, 8, 8), 32, 1, (1, 2), (4,), num_heads=1, conv_resample=False).eval()
    load(ours, theirs.state_dict())
    x, t, _ = inputs(SMALL)
    torch.testing.assert_close(ours(x, t), theirs(t, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prefix", ["module.", "module._orig_mod."])
@pytest.mark.parametrize("wrapped", [False, True])
@torch.no_grad()
def test_checkpoints_of_the_training_scripts(prefix: str, wrapped: bool) -> None:
    config = CONFIGS["plain"]
    theirs, raw = torchcfm_net(config), randomised(reference.UNetModelWrapper(**config), seed=5)
    weights = {prefix + key: value for key, value in theirs.state_dict().items()}
    other = {prefix + key: value for key, value in raw.state_dict().items()}
    checkpoint = {"net_model": other, "ema_model": weights, "step": 400_000} if wrapped else weights
    ours = load_torchcfm(checkpoint, **config)
    x, t, _ = inputs(config)
    torch.testing.assert_close(ours(x, t), theirs(t, x), rtol=1e-5, atol=1e-5)
    assert not ours.training


def test_mismatch_names_the_first_key_and_its_shapes() -> None:
    config = CONFIGS["plain"]
    weights = torchcfm_net(config).state_dict()
    with pytest.raises(UserError, match=r"^time_embed.0.weight of .* has shape \[128, 32\], not \[256, 64\]\. .*$"):
        load_torchcfm(weights, **(config | {"num_channels": 64}))
    with pytest.raises(UserError, match=r"lacks label_emb.weight \(of shape \[7, 128\]\)"):
        load_torchcfm(weights, **config, class_cond=True, num_classes=7)
    with pytest.raises(UserError, match=r"^input_blocks.1.0.emb_layers.1.weight of .* has shape \[32, 128\], not \[64"):
        load_torchcfm(weights, **config, use_scale_shift_norm=True)
    with pytest.raises(UserError, match=r"lacks input_blocks.1.1.norm.weight \(of shape \[32\]\)"):
        load_torchcfm(weights, **(config | {"attention_resolutions": "8,4"}))
    conditional = torchcfm_net(CONFIGS["classes"]).state_dict()
    with pytest.raises(UserError, match=r"^label_emb.weight of .* has no place in the network"):
        load_torchcfm(conditional, **config)


def test_every_layer_that_starts_at_zero_in_theirs_starts_at_zero_in_ours() -> None:
    config = CONFIGS["everything"]
    fresh = load_torchcfm(reference.UNetModelWrapper(**config).state_dict(), **config)
    for (name, loaded), ours in zip(fresh.named_parameters(), UNet(**options(**config)).parameters()):
        assert (loaded == 0).all() == (ours == 0).all(), name


def test_the_cifar_network_has_35_7_million_parameters() -> None:
    config = {
        "dim": (3, 32, 32),
        "num_channels": 128,
        "num_res_blocks": 2,
        "channel_mult": [1, 2, 2, 2],
        "num_heads": 4,
        "num_head_channels": 64,
        "attention_resolutions": "16",
        "dropout": 0.1,
    }
    with torch.device("meta"):
        theirs = reference.UNetModelWrapper(**config)
        ours = UNet(num_head_channels=64, dropout=0.1)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters()) == 35_746_307
