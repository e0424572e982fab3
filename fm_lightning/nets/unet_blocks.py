"""The layers of the U-Net. Each takes ``(x, emb)``: features ``[B, C, H, W]`` and embedded time and class.

With channels-last input and weights everything stays channels-last, and nothing is copied for the attention.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResBlock(nn.Module):
    """``x + h(x, emb)``, with ``out`` channels; ``resample`` acts inside the branch and on the skip."""

    def __init__(
        self,
        channels: int,
        out: int,
        emb: int,
        groups: int,
        dropout: nn.Module,
        scale_shift: bool,
        resample: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.emb = nn.Linear(emb, 2 * out if scale_shift else out)
        self.norm2 = nn.GroupNorm(groups, out)
        self.conv2 = zero(nn.Conv2d(out, out, 3, padding=1))
        self.skip = nn.Identity() if out == channels else nn.Conv2d(channels, out, 1)
        self.resample = nn.Identity() if resample is None else resample
        self.dropout = dropout
        self.scale_shift = scale_shift

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        h = self.conv1(self.resample(F.silu(self.norm1(x))))
        emb = self.emb(F.silu(emb))[:, :, None, None]
        if self.scale_shift:
            scale, shift = emb.chunk(2, 1)
            h = self.norm2(h) * (1 + scale) + shift
        else:
            h = self.norm2(h + emb)
        h = self.conv2(self.dropout(F.silu(h)))
        return self.skip(self.resample(x)) + h


class SelfAttention(nn.Module):
    """Every pixel attends to every pixel: ``[B, C, H, W]`` to the same shape."""

    def __init__(self, channels: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        # The fused kernels want each pixel's channels side by side; otherwise the slow one steps in, unasked.
        h = self.norm(x).contiguous(memory_format=torch.channels_last)
        qkv = self.qkv(h).flatten(2)  # [B, 3 C, HW]
        qkv = qkv.unflatten(1, (3, self.heads, -1)).transpose(-1, -2)  # [B, 3, heads, HW, C / heads]
        h = F.scaled_dot_product_attention(*qkv.unbind(1))
        return x + self.proj(h.transpose(-1, -2).reshape(x.shape))


class Resample(nn.Module):
    """Halves or doubles height and width, with a learned convolution or by averages and copies."""

    def __init__(self, direction: Literal["down", "up"], channels: int, learned: bool) -> None:
        super().__init__()
        self.up = direction == "up"
        stride = 1 if self.up else 2
        self.conv = nn.Conv2d(channels, channels, 3, stride, padding=1) if learned else None

    def forward(self, x: Tensor, emb: Tensor | None = None) -> Tensor:
        if self.up:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        elif self.conv is None:
            x = F.avg_pool2d(x, 2)
        return x if self.conv is None else self.conv(x)


class Rung(nn.ModuleList):
    """Layers in a row, between two concatenations."""

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        for layer in self:
            x = layer(x, emb)
        return x


def sinusoids(t: Tensor, dim: int) -> Tensor:
    """``[B]`` to ``[B, dim]``: dim / 2 cosines, then sines, of t times 1 ... 1e-4; at least float32."""
    # The frequencies are float32 numbers for any type of t: trained weights have learned from these.
    exponents = torch.arange(dim // 2, dtype=torch.float32, device=t.device) / (dim // 2)
    angle = (t if t.dtype == torch.float64 else t.float())[:, None] * torch.exp(-math.log(10_000) * exponents)
    return F.pad(torch.cat([angle.cos(), angle.sin()], 1), (0, dim % 2))


def zero(layer: nn.Conv2d) -> nn.Conv2d:
    """The same layer, with zero weights: a residual branch that ends in it starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
