"""The scalable interpolant transformer (SiT; Ma et al. 2024, arXiv 2401.08740), on latents or small images.

A DiT (Peebles & Xie 2023, arXiv 2212.09748) that is a velocity: patches become tokens, and time and class modulate every
norm and gate every residual branch (adaLN-Zero),

    x <- x + gate * attention(norm(x) (1 + scale) + shift)
    x <- x + gate * mlp(norm(x) (1 + scale) + shift)          shift, scale, gate = Linear(SiLU(time + class))

Gates and output start at zero: an untrained network is the velocity 0. Parameter names, their order and the computation are
those of the public files (willisma/SiT), so ``load_state_dict`` reads them as they are. ``t`` in [0, 1] is not scaled.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from fm_lightning.errors import UserError
from fm_lightning.nets.conditions import check_same_shape, distinct, labels_up_to
from fm_lightning.nets.unet_blocks import sinusoids
from fm_lightning.nets.velocity import Velocity

SIZES = {"S": (384, 12, 6), "B": (768, 12, 12), "L": (1024, 24, 16), "XL": (1152, 28, 16)}  # width, depth, heads
PATCHES = (2, 4, 8)
MODELS = {f"{name}/{patch}": (*size, patch) for name, size in SIZES.items() for patch in PATCHES}

_FREQUENCIES = 256  # cosines and sines of the time


class SiT(Velocity):
    """Velocity network ``v(x, t, y)``: a transformer over patches.

    Args:
        shape: ``[C, H, W]`` of one sample, for example 4x32x32 latents of 256-pixel images.
        model: a published size, ``S``, ``B``, ``L`` or ``XL``, and the patch's side, 2, 4 or 8: ``"XL/2"``.
        width, depth, heads, patch: channels of a token, blocks, heads of each attention, side of a patch; what is given
            replaces ``model``'s.
        num_classes: number of classes; ``null_label = num_classes`` is one more, "no class", for guidance. 0 for an
            unconditional network, which ignores labels.
        learn_sigma: twice the output channels, the first half of which is the velocity (the public checkpoints have
            them; the rest is not trained here).
        checkpoint: recompute each block's activations in the backward pass: less memory, a third more time.

    Published numbers of parameters (4x32x32, 1000 classes): S/2 33 M, B/2 130 M, L/2 458 M, XL/2 675 M. Among them
    ``pos_embed``, a table of sines and cosines that is stored and not trained.

    Raises:
        UserError: at construction, an unknown model or sizes that do not fit together; at call, samples of another shape,
            missing labels, or (on the CPU; elsewhere the look would wait for the device) labels out of range.
    """

    def __init__(
        self,
        shape: Sequence[int] = (4, 32, 32),
        model: str = "XL/2",
        width: int | None = None,
        depth: int | None = None,
        heads: int | None = None,
        patch: int | None = None,
        num_classes: int = 1000,
        learn_sigma: bool = False,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if model not in MODELS:
            raise UserError(f"SiT: model={model!r} is unknown.", f"Choose among {', '.join(MODELS)}.")
        given = (width, depth, heads, patch)
        width, depth, heads, patch = sizes = [b if a is None else a for a, b in zip(given, MODELS[model], strict=True)]
        if min(sizes) < 1:
            raise UserError(
                f"SiT: width, depth, heads and patch are {sizes} and must be at least 1.", "Increase the smallest."
            )
        self.shape, self.patch = tuple(shape), patch
        self.num_classes, self.null_label = num_classes, num_classes or None
        self.checkpoint = checkpoint
        if len(self.shape) != 3 or any(side < patch or side % patch for side in self.shape[1:]):
            raise UserError(
                f"SiT: shape={list(shape)} must be [channels, height, width] in whole patches of {patch} pixels.",
                "Choose a patch that divides height and width.",
            )
        if width % heads or width % 4:
            raise UserError(
                f"SiT: width={width} must be a multiple of 4 and of heads={heads}.", "Change one of the two."
            )
        channels, rows, columns = self.shape[0], self.shape[1] // patch, self.shape[2] // patch
        self.x_embedder = Patches(channels, width, patch)
        self.t_embedder = TimeEmbedding(width)
        self.y_embedder = LabelEmbedding(num_classes + 1, width) if num_classes else None
        self.pos_embed = nn.Parameter(positions(rows, columns, width), requires_grad=False)  # [1, T, D]
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch * patch * channels * (1 + learn_sigma))
        self._initialise()

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.check_shape(x.shape[1:])
        condition = self.t_embedder(distinct(t.expand(len(x))))  # [1, D] where all times are one, else [B, D]
        if self.y_embedder is not None:
            last, fix = self.num_classes, "Build it with the data's num_classes."
            condition = condition + self.y_embedder(labels_up_to(last, self, y, " (the last means no class)", fix))
        tokens = self.x_embedder(x.to(self.pos_embed.dtype)) + self.pos_embed  # [B, T, D]
        for block in self.blocks:
            if self.checkpoint and torch.is_grad_enabled():
                tokens = recompute(block, tokens, condition, use_reentrant=False)
            else:
                tokens = block(tokens, condition)
        return self._image(self.final_layer(tokens, condition)).to(x.dtype)

    def _image(self, tokens: Tensor) -> Tensor:
        """``[B, T, p p C']``, each token ordered (row, column, channel), to the velocity ``[B, C, H, W]``."""
        (channels, height, width), p = self.shape, self.patch
        patches = tokens.unflatten(2, (p, p, -1)).unflatten(1, (height // p, width // p))[..., :channels]
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(len(tokens), *self.shape)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UserError for samples of another shape: positions are learned for one."""
        check_same_shape(self, self.shape, shape)

    def _initialise(self) -> None:
        """As published: Xavier for every linear map, N(0, 0.02) for time and class, zero for modulations and output."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(module.weight.detach().flatten(1))
                module.bias.detach().zero_()  # type: ignore[union-attr]
        for layer in (self.t_embedder.mlp[0], self.t_embedder.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)  # type: ignore[arg-type]
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        zero = [part.adaLN_modulation[1] for part in (*self.blocks, self.final_layer)]
        for layer in (*zero, self.final_layer.linear):
            nn.init.zeros_(layer.weight)


class Patches(nn.Module):
    """``[B, C, H, W]`` to tokens ``[B, T, D]``: a convolution whose stride is its kernel, as one matrix product."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        p = self.patch
        cut = x.unflatten(3, (-1, p)).unflatten(2, (-1, p))  # [B, C, rows, p, columns, p]
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [B, T, C p p]
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class TimeEmbedding(nn.Module):
    """``[B]`` times to ``[B, D]``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(_FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        return self.mlp(sinusoids(t, _FREQUENCIES).to(next(self.mlp.parameters()).dtype))


class LabelEmbedding(nn.Module):
    """``[B]`` labels to ``[B, D]``."""

    def __init__(self, labels: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(labels, width)

    def forward(self, y: Tensor) -> Tensor:
        return self.embedding_table(y)


class Block(nn.Module):
    """Attention and MLP over tokens ``[B, T, D]``, modulated and gated by a condition ``[B, D]`` or ``[1, D]``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        hidden = 4 * width
        layers = {"fc1": nn.Linear(width, hidden), "act": nn.GELU("tanh"), "fc2": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        modulation = self.adaLN_modulation(condition)[:, None]  # [B, 1, 6 D]
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation.chunk(6, -1)
        x = torch.addcmul(x, gate1, self.attn(modulated(self.norm1(x), shift1, scale1)))
        return torch.addcmul(x, gate2, self.mlp(modulated(self.norm2(x), shift2, scale2)))


class Attention(nn.Module):
    """Every token attends to every token: ``[B, T, D]`` to the same shape, without a copy but for the products."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # Split before the heads are told apart: the gradients are then joined as the product wants them.
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class FinalLayer(nn.Module):
    """Tokens ``[B, T, D]`` to patches of the velocity ``[B, T, out]``."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm_final = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, out)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition)[:, None].chunk(2, -1)
        return self.linear(modulated(self.norm_final(x), shift, scale))


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x (1 + scale) + shift``."""
    return torch.addcmul(shift, x, 1 + scale)


def positions(rows: int, columns: int, width: int) -> Tensor:
    """``[1, rows columns, width]``: waves of the column in the first half of the channels, of the row in the second."""
    omega = 10_000 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.reshape(-1, 1) * omega for place in (column, row)]  # [T, D / 4] each
    table = torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], 1)
    return table.to(torch.get_default_dtype())[None]
