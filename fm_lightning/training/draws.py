"""Random draws of the loss: in training they derive from the step, on any device; on held-out data from the position."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fm_lightning.data.batches import HeldOutBatch, TrainBatch
from fm_lightning.flow import Coupling, TimeSampling
from fm_lightning.noise import HELD_OUT, noise, step_generator, step_seed

_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Draws:
    """The draws of a device's share of a step: each device draws the whole batch and takes its part.

    Args:
        base_seed: seed of the run.
        batch: the device's share of the step's batch.
        device: device on which to draw.
    """

    base_seed: int
    batch: TrainBatch
    device: torch.device

    @property
    def mine(self) -> slice:
        """The share's place in the step's batch."""
        return slice(self.batch.offset, self.batch.offset + len(self.batch.x))

    def bridge(self, times: TimeSampling) -> tuple[Tensor, Tensor]:
        """Times ``[b]`` from the distribution ``times``, and the whole step's noise ``[total, ...]``."""
        generator = self._generator("bridge")
        t = times(self.batch.total, generator)[self.mine]
        return t, torch.randn(self.batch.total, *self.batch.x.shape[1:], generator=generator, device=self.device)

    def couple(
        self, coupling: Coupling, x0: Tensor, world: int, rank: int, all_gather: Callable[[Tensor], Any]
    ) -> Tensor:
        """``[b, ...]``: which of the step's noise goes with which sample of this share.

        A coupling that depends on the whole batch is solved by each process for the micro-batch of all devices.
        """
        x1, y, mine = self.batch.x, self.batch.y, self.mine
        if world == 1 or not coupling.looks_at_batch:
            return coupling(x0[mine], x1, y)
        begin = mine.start - rank * len(x1)
        x1 = all_gather(x1).flatten(0, 1)
        y = None if y is None else all_gather(y).flatten(0, 1)
        return coupling(x0[begin : begin + len(x1)], x1, y)[mine.start - begin : mine.stop - begin]

    def labels(self) -> Tensor:
        """``[b]`` uniform in [0, 1): which labels are dropped."""
        return torch.rand(self.batch.total, generator=self._generator("labels"), device=self.device)[self.mine]

    def seed_network(self) -> None:
        """Seeds the default generator, which dropout uses, so that a resumed run equals an uninterrupted one.

        (``torch.manual_seed`` would also record a stack trace per absent device type, a millisecond a step.)
        """
        cuda = self.device.type == "cuda"
        default = torch.cuda.default_generators[self.device.index or 0] if cuda else torch.default_generator
        default.manual_seed(step_seed(self.base_seed, self.batch.step, "network", self.batch.offset))

    def _generator(self, purpose: str) -> torch.Generator:
        return step_generator(self.base_seed, self.batch.step, self.device, purpose)


def held_out_bridge(
    batch: HeldOutBatch, base_seed: int, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Times ``[B]`` and noise ``[B, ...]`` that belong to the samples' positions in the held-out set.

    The loss is comparable from step to step, run to run, and for any number of devices.
    """
    x0 = noise(batch.positions.tolist(), batch.x.shape[1:], base_seed, HELD_OUT).to(device=device, dtype=dtype)
    return ((batch.positions + 0.5) * _GOLDEN % 1).to(x0), x0
