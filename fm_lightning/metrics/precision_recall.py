"""Precision and recall of samples by balls around features (arXiv 1904.06991).

    B(F) = union of the balls around each f in F, reaching to its k-th nearest other point of F
    precision = share of samples inside B(real)         recall = share of real images inside B(samples)

A point x lies in some ball (f_j, r_j) iff min_j |x - f_j|^2 - r_j^2 <= 0. With R the largest radius and one coordinate
more, that minimum is a nearest neighbour:

    |(x, 0) - (f_j, sqrt(R^2 - r_j^2))|^2 = |x - f_j|^2 - r_j^2 + R^2

hence inside iff the lifted nearest distance is at most R. So the exact engine of `neighbours` answers both questions in
bounded memory, where the usual products of float32 features lose their digits just at copies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours import nearest
from fm_lightning.metrics.reference import Reference

NEIGHBOURS = 3


class Balls:
    """Balls around features, reaching to the k-th nearest other one.

    Args:
        features: ``[n, D]``, more than k.
        k: 3 in the literature, and for ADM.

    Raises:
        UserError: k or fewer features.

    Example:
        >>> Balls(torch.tensor([[0.0], [1.0], [3.0]]), k=1).hold(torch.tensor([[-0.9], [4.5], [5.5]]))
        tensor([ True,  True, False])
    """

    def __init__(self, features: Tensor, k: int = NEIGHBOURS) -> None:
        if len(features) <= k:
            raise UserError(
                f"balls to the neighbour number {k} of {len(features)} images asked for, expected more than {k} on each "
                "side of precision and recall; draw more seeds"
            )
        features = features.float()
        radius = nearest(features, features, k + 1)[0][:, k].double()  # the nearest of all is the point itself
        self.largest = radius.amax().float()
        lift = (radius.amax().square() - radius.square()).sqrt().float()
        self.lifted = Reference(torch.cat([features, lift[:, None]], 1))

    def hold(self, points: Tensor) -> Tensor:
        """``[m]`` bool for points ``[m, D]``: which lie in at least one ball, its edge included."""
        queries = torch.cat([points.float(), points.new_zeros(len(points), 1, dtype=torch.float32)], 1)
        return nearest(queries, self.lifted, 1)[0][:, 0] <= self.largest


def precision_recall(features: Tensor, real: Tensor, balls: Balls | None = None) -> dict[str, float]:
    """``precision`` and ``recall``; on Inception's features and with k = 3 they are ADM's.

    Args:
        features: ``[n, D]`` of the samples.
        real: ``[m, D]`` of real images.
        balls: around ``real``, where they are at hand from an earlier call.

    Raises:
        UserError: a side with three images or fewer.
    """
    inside = (balls or Balls(real)).hold(features), Balls(features).hold(real)
    precision, recall = (float(found.double().mean()) for found in inside)
    return {"precision": precision, "recall": recall}
