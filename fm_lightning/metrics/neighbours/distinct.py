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

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.reference import AbstractReference, Reference
from fm_lightning.metrics.neighbours.search import nearest

TIMED = 256  # images whose neighbours tell how long those of all will take
PATIENCE = 5  # seconds that need no announcement


@dataclass(frozen=True)
class Groups:
    """Which images count as one.

    Attributes:
        leader: ``[n]`` int64, the image that stands for each; its own index where it stands for itself.
        distance: images nearer than this to a leader are its near-duplicates.
    """

    leader: Tensor
    distance: float

    @property
    def near_duplicates(self) -> int:
        """Images that another one stands for."""
        return int((self.leader != torch.arange(len(self.leader))).sum())

    @property
    def count(self) -> int:
        """How many groups there are."""
        return len(self.leader) - self.near_duplicates

    @property
    def sizes(self) -> Tensor:
        """How many images the groups hold, descending."""
        return self.leader.bincount().sort(descending=True).values


def joined(*leaders: Tensor) -> Tensor:
    """``[n]`` int64: the first of all images that any of the ``leaders``, ``[n]`` each, make one."""
    n = len(leaders[0])
    rows = np.tile(np.arange(n), len(leaders))
    pairs = coo_array((np.ones(len(rows), bool), (rows, torch.cat(leaders).numpy())), (n, n))
    _, group = connected_components(pairs, directed=False)
    first = np.unique(group, return_index=True)[1]
    return torch.from_numpy(first[group].astype(np.int64))


def nearest_distinct(
    queries: Tensor,
    reference: Reference | AbstractReference,
    k: int,
    *,
    mirrored: bool = False,
    groups: Groups | None = None,
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
        raise UserError(f"Samples of shape {list(reference.shape[1:])} have no mirror images.", "Leave mirrored out.")
    if groups is not None and not 1 <= k <= groups.count:
        raise UserError(
            f"k={k} must be from 1 to {groups.count}, the number of different images.",
            "Pass a smaller k or a smaller leave_out_duplicates.",
        )
    # So many neighbours hold k groups for certain, even if the k - 1 largest come first. A few usually do.
    enough = k if groups is None else int(groups.sizes[: k - 1].sum()) + 1
    # Processes that search together have to take equally many steps.
    width = enough if isinstance(reference, AbstractReference) else min(enough, 2 * k)
    distances, indices, lacking = _search(queries, reference, k, width, mirrored, groups)
    while width < enough and len(lacking):
        width = min(enough, 4 * width)
        distances[lacking], indices[lacking], still = _search(queries[lacking], reference, k, width, mirrored, groups)
        lacking = lacking[still]
    return distances, indices


def _search(
    queries: Tensor, reference: Reference | AbstractReference, k: int, width: int, mirrored: bool, groups: Groups | None
) -> tuple[Tensor, Tensor, Tensor]:
    """The k nearest groups among the ``width`` nearest images, and the queries for which those hold fewer than k."""
    found = [nearest(x, reference, width) for x in ([queries, queries.flip(-1)] if mirrored else [queries])]
    lacking = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    if groups is not None:
        for distances, indices in found:
            lacking |= _nearest_of_each(distances, indices, groups)[0][:, k - 1].isinf()
    distances, indices = (torch.cat(sides, 1) for sides in zip(*found))
    if groups is not None or mirrored:
        distances, indices = _nearest_of_each(distances, indices, groups)
    return distances[:, :k].contiguous(), indices[:, :k].contiguous(), lacking.nonzero()[:, 0]


def _nearest_of_each(distances: Tensor, indices: Tensor, groups: Groups | None) -> tuple[Tensor, Tensor]:
    """The nearest image of each group, by ascending distance and then index; the others go to the end, with infinity."""
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
    return distances, indices.gather(1, order)


def find_groups(
    reference: Reference, relative: float, *, mirrored: bool = False, say: Callable[[str], object] | None = None
) -> Groups:
    """Near-duplicates of the reference, see the module's docstring. Compares all with all: n^2 distances, once.

    Args:
        reference: ``[n, ...]``, at least 2.
        relative: above 0; how near, in units of the median nearest-neighbour distance. Exact copies are always found.
        mirrored: find mirror images, too.
        say: is told beforehand how long it will take, where that is more than a few seconds (``print``).

    Raises:
        UserError: ``relative`` out of range.
    """
    if not 0 < relative < 1:
        raise UserError(f"leave_out_duplicates={relative:g} must be between 0 and 1.", "Pass, for example, 0.3333.")
    n = len(reference)
    if say is not None and (seconds := n / TIMED * _seconds(reference, mirrored)) > PATIENCE:
        say(f"Comparing {n:,} training images with each other for near-duplicates: about {seconds:,.0f} s")
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
    return Groups(leader, limit)


def _seconds(reference: Reference, mirrored: bool) -> float:
    """How long the neighbours of ``TIMED`` images take."""
    rows = torch.arange(min(TIMED, len(reference)))
    start = time.perf_counter()
    _others(reference, rows, min(2, len(reference)), mirrored)  # brings its answer to the CPU: the device is done
    return time.perf_counter() - start


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
