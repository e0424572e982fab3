"""Times at which the training loss evaluates the bridge: distributions of t in [0, 1] for one global batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from fm_lightning.errors import UserError


class TimeSampling(ABC):
    """Draws the times of a batch."""

    @abstractmethod
    def __call__(self, n: int, generator: Generator) -> Tensor:
        """``[n]`` float32 times in [0, 1] on the generator's device."""


@dataclass(frozen=True)
class Uniform(TimeSampling):
    """Independent uniform times."""

    def __call__(self, n: int, generator: Generator) -> Tensor:
        return torch.rand(n, generator=generator, device=generator.device)


@dataclass(frozen=True)
class Stratified(TimeSampling):
    """One uniform time in each of n equal strata: the same distribution as uniform, less variance in the loss."""

    def __call__(self, n: int, generator: Generator) -> Tensor:
        jitter = torch.rand(n, generator=generator, device=generator.device)
        return (torch.arange(n, device=generator.device) + jitter) / n


@dataclass(frozen=True)
class LogitNormal(TimeSampling):
    """``sigmoid(mean + std z)``, ``z ~ N(0, 1)`` (SD3, arXiv 2403.03206, eq. 19): more weight on the middle."""

    mean: float = 0.0
    std: float = 1.0

    def __call__(self, n: int, generator: Generator) -> Tensor:
        z = torch.randn(n, generator=generator, device=generator.device)
        return torch.sigmoid(self.mean + self.std * z)


@dataclass(frozen=True)
class Discrete(TimeSampling):
    """Uniform over ``0, 1/(levels - 1), ..., 1``, as the release of arXiv 2602.07928 draws them."""

    levels: int = 1000

    def __post_init__(self) -> None:
        if self.levels < 2:
            raise UserError(f"Discrete: levels={self.levels} must be at least 2.", "Use for example levels=1000.")

    def __call__(self, n: int, generator: Generator) -> Tensor:
        return torch.randint(self.levels, (n,), generator=generator, device=generator.device) / (self.levels - 1)
