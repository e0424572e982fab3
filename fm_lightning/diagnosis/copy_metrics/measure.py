"""CopyMeasure: a number that says how much samples copy, next to what real images that are no copies get."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, Self

from torch import Tensor

from fm_lightning import estimate
from fm_lightning.errors import UserError
from fm_lightning.estimate import Interval
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.neighbours.reference import Reference, check_unit
from fm_lightning.metrics.per_seed import PerSeedMetric
from fm_lightning.trajectory import Trajectory


class CopyMeasure(PerSeedMetric):
    """Samples against a training set, with a floor: what held-out real samples get. ``COPY_MEASURES`` lists them.

    ``summarize`` returns the number under the measure's ``key``, its 95% interval ``{key}_lo``, ``{key}_hi`` and, with held-out
    samples, ``{key}_floor``, ``{key}_floor_lo``, ``{key}_floor_hi``: a model that copies nothing is expected there.

    Args:
        reference: ``[n, ...]`` the training images in the space where samples are compared, or a ``Reference`` of them.
        held_out: ``[m, ...]`` real images that the model has not seen, in that space.

    Attributes:
        name: what results call the measure.
        label: what a page calls it.
        unit: "share" of samples, "percent", or "z", a standard normal number.
        key: the number's name.
        lower_is_copying: whether small values mean copying.
        column_names: what ``measure`` returns.
        described: whether features are compared where there are any, and not the samples themselves.
    """

    column_names: tuple[str, ...]
    label: str
    unit = "share"
    key: str
    lower_is_copying = False
    described = False

    def __init__(self, reference: Tensor | Reference, held_out: Tensor | None = None, **kwargs: Any) -> None:
        super().__init__(self.column_names, **kwargs)
        if held_out is not None and not len(held_out):
            raise UserError("held_out is empty.", "Pass at least one sample, or leave held_out out to have no floor.")
        self.reference = reference if isinstance(reference, Reference) else Reference(reference)
        self.held_out = held_out

    @classmethod
    def of(cls, reference: Reference, held_out: Tensor) -> Self:
        """The measure as a diagnosis uses it."""
        return cls(reference, held_out)

    @abstractmethod
    def compare(self, x: Tensor) -> dict[str, Tensor]:
        """The columns of samples ``[B, D]`` in the reference's space."""

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        x = FeatureSpace()(samples, self.reference.size)
        check_unit(x, self.reference)
        return self.compare(x)

    def value(self, columns: Columns) -> Interval:
        """The measure's number: by default the share of copies."""
        return share(self.copied(columns))

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
        return text_hash(type(self).__qualname__, self.reference.fingerprint)

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        numbers = dict(zip((self.key, f"{self.key}_lo", f"{self.key}_hi"), self.value(columns)))
        floor = self.floor
        if floor is not None:
            numbers |= zip((f"{self.key}_floor", f"{self.key}_floor_lo", f"{self.key}_floor_hi"), floor)
        return numbers


def share(hits: Tensor, unit: float = 1.0) -> Interval:
    """The share of hits ``[n]`` bool with Wilson's interval, in percent if ``unit`` is 100."""
    return Interval(*(unit * part for part in estimate.share(hits.cpu().numpy())))
