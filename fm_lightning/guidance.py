"""Guidance: how strongly, on which channels and when sampling follows the class, as one value."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from fm_lightning.errors import UserError


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho & Salimans 2022, arXiv 2207.12598).

        v = v(x, t, null) + scale * (v(x, t, y) - v(x, t, null))

    Args:
        scale: 1 is the conditional velocity, 0 the unconditional one, more than 1 exaggerates the class. (Others count
            from 0: their ``w`` is ``scale - 1``.)
        channels: guide only this many channels, the first ones; the others keep the conditional velocity (SiT's public
            sampler guides 3 of 4). None guides all.
        interval: guide only at times from its first to its last (Kynkäänniemi et al. 2024, arXiv 2404.07724), both in
            [0, 1]; at other times the velocity is the conditional one. A time beyond 1, which a network may be told, is 1.
        record: have ``integrate`` keep what guidance does: ``Trajectory.guidance_energy`` and ``guidance_gap``. It costs two
            more norms per evaluation.

    Raises:
        UserError: a scale that is not finite, ``channels`` below 1 or an interval out of order.
    """

    scale: float = 1.0
    channels: int | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    record: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise UserError(f"guidance: scale={self.scale:g} must be finite.", "Use for example scale=1.5.")
        if self.channels is not None and self.channels < 1:
            raise UserError(f"channels={self.channels} must be at least 1.", "Leave it out to guide all channels.")
        interval = tuple(map(float, self.interval))
        if len(interval) != 2 or not 0 <= interval[0] < interval[1] <= 1:
            raise UserError(
                f"interval={list(self.interval)} must be two ascending times in [0, 1].",
                "Use for example interval=(0.1, 0.8).",
            )
        object.__setattr__(self, "interval", interval)

    def __str__(self) -> str:
        words = f"guidance {self.scale:g}"
        if self.channels is not None:
            words += f" on {self.channels} channels"
        if self.interval != (0, 1):
            words += f" for t in [{self.interval[0]:g}, {self.interval[1]:g}]"
        return words

    def guides(self, t: float) -> bool:
        """Whether the velocity at the time ``t`` differs from the conditional one."""
        return self.scale != 1 and self.interval[0] <= min(max(t, 0.0), 1.0) <= self.interval[1]

    def at(self, t: float) -> Guidance:
        """What it is at the time ``t``, as guidance at all times; equal where two kinds of guidance agree."""
        return replace(self, interval=(0.0, 1.0)) if self.guides(t) else Guidance(record=self.record)

    def of(self, net: Any) -> Any:
        """The velocity network guided like this; itself where nothing is guided."""
        return net if self.scale == 1 else net.guided(self)
