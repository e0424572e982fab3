"""The networks that are timed. Weights as initialised, but for the zero ones, which become small: speed is all that counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fm_lightning.nets import ResidualMLP, UNet

CIFAR: dict[str, Any] = {
    "shape": (3, 32, 32),
    "num_channels": 128,
    "num_res_blocks": 2,
    "channel_mult": (1, 2, 2, 2),
    "attention_resolutions": (16,),
    "num_heads": 4,
    "num_head_channels": 64,
}


def digits_mlp() -> nn.Module:
    """The quickstart's: 339 k parameters, 8x8 pixels."""
    torch.manual_seed(0)
    return ResidualMLP([1, 8, 8], width=128, depth=3).eval()


def small_unet() -> nn.Module:
    """configs/cifar10_small.yaml's: 0.3 M parameters, 3x32x32 pixels."""
    torch.manual_seed(0)
    return _stirred(
        UNet(
            (3, 32, 32),
            num_channels=16,
            num_res_blocks=1,
            channel_mult=(1, 2, 2),
            attention_resolutions=(8,),
            num_heads=2,
            groups=8,
        )
    )


def cifar_unet() -> nn.Module:
    """CIFAR-10's: 35.7 M parameters, 3x32x32 pixels."""
    torch.manual_seed(0)
    return _stirred(UNet(**CIFAR))


def _stirred(net: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.01)
    return net.eval()
