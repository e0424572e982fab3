"""Bridges from noise x0 (t = 0) to data x1 (t = 1), and the velocity that a network regresses on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fm_lightning.errors import UserError


@dataclass(frozen=True)
class LinearPath:
    """``x_t = (1 - (1 - sigma_min) t) x0 + t x1`` with target ``x1 - (1 - sigma_min) x0`` (arXiv 2210.02747, eq. 22).

    Args:
        sigma_min: standard deviation of the noise that stays in the data, in [0, 1).
    """

    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma_min < 1:
            raise UserError(
                f"sigma_min={self.sigma_min:g} must be at least 0 and below 1.", "Use for example sigma_min=0."
            )

    def __call__(self, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The state on the bridge and the conditional velocity there.

        Args:
            x0: ``[B, ...]`` noise.
            x1: ``[B, ...]`` data.
            t: ``[B]`` times in [0, 1].

        Returns:
            ``(x_t, u_t)``, each like ``x1``.
        """
        t = t.reshape(-1, *[1] * (x1.ndim - 1))
        keep = 1 - self.sigma_min
        return (1 - keep * t) * x0 + t * x1, x1 - keep * x0
