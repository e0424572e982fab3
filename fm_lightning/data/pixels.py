"""Conversion between pixels and [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_pixels(x: Tensor) -> Tensor:
    """Maps uint8 pixels to float32 in [-1, 1]."""
    return x.to(torch.float32).div_(127.5).sub_(1)


def pixels(x: Tensor) -> Tensor:
    """Maps [-1, 1] to uint8 pixels, rounded to nearest and clamped."""
    return ((x + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
