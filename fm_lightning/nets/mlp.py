"""A residual MLP for vectors and very small images: digits, 2-D toys."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.nets.conditions import check_labels, check_same_shape, distinct, null_label
from fm_lightning.nets.velocity import Velocity


class TimeEmbedding(nn.Module):
    """``[B]`` times in [0, 1] -> ``[B, dim]``: sines and cosines of 1 ... 1000 radians, then two layers.

    The frequencies are those of the transformer's positions with times counted in thousandths, as diffusion networks do.
    """

    frequencies: Tensor

    def __init__(self, dim: int, frequencies: int = 64) -> None:
        super().__init__()
        exponents = torch.arange(frequencies // 2) / (frequencies // 2)
        self.register_buffer("frequencies", 1000 * torch.exp(-math.log(10_000) * exponents), persistent=False)
        self.layers = nn.Sequential(nn.Linear(frequencies, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, t: Tensor) -> Tensor:
        angle = t[:, None] * self.frequencies
        return self.layers(torch.cat([angle.cos(), angle.sin()], 1))


class _Block(nn.Module):
    """x + W2 silu(W1 modulated(norm(x))), the modulation (scale, shift) a function of time and class."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition).chunk(2, 1)
        return x + self.layers(torch.addcmul(shift, self.norm(x), 1 + scale))


class ResidualMLP(Velocity):
    """Velocity network ``v(x, t, y)`` on flattened samples.

    Args:
        shape: shape of one sample, for example ``[2]`` or ``[1, 8, 8]``.
        width: width of the residual stream.
        depth: number of residual blocks.
        expansion: hidden width of a block, in widths.
        num_classes: number of classes; 0 for an unconditional network.
        null_class: one more label, ``null_label = num_classes``, that means "no class": for classifier-free guidance.

    Raises:
        UserError: a null class without classes.
    """

    def __init__(
        self,
        shape: Sequence[int],
        width: int = 128,
        depth: int = 3,
        expansion: int = 2,
        num_classes: int = 0,
        null_class: bool = False,
    ) -> None:
        super().__init__()
        sizes = {"width": width, "depth": depth, "expansion": expansion}
        if small := [name for name, size in sizes.items() if size < 1]:
            raise UserError(
                f"ResidualMLP: {small[0]}={sizes[small[0]]} must be at least 1.", f"Set for example {small[0]}=3"
            )
        if num_classes < 0:
            raise UserError(f"ResidualMLP: num_classes={num_classes} is negative.", "Use 0 for data without classes.")
        self.shape, self.num_classes = tuple(shape), num_classes
        self.null_label = null_label(self, null_class)
        dim = math.prod(self.shape)
        self.time = TimeEmbedding(width)
        self.label = nn.Embedding(num_classes + null_class, width) if num_classes else None
        self.inlet = nn.Linear(dim, width)
        self.blocks = nn.ModuleList(_Block(width, expansion * width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.outlet = nn.Linear(width, dim)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        """Args: ``x [B, *shape]``, ``t [B]`` in [0, 1], ``y [B]`` int64 or None. Returns the velocity, like ``x``.

        Raises:
            UserError: for samples of another shape, or labels that do not go with ``num_classes``.
        """
        self.check_shape(x.shape[1:])
        check_labels(self, y)
        condition = self.time(distinct(t))
        if self.label is not None:
            condition = condition + self.label(y)
        condition = nn.functional.silu(condition)
        h = self.inlet(x.flatten(1))
        for block in self.blocks:
            h = block(h, condition)
        return self.outlet(nn.functional.silu(self.norm(h))).reshape(x.shape)

    def check_shape(self, shape: Sequence[int]) -> None:
        """Raises UserError for samples of another shape."""
        check_same_shape(self, self.shape, shape)
