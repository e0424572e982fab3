"""Neighbours that are different images: an image, its mirror image and its near-duplicates count as one.

    distance to an image        min of the distances to it and, if mirrored, to its mirror image
    distance to a group         min of the distances to its images
    d_k                         distance to the k-th nearest group

so that the two nearest are never an image and its own twin, however symmetric it is.

Near-duplicates are found going through the images in order: one that lies nearer than ``relative`` times the median
nearest-neighbour distance to an earlier image that stands for a group joins this group, any other stands for a new one.
Unlike chains of near pairs, such a group cannot grow beyond that distance from the image that stands for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.reference import Divided, Reference
from fm_lightning.metrics.neighbours.search import nearest


@dataclass(frozen=True)
class Groups:
    """Which images count as one.

    Attributes:
        leader: ``[n]`` int64, the image that stands for each; its own index where it stands for itself.
        distance: images nearer than this to a leader are its near-duplicates.
        relative: that distance in units of the median nearest-neighbour distance.
    """

    leader: Tensor
    distance: float
    relative: float

    @property
    def near_duplicates(self) -> int:
        """Images that another one stands for."""
        return int((self.leader != torch.arange(len(self.leader))).sum())

    @property
    def sizes(self) -> Tensor:
        """How many images the groups hold, descending."""
        return self.leader.bincount().sort(descending=True).values


def nearest_distinct(
    queries: Tensor, reference: Reference | Divided, k: int, *, mirrored: bool = False, groups: Groups | None = None
) -> tuple[Tensor, Tensor]:
    """The k nearest different images for every query.

    Args:
        queries: ``[Q, ...]``, images ``[Q, C, H, W]`` if ``mirrored``.
        reference: ``[n, ...]``; one that is divided among processes is searched by all of them together.
        k: 1 to the number of groups.
        mirrored: an image and its mirror image are one.
        groups: images that are one; None: each is its own.

    Returns:
        distances ``[Q, k]`` float32, ascending, and indices ``[Q, k]`` int64 of the nearest image in each group.

    Raises:
        UserError: k out of range, or mirrored points.
    """
    if mirrored and len(reference.shape) != 4:
        raise UserError(
            f"mirrored=True given for samples of shape {list(reference.shape[1:])}, expected images [C, H, W]"
        )
    # So many neighbours hold k groups for certain, even if the k - 1 largest come first.
    enough = k if groups is None else int(groups.sizes[: k - 1].sum()) + 1
    if groups is not None and not 1 <= k <= len(groups.sizes.nonzero()):
        raise UserError(
            f"k = {k} different neighbours asked for, expected 1 to {len(groups.sizes.nonzero())}, the images that are no "
            "near-duplicates of each other; type a smaller k or leave_out_duplicates"
        )
    distances, indices = nearest(queries, reference, enough)
    if mirrored:
        there = nearest(queries.flip(-1), reference, enough)
        distances, indices = torch.cat([distances, there[0]], 1), torch.cat([indices, there[1]], 1)
    if groups is None and not mirrored:
        return distances, indices
    # Equal distances by ascending index, as `nearest` orders them.
    indices, order = indices.sort(dim=1)
    distances, order = distances.gather(1, order).sort(dim=1, stable=True)
    indices = indices.gather(1, order)
    names = indices if groups is None else groups.leader.to(indices.device)[indices]
    # Of each name only the first, which is the nearest, stays.
    by_name, order = names.sort(dim=1, stable=True)
    later = torch.zeros_like(by_name, dtype=torch.bool)
    later[:, 1:] = by_name[:, 1:] == by_name[:, :-1]
    repeated = torch.zeros_like(later).scatter_(1, order, later)
    distances, order = distances.masked_fill(repeated, torch.inf).sort(dim=1, stable=True)
    return distances[:, :k].contiguous(), indices.gather(1, order[:, :k])


def find_groups(reference: Reference, relative: float, *, mirrored: bool = False) -> Groups:
    """Near-duplicates of the reference, see the module's docstring. Compares all with all: n^2 distances, once.

    Args:
        reference: ``[n, ...]``, at least 2.
        relative: above 0; how near, in units of the median nearest-neighbour distance. Exact copies are always found.
        mirrored: find mirror images, too.

    Raises:
        UserError: ``relative`` out of range.
    """
    if not 0 < relative < 1:
        raise UserError(
            f"leave_out_duplicates={relative:g} given, expected between 0 and 1 (medians of the nearest-neighbour distance); "
            "type e.g. 0.3333"
        )
    n = len(reference)
    distances, indices = _others(reference, torch.arange(n), min(2, n), mirrored)
    limit = relative * float(distances[:, 0].median())
    near: list[list[int]] = [[] for _ in range(n)]
    rows, k = torch.arange(n), 2
    while len(rows):
        within = (distances < limit) | (distances == 0)
        done = ~within.all(1) if k < n else torch.ones(len(rows), dtype=torch.bool)
        some = done & within.any(1)
        for row, index, mask in zip(rows[some].tolist(), indices[some], within[some]):
            near[row] = index[mask].tolist()
        # Rows all of whose neighbours are that near may have more of them.
        rows, k = rows[~done], min(n, 4 * k)
        if len(rows):
            distances, indices = _others(reference, rows, k, mirrored)
    leader = torch.arange(n)
    for row in range(n):
        earlier = [i for i in near[row] if i < row and leader[i] == i]
        if earlier:
            leader[row] = earlier[0]  # the nearest of them
    return Groups(leader, limit, relative)


def _others(reference: Reference, rows: Tensor, k: int, mirrored: bool) -> tuple[Tensor, Tensor]:
    """The k - 1 nearest other images of the images ``rows``: distances and indices ``[r, k - 1]``, on the CPU."""
    found = []
    for part in rows.split(1024):
        queries = reference.take(part)
        distances, indices = nearest_distinct(queries, reference, k, mirrored=mirrored)
        itself = indices == part[:, None].to(indices.device)
        # Among many exact copies the image itself may be missing: then the last one goes.
        itself[~itself.any(1), -1] = True
        keep = (~itself).nonzero(as_tuple=True)
        shape = (len(part), k - 1)
        found.append((distances[keep].reshape(shape).cpu(), indices[keep].reshape(shape).cpu()))
    return torch.cat([d for d, _ in found]), torch.cat([i for _, i in found])
