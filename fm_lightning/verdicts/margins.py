"""Margins: the smallest effect that matters, in memorized share and in distance to real data."""

from __future__ import annotations

from dataclasses import dataclass

from fm_lightning.errors import OldError


@dataclass(frozen=True)
class Margin:
    """The margin of one comparison.

    Attributes:
        memorized: dM, a share of samples.
        quality: dQ, in the distance's own unit.
        floored: dQ is two standard errors of the distance of real data, not the share of base's that was asked for.
    """

    memorized: float
    quality: float
    floored: bool = False

    def at(self, slope: float) -> float:
        """``m = dQ + |P'(M)| dM``, both together in the distance's unit on a curve with that slope."""
        return self.quality + abs(slope) * self.memorized


@dataclass(frozen=True)
class Margins:
    """How margins are chosen.

    Args:
        memorized: dM, a share of samples; 0.01 is one point.
        of_base: dM is at most this share of base's memorized share.
        quality: dQ as a share of base's distance; but never below two standard errors of the distance of as many held-out
            real samples. Less than 0.02 can hardly be decided in practice.

    Raises:
        UserError: a margin outside (0, 1).
    """

    memorized: float = 0.01
    of_base: float = 0.1
    quality: float = 0.02

    def __post_init__(self) -> None:
        for name in ("memorized", "of_base", "quality"):
            if not 0 < getattr(self, name) < 1:
                raise OldError(
                    f"{name}={getattr(self, name):g} given as a margin",
                    "between 0 and 1, both excluded",
                    f"type e.g. {name}={getattr(Margins, name):g}",
                )

    def resolve(self, memorized: float, quality: float, held_out_error: float = 0.0) -> Margin:
        """The margin beside a base with that memorized share and distance.

        Args:
            memorized: base's M.
            quality: base's Q.
            held_out_error: standard error of the distance of as many held-out real samples; 0 where there are none.
        """
        floor = 2 * held_out_error
        asked = self.quality * quality
        return Margin(min(self.memorized, self.of_base * memorized), max(asked, floor), floored=floor > asked)
