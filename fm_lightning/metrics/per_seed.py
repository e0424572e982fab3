"""PerSeedMetric: a metric that keeps one line per sample, so that schedules can be compared seed by seed.

``update`` appends what ``measure`` gives, and ``compute`` is ``summarize`` of all lines.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fm_lightning.errors import UserError
from fm_lightning.metrics.measure import Columns, Measure
from fm_lightning.trajectory import Trajectory


class PerSeedMetric(Metric, Measure):
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

    def empty(self) -> Self:
        """The same metric without samples; references and extractors are shared, not copied."""
        fresh = copy.copy(self)
        for name in ("seeds", *self.columns):
            setattr(fresh, name, [])
        fresh.reset()
        return fresh

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
            raise UserError(
                f"There are {len(samples):,} samples and seeds of shape {list(seeds.shape)}.",
                "Pass one seed per sample, or none to number the samples.",
            )
        # A copy to a GPU need not wait for what the GPU still has to do; one from it must.
        ahead = self.device.type == "cuda"
        for name, values in {"seeds": seeds, **measured}.items():
            getattr(self, name).append(values.detach().to(self.device, non_blocking=ahead))

    def compute(self) -> dict[str, float]:
        return self.summarize(self._lines())

    def per_seed(self) -> dict[str, Tensor]:
        """``seeds`` and the columns over all processes, on the CPU, ascending in the seed.

        Gathered at each call and not kept, because the features of many rows may exceed a host's memory. Every process has
        to call it.
        """
        with self.sync_context():
            return self._lines()

    def _lines(self) -> dict[str, Tensor]:
        """The columns as they stand here; where states are synchronised, those of all processes."""
        if not len(self.seeds) or not len(dim_zero_cat(self.seeds)):
            raise UserError(f"{type(self).__name__} has no samples.", "Update it first.")
        found = {name: dim_zero_cat(getattr(self, name)) for name in ("seeds", *self.columns)}
        order = found["seeds"].argsort(stable=True)
        seeds = found["seeds"][order]
        # Processes that number plain samples by themselves all begin at 0.
        if not self._is_synced and (twice := seeds[1:][seeds[1:] == seeds[:-1]]).numel():
            raise UserError(
                f"{type(self).__name__} has seen seed {int(twice[0])} more than once, which makes its intervals too narrow.",
                "Reset the metric before it sees seeds again, or pass none.",
            )
        return {name: values[order].cpu() for name, values in found.items()}


def sample_tensor(samples: Tensor | Trajectory) -> Tensor:
    """``[B, ...]`` the samples themselves."""
    return samples.x1 if isinstance(samples, Trajectory) else samples


def check_same_seeds(here: Columns, there: Columns) -> None:
    """Raises UserError unless both sides have the same seeds, or, without seeds, the same number of lines."""
    sides = []
    for columns in (here, there):
        known = "seeds" in here and "seeds" in there
        sides.append(columns["seeds"] if known else torch.arange(len(next(iter(columns.values())))))
    if not torch.equal(*sides):
        raise UserError(
            f"Cannot pair samples of different seeds ({_span(sides[0])} and {_span(sides[1])}).",
            "Sample both schedules from the same seeds.",
        )


def _span(seeds: Tensor) -> str:
    return f"{len(seeds)} from {int(seeds[0])} to {int(seeds[-1])}"
