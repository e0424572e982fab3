"""What loaders serve: plain iterables that know their rank, so that nothing is sampled twice or left waiting.

Lightning re-samples a DataLoader for several devices, repeats samples to even the ranks out, and shuffles differently for
one device and two. These iterables do not: global batch k holds the same samples for any number of devices, and where
ranks cannot be even every rank still runs the same number of batches, the rows beyond ``valid`` being padding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.noise import epoch_order

_permutation = lru_cache(maxsize=4)(epoch_order)  # consecutive batches mostly come from the same pass
PADDING = -1  # the seed of a row that only fills a batch


class TrainBatch(NamedTuple):
    """A rank's share of a global training batch."""

    x: Tensor  # [b, ...] as stored; the datamodule encodes it on the device
    y: Tensor | None  # [b] int64
    step: int  # the optimizer step
    offset: int  # place of row 0 in the step's batch of `total`
    total: int


class HeldOutBatch(NamedTuple):
    """Held-out data for the validation loss."""

    x: Tensor
    y: Tensor | None
    positions: Tensor  # [b] int64: place in the held-out set; the loss draws time and noise from it
    valid: int  # rows that are not padding


class SeedBatch(NamedTuple):
    """Seeds to sample from."""

    seeds: Tensor  # [b] int64, PADDING beyond `valid`
    valid: int


def seed_batch(first: int, count: int, size: int) -> SeedBatch:
    """Seeds ``first ... first + count - 1``, padded to ``size``."""
    seeds = torch.full((size,), PADDING, dtype=torch.int64)
    seeds[:count] = torch.arange(first, first + count)
    return SeedBatch(seeds, count)


@dataclass(frozen=True)
class Share:
    """Which part of every global batch is this process's."""

    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class TrainingBatches:
    """Endless shuffled passes over n samples, cut into optimizer steps; pass e is a permutation drawn from (seed, e).

    Args:
        fetch: index ``[b]`` int64 -> ``(x, y)``.
        n: number of samples; may be smaller than a batch.
        total: samples per optimizer step, over all devices and accumulated micro-batches.
        accumulate: micro-batches per optimizer step.
        share: this process.
        base_seed: the run's seed.
        first_step: called when iteration begins: the optimizer step to start with (later than 0 in a resumed run).
        steps: optimizer steps that one iteration ends at.
    """

    fetch: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    n: int
    total: int
    accumulate: int
    share: Share
    base_seed: int
    first_step: Callable[[], int]
    steps: int

    def __post_init__(self) -> None:
        parts = self.share.world * self.accumulate
        if self.total % parts:
            raise UserError(
                f"batch_size={self.total} cannot be divided by {self.share.world} devices x {self.accumulate} "
                "accumulated batches.",
                f"Use batch_size={-(-self.total // parts) * parts}",
            )

    def __len__(self) -> int:
        return self.steps * self.accumulate

    def __iter__(self) -> Iterator[TrainBatch]:
        b = self.total // (self.share.world * self.accumulate)
        first = self.first_step()
        for step in range(first, first - first % self.steps + self.steps):
            for micro in range(self.accumulate):
                offset = (micro * self.share.world + self.share.rank) * b
                x, y = self.fetch(self._order(step * self.total + offset, b))
                yield TrainBatch(x, y, step, offset, self.total)

    def _order(self, start: int, count: int) -> Tensor:
        passes = range(start // self.n, (start + count - 1) // self.n + 1)
        order = np.concatenate([_permutation(self.base_seed, e, self.n) for e in passes])
        begin = start - passes[0] * self.n
        return torch.from_numpy(order[begin : begin + count])


def _rounds(n: int, batch: int, share: Share) -> Iterator[tuple[int, int]]:
    """(begin, count) of this rank's batches; every rank gets equally many, the last ones possibly empty."""
    for begin in range(0, n, batch * share.world):
        start = begin + share.rank * batch
        yield start, max(0, min(batch, n - start))


@dataclass(frozen=True)
class HeldOutBatches:
    """One pass over n held-out samples in order, padded to equal batches."""

    fetch: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    n: int
    batch: int
    share: Share

    def __len__(self) -> int:
        return -(-self.n // (self.batch * self.share.world))

    def __iter__(self) -> Iterator[HeldOutBatch]:
        for start, count in _rounds(self.n, self.batch, self.share):
            positions = torch.arange(start, start + self.batch).clamp_max(self.n - 1)
            yield HeldOutBatch(*self.fetch(positions), positions, count)


@dataclass(frozen=True)
class SeedBatches:
    """Seeds ``first ... first + n - 1``, padded to equal batches."""

    first: int
    n: int
    batch: int
    share: Share

    def __len__(self) -> int:
        return -(-self.n // (self.batch * self.share.world))

    def __iter__(self) -> Iterator[SeedBatch]:
        for start, count in _rounds(self.n, self.batch, self.share):
            yield seed_batch(self.first + start, count, self.batch)
