"""CopyMeasure: a number that says how much samples copy, next to what real images that are no copies get."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.estimate import wilson
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.reference import Reference, check_unit
from fm_lightning.metrics.per_seed import PerSeedMetric, fingerprint
from fm_lightning.trajectory import Trajectory


class Interval(NamedTuple):
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


class CopyMeasure(PerSeedMetric):
    """Samples against a training set, in any space, with a floor: what held-out real samples get.

    ``summarize`` returns the number under the measure's ``key``, its 95 % interval ``{key}_lo``, ``{key}_hi`` and, with held-out
    samples, ``{key}_floor``, ``{key}_floor_lo``, ``{key}_floor_hi``: a model that copies nothing is expected there.

    Args:
        reference: ``[n, ...]`` the training images in the space where samples are compared, or a ``Reference`` of them.
        held_out: ``[m, ...]`` real images that the model has not seen, in that space.
        space: brings samples there; None compares them as they are.
        columns: the names of the columns that ``measure`` returns.

    Attributes:
        key: the number's name.
        lower_is_copying: whether small values mean copying.
    """

    key: str
    lower_is_copying: bool

    def __init__(
        self,
        reference: Tensor | Reference,
        held_out: Tensor | None,
        space: FeatureSpace | None,
        columns: Sequence[str],
        **kwargs: Any,
    ) -> None:
        super().__init__(columns, **kwargs)
        if held_out is not None and not len(held_out):
            raise UserError("held_out is empty.", "Pass at least one sample, or leave held_out out to have no floor.")
        self.reference = reference if isinstance(reference, Reference) else Reference(reference)
        self.held_out, self.space = held_out, space or FeatureSpace()

    @abstractmethod
    def compare(self, x: Tensor) -> dict[str, Tensor]:
        """The columns of samples ``[B, D]`` in the reference's space."""

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """The columns of samples, which the space brings to the reference."""
        x = self.space(samples, self.reference.size)
        check_unit(x, self.reference)
        return self.compare(x)

    @abstractmethod
    def value(self, columns: Columns) -> Interval:
        """The measure's number."""

    @abstractmethod
    def copied(self, columns: Columns) -> Tensor:
        """``[n]`` bool: which samples the measure takes for copies."""

    @cached_property
    def held_out_columns(self) -> dict[str, Tensor] | None:
        """The columns of the held-out samples, on the CPU; None without any."""
        if self.held_out is None:
            return None
        return {name: values.cpu() for name, values in self.compare(self.held_out.flatten(1)).items()}

    @property
    def floor(self) -> Interval | None:
        """The number of the held-out samples."""
        columns = self.held_out_columns
        return None if columns is None else self.value(columns)

    @property
    def fingerprint(self) -> str:
        return fingerprint(type(self).__qualname__, self.reference.fingerprint, self.space.fingerprint)

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        numbers = dict(zip((self.key, f"{self.key}_lo", f"{self.key}_hi"), self.value(columns)))
        floor = self.floor
        if floor is not None:
            numbers |= zip((f"{self.key}_floor", f"{self.key}_floor_lo", f"{self.key}_floor_hi"), floor)
        return numbers


def held_out_floor(metric: PerSeedMetric, held_out: Tensor) -> dict[str, float]:
    """The numbers that held-out samples ``[m, ...]`` in the model's space get from any metric, for example ``f_mem_floor``."""
    return {f"{name}_floor": value for name, value in metric.summarize(metric.measure(held_out)).items()}


def share(hits: Tensor, unit: float = 1.0) -> Interval:
    """The share of hits ``[n]`` bool with Wilson's interval, in percent if ``unit`` is 100."""
    low, high = wilson(int(hits.sum()), len(hits))
    return Interval(unit * float(hits.double().mean()), unit * low, unit * high)


def quantiles(values: Tensor, key: str, *at: float) -> dict[str, float]:
    """``{key}_q50`` and so on."""
    found = torch.quantile(values.double(), torch.tensor(at, dtype=torch.float64)).tolist()
    return {f"{key}_q{100 * q:02.0f}": v for q, v in zip(at, found)}
