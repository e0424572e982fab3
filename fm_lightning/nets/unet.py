"""The ADM U-Net (Dhariwal & Nichol 2021, arXiv 2105.05233), this field's velocity network for small images.

Residual blocks and, at chosen resolutions, self-attention, on a ladder of halved images; the way up
concatenates what the way down has left on each rung. Time (and class) enter every residual block, added
after its first convolution or as scale and shift of its second norm. Every residual branch and the output
convolution start at zero: an untrained network is the velocity 0.

Time is told as torchcfm tells it: the raw ``t`` in [0, 1], times ``time_scale`` (1 by default), goes into
sinusoids of angular frequencies 1 ... 1e-4. Diffusion networks count in thousandths instead:
``time_scale=1000``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from fm_lightning.errors import UserError
from fm_lightning.nets.conditions import distinct, labels_up_to, null_label
from fm_lightning.nets.unet_blocks import Resample, ResBlock, Rung, SelfAttention, sinusoids, zero
from fm_lightning.nets.velocity import Velocity


class UNet(Velocity):
    """Velocity network ``v(x, t, y)`` for images.

    Args:
        shape: ``[C, H, W]`` of one image; H and W are multiples of ``2 ** (len(channel_mult) - 1)``.
        num_channels: channels at full resolution, before ``channel_mult``.
        num_res_blocks: residual blocks per resolution on the way down (one more on the way up).
        channel_mult: multipliers of ``num_channels``, one per resolution, from full resolution down.
        attention_resolutions: widths in pixels at which to attend; the middle, at the lowest, always attends.
        num_heads: heads of each attention.
        num_head_channels: channels per head; if given, it decides and ``num_heads`` is ignored.
        num_classes: 0 for an unconditional network, which ignores labels.
        null_class: one label more, ``null_label = num_classes``, "no class": for classifier-free guidance.
        dropout: probability, in each residual block before its last convolution.
        channel_dropout: drop whole channels instead of single numbers.
        use_scale_shift_norm: time and class as scale and shift of a norm, instead of an added bias.
        resblock_updown: change the resolution inside residual blocks, instead of between them.
        conv_resample: resample between the blocks by a learned convolution; else by averages and copies.
        groups: groups of each GroupNorm; divides the channels at every resolution.
        time_scale: what t in [0, 1] is multiplied by before the sinusoids.
        checkpoint: recompute activations in the backward pass: less memory, more time.

    ``forward`` takes ``x`` ``[B, C, H, W]``, ``t`` ``[B]`` in [0, 1] and ``y`` ``[B]`` int64 or None, and
    returns like ``x``. Other heights and widths than ``shape``'s are fine if they are such multiples.

    The paper's networks: CIFAR-10 (torchcfm's, 35.7 M parameters) is the default with ``num_head_channels=64,
    dropout=0.1``. CelebA (4.06 M, of which 32 000 are a frozen table of sinusoids, computed here) has the
    architecture ``shape=[1, 32, 32], num_channels=32, channel_mult=[1, 2, 4], attention_resolutions=[16, 8],
    groups=8, dropout=0.1, channel_dropout=True, time_scale=999``, but for GELU in its time embedding.

    Raises:
        UserError: at construction, sizes that do not fit together; at call, wrong channels, height or width,
            missing labels, or (on the CPU; elsewhere the look would wait for the device) labels out of range.
    """

    def __init__(
        self,
        shape: Sequence[int] = (3, 32, 32),
        num_channels: int = 128,
        num_res_blocks: int = 2,
        channel_mult: Sequence[float] = (1, 2, 2, 2),
        attention_resolutions: Sequence[int] = (16,),
        num_heads: int = 4,
        num_head_channels: int | None = None,
        num_classes: int = 0,
        null_class: bool = False,
        dropout: float = 0.0,
        channel_dropout: bool = False,
        use_scale_shift_norm: bool = False,
        resblock_updown: bool = False,
        conv_resample: bool = True,
        groups: int = 32,
        time_scale: float = 1.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.multiple = 2 ** (len(channel_mult) - 1)
        self.num_channels = num_channels
        self.num_classes = num_classes
        self.time_scale = time_scale
        self.checkpoint = checkpoint
        self.check_shape(self.shape)
        widths = [int(mult * num_channels) for mult in channel_mult]  # channels, per resolution
        resolutions = [self.shape[2] // 2**level for level in range(len(widths))]
        if not widths or any(width % groups or width < groups for width in widths):
            raise UserError(
                f"UNet: num_channels={num_channels} and channel_mult={list(channel_mult)} make {widths} channels, not multiples "
                f"of groups={groups}.",
                "Change one of the three.",
            )
        if unknown := set(attention_resolutions) - set(resolutions):
            raise UserError(
                f"UNet: {min(unknown)} of attention_resolutions={list(attention_resolutions)} is not among {resolutions}.",
                "Choose among these.",
            )
        if num_res_blocks < 1 or num_classes < 0 or not 0 <= dropout < 1:
            given = f"num_res_blocks={num_res_blocks}, num_classes={num_classes} and dropout={dropout:g}"
            raise UserError(
                f"UNet: {given} are not all in range.", "Use at least 1, at least 0, and from 0 to below 1."
            )
        self.null_label = null_label(self, null_class)

        emb = 4 * num_channels

        def resblock(channels: int, out: int, resample: nn.Module | None = None) -> ResBlock:
            drop = nn.Dropout2d(dropout) if channel_dropout else nn.Dropout(dropout)
            return ResBlock(channels, out, emb, groups, drop, use_scale_shift_norm, resample)

        def attention(channels: int) -> SelfAttention:
            heads = channels // num_head_channels if num_head_channels else num_heads
            if heads < 1 or channels % (num_head_channels or heads):
                raise UserError(
                    f"UNet: num_heads={num_heads} and num_head_channels={num_head_channels} do not divide {channels} channels.",
                    "Change one of them or channel_mult.",
                )
            return SelfAttention(channels, heads, groups)

        def block(channels: int, out: int, resolution: int) -> Rung:
            attends = [attention(out)] if resolution in attention_resolutions else []
            return Rung([resblock(channels, out), *attends])

        def resample(direction: Literal["down", "up"], channels: int) -> nn.Module:
            if resblock_updown:
                return resblock(channels, channels, Resample(direction, channels, learned=False))
            return Resample(direction, channels, conv_resample)

        self.time = nn.Sequential(nn.Linear(num_channels, emb), nn.SiLU(), nn.Linear(emb, emb))
        self.label = nn.Embedding(num_classes + null_class, emb) if num_classes else None
        self.stem = nn.Conv2d(self.shape[0], widths[0], 3, padding=1)
        channels, skips = widths[0], [widths[0]]
        self.down = nn.ModuleList()
        for width, resolution in zip(widths, resolutions):
            if self.down:
                self.down.append(Rung([resample("down", channels)]))
                skips.append(channels)
            for _ in range(num_res_blocks):
                self.down.append(block(channels, width, resolution))
                channels = width
                skips.append(channels)
        self.middle = Rung([resblock(channels, channels), attention(channels), resblock(channels, channels)])
        self.up = nn.ModuleList()
        for width, resolution in zip(widths[::-1], resolutions[::-1]):
            for _ in range(num_res_blocks + 1):
                rung = block(channels + skips.pop(), width, resolution)
                self.up.append(rung)
                channels = width
            if skips:
                rung.append(resample("up", channels))
        self.norm = nn.GroupNorm(groups, channels)
        self.out = zero(nn.Conv2d(channels, self.shape[0], 3, padding=1))

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.check_shape(x.shape[1:])
        dtype = self.stem.weight.dtype
        emb = self.time(sinusoids(distinct(t.expand(len(x))) * self.time_scale, self.num_channels).to(dtype))
        if self.label is not None:
            fix = "Set num_classes to the data's, and null_class=True for guidance."
            emb = emb + self.label(labels_up_to(self.label.num_embeddings - 1, self, y, "", fix))
        h = self.stem(x.to(dtype))
        skips = [h]
        for rung in self.down:
            h = self._run(rung, h, emb)
            skips.append(h)
        h = self._run(self.middle, h, emb)
        for rung in self.up:
            h = self._run(rung, torch.cat([h, skips.pop()], 1), emb)
        return self.out(F.silu(self.norm(h))).to(x.dtype)

    def _run(self, rung: nn.Module, h: Tensor, emb: Tensor) -> Tensor:
        if self.checkpoint and torch.is_grad_enabled():
            return recompute(rung, h, emb, use_reentrant=False)
        return rung(h, emb)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UserError for images ``[channels, height, width]`` that the network cannot take."""
        if len(shape) != 3 or shape[0] != self.shape[0]:
            channels = self.shape[0] if len(self.shape) == 3 else "channels"
            raise UserError(
                f"UNet takes images of shape [{channels}, height, width], not {list(shape)}.",
                f"Build it with shape={list(shape)}.",
            )
        if any(side % self.multiple or side < self.multiple for side in shape[1:]):
            raise UserError(
                f"UNet halves images {self.multiple.bit_length() - 1} times, and {shape[1]} x {shape[2]} are not multiples of "
                f"{self.multiple}.",
                "Resize the images or shorten channel_mult.",
            )
