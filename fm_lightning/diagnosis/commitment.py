"""When a trajectory commits to the training image that it ends nearest to.

At every step the state implies where it would arrive: the denoised estimate ``x + (1 - t) v``. From some step on the training
image nearest to it is the one nearest to the finished sample; that step's time is the commitment.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest


class CommitmentProbe:
    """Watches one integration; for the next batch take another.

        probe = CommitmentProbe(training_images)
        trajectory = integrate(velocity, x0, schedule, probe=probe)
        probe.commitment(trajectory.x1)

    Args:
        reference: ``[n, ...]`` training images in the model's space, or a ``Reference`` of them.
    """

    def __init__(self, reference: Tensor | Reference) -> None:
        self.reference = reference if isinstance(reference, Reference) else Reference(reference)
        self.times: list[float] = []
        self.nearest: list[Tensor] = []  # [S] times [B], the image nearest to each step's estimate

    def __call__(self, i: int, t: float, x: Tensor, v: Tensor) -> None:
        """What ``integrate`` calls at each step."""
        self.times.append(t)
        self.nearest.append(nearest(torch.add(x, v, alpha=1 - t), self.reference, 1)[1][:, 0])

    def commitment(self, x1: Tensor) -> Tensor:
        """``[B]`` float64 times of the finished samples ``[B, ...]``, see ``commitment_times``.

        Raises:
            UserError: the probe saw nothing, or another number of samples.
        """
        seen = len(self.nearest[0]) if self.nearest else 0
        if seen != len(x1) or not seen:
            raise UserError(
                f"The probe has seen {seen} samples, not {len(x1)}.",
                "Pass it to integrate as probe= and then the samples of that call.",
            )
        final = nearest(x1, self.reference, 1)[1][:, 0]
        return commitment_times(torch.stack(self.nearest), final, torch.tensor(self.times, dtype=torch.float64))


def commitment_times(nearest_image: Tensor, final: Tensor, times: Tensor) -> Tensor:
    """``[B]`` times from which ``nearest_image [S, B]`` stays at ``final [B]``, read at ``times [S]``.

    1 where even the last step's estimate lies nearer to another image than the finished sample does.
    """
    stays = (nearest_image == final).flip(0).int().cumprod(0)  # [S, B]
    first = len(times) - stays.sum(0)
    return torch.cat([times, times.new_ones(1)])[first.cpu()]
