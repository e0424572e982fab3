"""PerSeedMetric: a metric that keeps one small row per sample, so that schedules can be compared seed by seed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from fm_lightning.errors import UserError
from fm_lightning.metrics.intervals import Change
from fm_lightning.trajectory import Trajectory

Columns = Mapping[str, Tensor]  # name -> [n] or [n, D], one line per sample


class PerSeedMetric(Metric):
    """States are columns with one entry per sample; ``per_seed`` returns them in the order of the seeds.

    A batch without samples is a valid update, and gives every state its shape and type: a process that has nothing to
    add must still take part when states are gathered.
    """

    is_differentiable = False
    full_state_update = False
    columns: tuple[str, ...] = ()
    seeds: list[Tensor]

    def __init__(self, columns: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if columns is not None:
            self.columns = tuple(columns)
        for name in ("seeds", *self.columns):
            self.add_state(name, default=[], dist_reduce_fx="cat")
        self._gathered: dict[str, Tensor] | None = None

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """The columns of a batch: name -> ``[B]`` or ``[B, D]``."""
        raise NotImplementedError

    def summarize(self, columns: Columns) -> dict[str, float]:
        """The metric's numbers from the lines of all samples, in any order."""
        raise NotImplementedError

    def update(self, samples: Tensor | Trajectory, seeds: Tensor | None = None) -> None:
        """Adds a batch; without seeds the samples are numbered as they come."""
        measured = self.measure(samples)
        if seeds is None and isinstance(samples, Trajectory):
            seeds = samples.seeds
        if seeds is None:
            first = sum(len(s) for s in self.seeds)
            seeds = torch.arange(first, first + len(samples))
        self._gathered = None
        for name, values in {"seeds": seeds, **measured}.items():
            getattr(self, name).append(values.detach().to(self.device))

    def compute(self) -> dict[str, float]:
        return self.summarize(self.local())

    def append(self, trajectory: Trajectory, **columns: Tensor) -> None:
        """Adds a batch; without seeds the samples are numbered as they come."""
        self._gathered = None
        seeds = trajectory.seeds
        if seeds is None:
            first = sum(len(s) for s in self.seeds)
            seeds = torch.arange(first, first + len(trajectory))
        # A copy to a GPU need not wait for what the GPU still has to do; one from it must.
        ahead = self.device.type == "cuda"
        self.seeds.append(seeds.to(self.device, non_blocking=ahead))
        for name, values in columns.items():
            getattr(self, name).append(values.detach().to(self.device, non_blocking=ahead))

    def reset(self) -> None:
        super().reset()
        self._gathered = None

    def local(self) -> dict[str, Tensor]:
        """The columns as they stand here (in ``compute``: those of all processes), ascending in the seed."""
        if not len(self.seeds) or not len(dim_zero_cat(self.seeds)):
            raise UserError(f"{type(self).__name__} of no samples asked for, expected at least one; update it first")
        found = {name: dim_zero_cat(getattr(self, name)) for name in ("seeds", *self.columns)}
        order = found["seeds"].argsort(stable=True)
        return {name: values[order].cpu() for name, values in found.items()}

    def per_seed(self) -> dict[str, Tensor]:
        """``seeds`` and the columns over all processes, on the CPU, ascending in the seed.

        The first call after an update communicates, so every process has to make it; its result is kept.
        """
        if self._gathered is None:
            with self.sync_context():
                self._gathered = self.local()
        return self._gathered

    def same_seeds(self, other: PerSeedMetric) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """``per_seed`` of both, row by row from the same seed.

        Raises:
            UserError: the two did not see the same seeds.
        """
        here, there = self.per_seed(), other.per_seed()
        check_same_seeds(here["seeds"], there["seeds"])
        return here, there


class PairedMetric(PerSeedMetric):
    """A metric whose number can be compared between two schedules seed by seed."""

    def change(self, other: Self) -> Change:
        """The number here minus the number there, over the same seeds, with the paired 95 % interval."""
        raise NotImplementedError


def sample_tensor(samples: Tensor | Trajectory) -> Tensor:
    """``[B, ...]`` the samples themselves."""
    return samples.x1 if isinstance(samples, Trajectory) else samples


def fingerprint(*parts: object) -> str:
    """16 hexadecimal digits that change whenever one of the parts prints otherwise."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def check_same_seeds(here: Tensor, there: Tensor) -> None:
    """Raises UserError unless both are the same seeds, ``[n]`` ascending."""
    if not torch.equal(here, there):
        raise UserError(
            f"a paired change between different seeds asked for ({_span(here)} and {_span(there)}), expected the same "
            "on both sides; sample both schedules from the same seeds"
        )


def _span(seeds: Tensor) -> str:
    return f"{len(seeds)} from {int(seeds[0])} to {int(seeds[-1])}"
