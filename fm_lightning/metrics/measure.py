"""Measure: what a comparison needs to know about a metric.

columns = measure.measure(samples)             # one line per sample: costly, kept in a table
numbers = measure.summarize(columns, base)     # from the lines alone: a threshold may change without measuring again
change = measure.change(columns, base)         # paired, over the same seeds
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fm_lightning.estimate import Estimate
from fm_lightning.trajectory import Trajectory

Columns = Mapping[str, Tensor]  # name -> [n] or [n, D], one line per sample


class Measure(ABC):
    """Columns of samples, and numbers that follow from the columns.

    Attributes:
        name: the columns' name in a table, for example ``neighbours``.
        key: the number whose paired change matters, for example ``f_mem``; None if there is none.
        floors: whether the measure applies to real images, which have no trajectory and no class.
        collective: whether all processes must call ``measure`` together, with an empty batch where they have no samples.
    """

    name: str
    key: str | None = None
    floors = True
    collective = False

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever ``measure`` would give other columns, and never with what only ``summarize`` reads.

        Empty for a measure whose columns every line of a table has.
        """

    @abstractmethod
    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """The columns of a batch: name -> ``[B]`` or ``[B, D]``.

        Args:
            samples: ``[B, ...]`` in the model's own space, or the trajectories that led to them.
        """

    @abstractmethod
    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        """The numbers of a set of samples.

        Args:
            columns: the lines of all samples, in any order.
            base: the lines of plain sampling over the same seeds, line by line; adds the change from it.
        """

    def change(self, here: Columns, there: Columns) -> Estimate | None:
        """``key`` here minus ``key`` there, over the same seeds line by line."""
        return None

    def changes(self, here: Columns, there: Columns) -> dict[str, Estimate]:
        """Name -> every number's change that results keep; by default that of ``key``."""
        change = self.change(here, there)
        return {} if change is None else {str(self.key): change}

    def qualities(self, columns: Columns) -> dict[str, Estimate]:
        """The distances to real data on which verdicts rest, with each seed's contributions: ``frechet``, ``kernel``."""
        return {}

    def floor_qualities(self, columns: Columns) -> dict[str, Estimate]:
        """``qualities`` of held-out real data; if verdicts compare with these, those of one half of them to the other."""
        return self.qualities(columns)

    def facts(self) -> dict[str, Any]:
        """What results state next to the numbers, for example the threshold of a copy."""
        return {}

    def remember(self, folder: Path) -> None:  # noqa: B027
        """Writes what ``summarize`` needs besides the columns into ``folder``."""

    @classmethod
    def recalled(cls, folder: Path, fingerprint: str, **options: Any) -> Any:
        """The measure without its references, from what ``remember`` wrote: all but ``measure`` works.

        Args:
            folder: where ``remember`` wrote.
            fingerprint: of the columns to be summarized.
            options: those of the constructor that ``summarize`` reads.

        Raises:
            UserError: nothing readable was written there.
        """
        return cls(**options)

    def with_change(self, numbers: dict[str, float], columns: Columns, base: Columns | None) -> dict[str, float]:
        """The numbers with the change of ``key`` from ``base`` and its interval: ``{key}_change``, ``_lo``, ``_hi``."""
        change = None if base is None else self.change(columns, base)
        if change is None:
            return numbers
        names = (f"{self.key}_change", f"{self.key}_change_lo", f"{self.key}_change_hi")
        return numbers | dict(zip(names, change))
