"""PerSeedMetric: a metric that keeps one line per sample, so that schedules can be compared seed by seed.

    columns = metric.measure(samples)       # one line per sample: what is costly, and what a table keeps
    numbers = metric.summarize(columns)     # what follows from the lines alone: thresholds may change without measuring again

``update`` appends what ``measure`` gives, and ``compute`` is ``summarize`` of all lines.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fm_lightning.errors import OldError
from fm_lightning.metrics.intervals import Change, Influence
from fm_lightning.trajectory import Trajectory

Columns = Mapping[str, Tensor]  # name -> [n] or [n, D], one line per sample


class PerSeedMetric(Metric):
    """States are the columns; ``per_seed`` returns them in the order of the seeds.

    A batch without samples is a valid update, and gives every state its shape and type: a process that has nothing to
    add must still take part when states are gathered.

    Args:
        columns: the names of what ``measure`` gives.
    """

    is_differentiable = False
    full_state_update = False
    seeds: list[Tensor]

    def __init__(self, columns: Sequence[str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns = tuple(columns)
        for name in ("seeds", *self.columns):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @abstractmethod
    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """The columns of a batch: name -> ``[B]`` or ``[B, D]``.

        Args:
            samples: ``[B, ...]`` in the model's own space, or the trajectories that led to them.
        """

    @abstractmethod
    def summarize(self, columns: Columns) -> dict[str, float]:
        """The metric's numbers from the lines of all samples, in any order."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Changes whenever ``measure`` would give other columns; never with what only ``summarize`` reads."""

    def update(self, samples: Tensor | Trajectory, seeds: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            samples: ``[B, ...]``, or a Trajectory, which may bring its seeds.
            seeds: ``[B]`` int64; without any the samples are numbered as they come.

        Raises:
            UserError: another number of seeds than of samples.
        """
        measured = self.measure(samples)
        if seeds is None and isinstance(samples, Trajectory):
            seeds = samples.seeds
        if seeds is None:
            first = sum(len(s) for s in self.seeds)
            seeds = torch.arange(first, first + len(samples))
        if seeds.shape != (len(samples),):
            raise OldError(
                f"seeds {list(seeds.shape)} given with {len(samples)} samples",
                "one for each",
                "leave them out to have the samples numbered",
            )
        # A copy to a GPU need not wait for what the GPU still has to do; one from it must.
        ahead = self.device.type == "cuda"
        for name, values in {"seeds": seeds, **measured}.items():
            getattr(self, name).append(values.detach().to(self.device, non_blocking=ahead))

    def compute(self) -> dict[str, float]:
        return self.summarize(self._lines())

    def per_seed(self) -> dict[str, Tensor]:
        """``seeds`` and the columns over all processes, on the CPU, ascending in the seed.

        Gathered anew at each call, and not kept: features of many rows may be more than a host's memory. Every process has
        to call it.
        """
        with self.sync_context():
            return self._lines()

    def _lines(self) -> dict[str, Tensor]:
        """The columns as they stand here; where states are synchronised, those of all processes."""
        if not len(self.seeds) or not len(dim_zero_cat(self.seeds)):
            raise OldError(f"{type(self).__name__} of no samples asked for", "at least one", "update it first")
        found = {name: dim_zero_cat(getattr(self, name)) for name in ("seeds", *self.columns)}
        order = found["seeds"].argsort(stable=True)
        seeds = found["seeds"][order]
        # Processes that number plain samples by themselves all begin at 0.
        if not self._is_synced and (twice := seeds[1:][seeds[1:] == seeds[:-1]]).numel():
            raise OldError(
                f"seed {int(twice[0])} given to {type(self).__name__} more than once",
                "each seed once, or every interval would be too narrow",
                "reset the metric before it sees them again, or leave the seeds out",
            )
        return {name: values[order].cpu() for name, values in found.items()}


class PairedMetric(PerSeedMetric):
    """A metric whose number can be compared between two schedules seed by seed."""

    @abstractmethod
    def influence(self, columns: Columns) -> Influence:
        """The number, and what each sample contributes to it."""

    @abstractmethod
    def change(self, here: Columns, there: Columns) -> Change:
        """The number here minus the number there, over the same seeds line by line, with the paired 95 % interval.

        Raises:
            UserError: other seeds here than there.
        """


def sample_tensor(samples: Tensor | Trajectory) -> Tensor:
    """``[B, ...]`` the samples themselves."""
    return samples.x1 if isinstance(samples, Trajectory) else samples


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits that change whenever one of the parts prints otherwise."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def check_same_seeds(here: Columns, there: Columns) -> None:
    """Raises UserError unless both sides have the same seeds, or, where they do not say, equally many lines."""
    sides = []
    for columns in (here, there):
        known = "seeds" in here and "seeds" in there
        sides.append(columns["seeds"] if known else torch.arange(len(next(iter(columns.values())))))
    if not torch.equal(*sides):
        raise OldError(
            f"a paired change between different seeds asked for ({_span(sides[0])} and {_span(sides[1])})",
            "the same on both sides",
            "sample both schedules from the same seeds",
        )


def _span(seeds: Tensor) -> str:
    return f"{len(seeds)} from {int(seeds[0])} to {int(seeds[-1])}"
