"""Gains: how sampling is reshaped, ``dx/dt = eta(t) v(x, t)``, without retraining.

A gain is a function of time alone; it takes and returns tensors. Gains multiply: ``KTS() * Constant(0.98)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fm_lightning.errors import UserError


class Gain:
    """eta(t). Subclasses are frozen dataclasses, so that equal gains compare and hash alike."""

    def __call__(self, t: Tensor) -> Tensor:
        """Args: ``t`` any shape, in [0, 1]. Returns ``eta``, like ``t``."""
        raise NotImplementedError

    def __mul__(self, other: Gain) -> Gain:
        return Product((self, other))

    def scaled(self, factor: float) -> Gain:
        """The gain at another dose: its deviation from 1 multiplied by ``factor``; 0 is plain sampling."""
        return Scaled(self, factor)

    def remedy(self, t: Tensor) -> str | None:
        """What to type so that the gain is positive at the times ``t``; None where nothing helps."""
        return None


def _require(gain: Gain, right: bool, name: str, expected: str, remedy: str) -> None:
    if not right:
        value = getattr(gain, name)
        raise UserError(
            f"{type(gain).__name__}: {name}={value:g} must be {expected}.", f"Use for example {name}={remedy}."
        )


@dataclass(frozen=True)
class Constant(Gain):
    """``eta(t) = value``; 1 is plain sampling. Raises UserError unless it is finite."""

    value: float = 1.0

    def __post_init__(self) -> None:
        _require(self, math.isfinite(self.value), "value", "a finite number", "0.98")

    def __str__(self) -> str:
        return f"gain {self.value:.4g}"

    def __call__(self, t: Tensor) -> Tensor:
        return torch.full_like(t, self.value)


@dataclass(frozen=True)
class Scaled(Gain):
    """``eta = 1 + factor (gain - 1)``."""

    gain: Gain
    factor: float

    def __str__(self) -> str:
        return f"{self.factor:.4g} of {self.gain}"

    def __call__(self, t: Tensor) -> Tensor:
        return 1 + self.factor * (self.gain(t) - 1)


@dataclass(frozen=True)
class Product(Gain):
    """The product of several gains."""

    gains: tuple[Gain, ...]

    def __str__(self) -> str:
        return " x ".join(map(str, self.gains))

    def __call__(self, t: Tensor) -> Tensor:
        return math.prod((gain(t) for gain in self.gains), start=torch.ones_like(t))


@dataclass(frozen=True)
class SSC(Gain):
    """Scale schedule corrector of *The Velocity Deficit* (arXiv 2605.14819): ``eta(t) = 1 + scale (1 - t)^power``.

    Raises:
        UserError: a scale that is not finite, or a power below 0, with which eta has no end at ``t = 1``.
    """

    scale: float
    power: float

    def __post_init__(self) -> None:
        _require(self, math.isfinite(self.scale), "scale", "a finite number", "0.05")
        _require(self, 0 <= self.power < math.inf, "power", "a finite number of at least 0", "1")

    def __str__(self) -> str:
        return f"SSC {self.scale:g} (1 - t)^{self.power:g}"

    def __call__(self, t: Tensor) -> Tensor:
        return 1 + self.scale * (1 - t) ** self.power

    def scaled(self, factor: float) -> SSC:
        """The same shape at another dose."""
        return replace(self, scale=self.scale * factor)


@dataclass(frozen=True)
class Brake(Gain):
    """``eta = 1`` before the time ``after`` and ``value`` afterwards: the simplest way to slow down late.

    Args:
        value: the late gain.
        after: the time at which ``value`` begins, in [0, 1).

    Raises:
        UserError: one of them out of range.
    """

    value: float
    after: float = 0.9

    def __post_init__(self) -> None:
        _require(self, math.isfinite(self.value), "value", "a finite number", "0.5")
        _require(self, 0 <= self.after < 1, "after", "at least 0 and below 1", "0.9")

    def __str__(self) -> str:
        return f"gain {self.value:.4g} from t={self.after:g}"

    def __call__(self, t: Tensor) -> Tensor:
        return torch.where(t < self.after - 1e-9, torch.ones_like(t), self.value)


# Shapes of the two halves of KTS: u = 1 at the beginning of the launch and at the end of the landing.
_LAUNCH: dict[str, Callable[[Tensor, float], Tensor]] = {
    "linear": lambda u, k: u,
    "constant": lambda u, k: torch.ones_like(u),
    "exponential": lambda u, k: torch.expm1(k * u) / math.expm1(k),
}
_LANDING: dict[str, Callable[[Tensor, float], Tensor]] = {
    "exponential": lambda u, k: torch.expm1(k * u),
    "linear": lambda u, k: u,
    "constant": lambda u, k: torch.ones_like(u),
}


@dataclass(frozen=True)
class KTS(Gain):
    """Kinetic trajectory shaping (arXiv 2602.07928): faster than the field at first, slower at the end.

        t <  tau_split:  eta = 1 + alpha * launch(1 - t / tau_split)
        t >= tau_split:  eta = 1 - beta * landing((t - tau_split) / (1 - tau_split))

    Args:
        alpha: strength of the launch; 0 switches it off.
        beta: strength of the landing; 0 switches it off. The default landing reaches ``19.1 beta`` at ``t = 1``.
        tau_split: where launch turns into landing, in (0, 1).
        launch: ``u`` ("linear"), 1 ("constant") or ``(exp(k u) - 1) / (exp(k) - 1)`` ("exponential").
        landing: ``exp(k u) - 1`` ("exponential"), ``u`` ("linear") or 1 ("constant").
        rate: the ``k`` of the exponentials, above 0.

    Raises:
        UserError: for a ``tau_split`` outside (0, 1), an unknown form, or a rate that is not positive.
    """

    alpha: float = 0.01
    beta: float = 0.01
    tau_split: float = 0.6
    launch: str = "linear"
    landing: str = "exponential"
    rate: float = 3.0

    def __post_init__(self) -> None:
        _require(self, 0 < self.tau_split < 1, "tau_split", "between 0 and 1, both excluded", "0.6")
        for half, given, forms in (("launch", self.launch, _LAUNCH), ("landing", self.landing, _LANDING)):
            if given not in forms:
                raise UserError(f"KTS: {half}={given!r} is unknown.", f"Choose among {', '.join(forms)}.")
        _require(self, 0 < self.rate <= 100, "rate", "above 0 and at most 100", "3.0")  # exp(rate) must stay finite
        _require(self, math.isfinite(self.alpha), "alpha", "a finite number", "0.01")
        _require(self, math.isfinite(self.beta), "beta", "a finite number", "0.01")

    def __str__(self) -> str:
        text = f"KTS α={self.alpha:g} β={self.beta:g}"
        if self.tau_split != 0.6:
            text += f" τ={self.tau_split:g}"
        if self.launch != "linear" and self.alpha:
            text += f" {self.launch} launch"
        if self.landing != "exponential" and self.beta:
            text += f" {self.landing} landing"
        return text if self.rate == 3 else f"{text} k={self.rate:g}"

    def __call__(self, t: Tensor) -> Tensor:
        # Each half is evaluated on its own side only: an exponential far outside its range would overflow.
        launch = self.alpha * _LAUNCH[self.launch]((1 - t / self.tau_split).clamp_min(0), self.rate)
        return torch.where(t < self.tau_split, 1 + launch, 1 - self.beta * self._landing(t))

    def _landing(self, t: Tensor) -> Tensor:
        u = ((t - self.tau_split) / (1 - self.tau_split)).clamp_min(0)
        return _LANDING[self.landing](u, self.rate)

    def scaled(self, factor: float) -> KTS:
        """The same shape at another dose."""
        return replace(self, alpha=self.alpha * factor, beta=self.beta * factor)

    def remedy(self, t: Tensor) -> str | None:
        if (self(t[t < self.tau_split]) <= 0).any():
            return "alpha above -1"
        largest = 1 / float(self._landing(t[t >= self.tau_split]).max())
        digits = 3 - math.floor(math.log10(largest))  # four significant digits, rounded down: it must really work
        limit = math.ceil(largest * 10**digits - 1) / 10**digits
        return f"beta at most {limit:.{max(digits, 0)}f}"
