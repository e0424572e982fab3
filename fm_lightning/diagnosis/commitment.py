"""When a trajectory commits to the training image that it ends nearest to.

At every step the state implies where it would arrive: the denoised estimate ``x + (1 - t) v``. From some step on the training
image nearest to it is the one nearest to the finished sample; that step's time is the commitment.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest


@dataclass(frozen=True, eq=False)
class Commitment:
    """Commitments of B samples over S steps.

    Attributes:
        time: ``[B]`` float64: of the first step after which the nearest image stays the sample's; 1 where even the last step's
            estimate lies nearer to another one.
        image: ``[B]`` index of the training image nearest to the sample.
        nearest: ``[S, B]`` that of every step's estimate.
        distance: ``[S, B]`` the estimate's distance to it.
        times: ``[S]`` float64.
    """

    time: Tensor
    image: Tensor
    nearest: Tensor
    distance: Tensor
    times: Tensor


class CommitmentProbe:
    """Watches one integration; for the next batch take another.

        probe = CommitmentProbe(training_images)
        trajectory = integrate(velocity, x0, schedule, probe=probe)
        probe.commitment(trajectory.x1).time

    Args:
        reference: ``[n, ...]`` training images in the model's space, or a ``Reference`` of them.
    """

    def __init__(self, reference: Tensor | Reference) -> None:
        self.reference = reference if isinstance(reference, Reference) else Reference(reference)
        self._times: list[float] = []
        self._nearest: list[Tensor] = []
        self._distance: list[Tensor] = []

    def __call__(self, i: int, t: float, x: Tensor, v: Tensor) -> None:
        """What ``integrate`` calls at each step."""
        distance, index = nearest(torch.add(x, v, alpha=1 - t), self.reference, 1)
        self._times.append(t)
        self._nearest.append(index[:, 0])
        self._distance.append(distance[:, 0])

    def commitment(self, x1: Tensor) -> Commitment:
        """Of the finished samples ``[B, ...]``.

        Raises:
            UserError: the probe saw nothing, or another number of samples.
        """
        if not self._times or len(self._nearest[0]) != len(x1):
            seen = len(self._nearest[0]) if self._times else 0
            raise UserError(
                f"The probe has seen {seen} samples, not {len(x1)}.",
                "Pass it to integrate as probe= and then the samples of that call.",
            )
        image = nearest(x1, self.reference, 1)[1][:, 0]
        steps, times = torch.stack(self._nearest), torch.tensor(self._times, dtype=torch.float64)
        time = commitment_times(steps, image, times)
        return Commitment(time, image, steps, torch.stack(self._distance), times)


def commitment_times(nearest_image: Tensor, final: Tensor, times: Tensor) -> Tensor:
    """``[B]`` times from which ``nearest_image [S, B]`` stays at ``final [B]``, read at ``times [S]``; 1 where it never does."""
    stays = (nearest_image == final).flip(0).int().cumprod(0)  # [S, B]
    first = len(times) - stays.sum(0)
    return torch.cat([times, times.new_ones(1)])[first.cpu()]
