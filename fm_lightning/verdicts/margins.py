"""Margins: the smallest effect that matters, in memorized share and in distance to real data."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate


@dataclass(frozen=True)
class Margin:
    """The margin of one comparison.

    Attributes:
        memorized: dM, a share of samples.
        quality: dQ, in the distance's own unit.
        floor: the resolution of the real images (``resolution``), which dQ is never below; 0 where it is unknown.
        references: the number of real images that the distance is measured to; 0 where it is unknown.
    """

    memorized: float
    quality: float
    floor: float = 0.0
    references: int = 0

    def at(self, slope: float) -> float:
        """``m = dQ + |P'(M)| dM``, both together in the distance's unit on a curve with that slope."""
        return self.quality + abs(slope) * self.memorized


@dataclass(frozen=True)
class Margins:
    """How margins are chosen.

    Args:
        memorized: dM, a share of samples; 0.01 is one point.
        of_base: dM is at most this share of the baseline's memorized share.
        quality: dQ as a share of the baseline's distance, but at least the resolution of the real images (``resolution``).
            Less than 0.02 can hardly be decided in practice.

    Raises:
        UserError: a margin outside (0, 1).
    """

    memorized: float = 0.01
    of_base: float = 0.1
    quality: float = 0.02

    def __post_init__(self) -> None:
        for name in ("memorized", "of_base", "quality"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(
                    f"The margin {name}={getattr(self, name):g} is not between 0 and 1.",
                    f"For example, set {name}={getattr(Margins, name):g}",
                )

    def resolve(self, memorized: float, quality: float, floor: float = 0.0, references: int = 0) -> Margin:
        """The margin for a baseline with that memorized share and distance.

        Args:
            memorized: the baseline's M.
            quality: the baseline's Q.
            floor: the resolution of the real images, in Q's unit; 0 where it is unknown.
            references: the number of real images.
        """
        wanted = self.quality * quality
        smallest = floor if floor > wanted else wanted  # not max: a distance that is NaN stays so
        return Margin(min(self.memorized, self.of_base * memorized), smallest, floor, references)


def resolution(held_out: Estimate, references: int) -> float:
    """``2 sd(contributions of held-out real data) / sqrt(references)``: two sets of so many real images differ by as much.

    It depends on the real images alone. A floor that shrinks with the number of seeds would shrink with the residual's own
    error: on a flat curve more seeds would then never decide anything.

    Args:
        held_out: the distance of held-out real data to the real images, with the contribution of each of them.
        references: the number of real images that distances are measured to.
    """
    assert held_out.influence is not None
    return 2 * float(np.std(held_out.influence, ddof=1)) / math.sqrt(references)
