"""A reference that is divided among the processes of a group, because it does not fit into the memory of one.

Queries travel, rows stay: in rounds that fit the budget every process receives the queries of all, searches its own rows
for them, and sends the k best back to where each query came from. ``merge`` orders them as a search of the whole would.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.neighbours.duplicates import DIGEST, first_of_equal
from fm_lightning.metrics.neighbours.reference import (
    BUDGET,
    AbstractReference,
    Reference,
    check_k,
    check_match,
    check_shape,
    check_unit,
    content_fingerprint,
    max_rows,
    squared_norms,
)
from fm_lightning.metrics.neighbours.search import merge, nearest


class ShardedReference(AbstractReference):
    """N rows of which each process holds some. Making one and searching it are collective: every process takes part.

        r = ShardedReference(rows[rank::ranks], strided=True)   # or a contiguous part, in the order of the ranks
        distances, indices = nearest(queries, r, k)             # each process with queries of its own, or none

    Args:
        part: ``[n, ...]`` this process's rows, as for ``Reference``; n may be 0.
        strided: the parts are ``rows[rank::ranks]`` of the whole; otherwise they follow each other.
        group: the processes, default all; without ``torch.distributed`` there is one.
        device, budget, encode: as for ``Reference``. Communication happens on the device.

    Attributes:
        shape: of the whole, ``(N, ...)``.

    Raises:
        UserError: on every process alike, if one of them has a part that ``Reference`` refuses or that does not belong to
            the others.
    """

    def __init__(
        self,
        part: Any,
        *,
        strided: bool = False,
        group: dist.ProcessGroup | None = None,
        device: torch.device | str | None = None,
        budget: int = BUDGET,
        encode: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.group, self.strided = group, strided
        alone = not (dist.is_available() and dist.is_initialized())
        self.ranks, self.rank = (1, 0) if alone else (dist.get_world_size(group), dist.get_rank(group))
        part = part if isinstance(part, Tensor) else np.asanyarray(part)
        here = part.device if isinstance(part, Tensor) else "cpu"
        self.device = torch.device(device or here)
        self.part: Reference | None = None
        error = None
        try:
            check_shape("reference", part)
            if len(part):
                self.part = Reference(part, device=device, budget=budget, encode=encode)
        except Exception as problem:
            error = problem
        found = self._agree(error, tuple(part.shape))
        counts, shapes = [shape[0] for shape in found], {shape[1:] for shape in found}
        whole = sum(counts)
        if len(shapes) > 1:
            raise UserError(
                f"The parts have rows of shapes {sorted(map(list, shapes))}.",
                "Pass rows of one shape in all processes.",
            )
        if not whole:
            raise UserError("The reference is empty.", "Pass at least one row in any process.")
        if strided and counts != [len(range(r, whole, self.ranks)) for r in range(self.ranks)]:
            raise UserError(
                f"The parts have {counts} rows, which are not strided.",
                f"Pass rows[rank::{self.ranks}] of the whole in each process, or strided=False.",
            )
        self.shape = (whole, *part.shape[1:])
        self.size = int(np.prod(part.shape[1:], dtype=np.int64))
        self.offset = sum(counts[: self.rank])
        self._first: dict[bool, Tensor] = {}

    def nearest(self, queries: Tensor, k: int, *, budget: int = BUDGET) -> tuple[Tensor, Tensor]:
        """The k nearest rows of the whole for this process's queries ``[Q, ...]``: bitwise what one process finds.

        Every process calls it equally often, with the same k and any number of queries; one that calls it once more
        waits for the others until the group's timeout.

        Args:
            queries: on any device.
            k: 1 to N.
            budget: bytes for the search, and as much again for queries and answers under way; may differ.

        Returns:
            distances ``[Q, k]`` and indices ``[Q, k]`` into the whole, as ``nearest`` orders them.

        Raises:
            UserError: what ``nearest`` refuses, or different k; on every process alike.
        """
        error, fit = None, 0
        try:
            check_shape("queries", queries)
            check_match(queries, self)
            if self.part is not None:
                check_unit(queries, self.part)
            check_k(k, len(self))
            # Queries of all, as they come and cut to those there are; answers on the way out, on the way in, merged.
            fit = max_rows(budget, self.ranks * (2 * self.size * 8 + 100 * k), "query of each process or")
            if self.part is not None:  # would the search fit?
                nearest(queries[:0], self.part, min(k, len(self.part)), budget=budget)
            for start in range(0, len(queries), fit):
                few = queries[start : start + fit].detach()
                squared_norms("query", few.reshape(len(few), self.size).float(), start)
        except Exception as problem:
            error = problem
        said = self._agree(error, (len(queries), str(queries.dtype), k, fit))
        if len({each[2] for each in said}) > 1:
            raise UserError(
                f"The processes ask for different numbers of neighbours, k={[each[2] for each in said]}.",
                "Pass the same k in all.",
            )
        counts, kinds = [each[0] for each in said], {each[1] for each in said}
        dtype = queries.dtype if len(kinds) == 1 else torch.float64
        fit = min(each[3] for each in said)

        rows = queries.detach().reshape(len(queries), self.size)
        distances = torch.empty(len(rows), k, device=queries.device)
        indices = torch.empty(len(rows), k, device=queries.device, dtype=torch.int64)
        for start in range(0, max(counts), fit):
            width = min(fit, max(counts) - start)
            given = [min(max(count - start, 0), width) for count in counts]
            mine = torch.zeros(width, self.size, dtype=dtype, device=self.device)
            block = slice(start, start + given[self.rank])
            mine[: given[self.rank]] = rows[block].to(self.device)
            near, index = self._empty(k, width), self._empty(k, width, torch.int64)
            if error is None:
                try:
                    self._search(self._gather(mine), given, near, index, budget)
                except Exception as problem:  # reported at the end, because the others wait for answers
                    error = problem
            else:
                self._gather(mine)
            near, index = self._scatter(near), self._scatter(index)
            best = merge(near.unbind(0), index.unbind(0), k)
            distances[block], indices[block] = (found[: given[self.rank]].to(distances.device) for found in best)
        self._agree(error, None)
        return distances, indices

    def exact_duplicates(self, mirrored: bool = False) -> Tensor:
        """What ``Reference.exact_duplicates`` of the whole returns; kept. Collective at the first call."""
        if mirrored not in self._first:
            self._first[mirrored] = first_of_equal(self._digests(mirrored))
        return self._first[mirrored]

    def _digests(self, mirrored: bool = False) -> np.ndarray:
        parts = self._agree(None, np.empty(0, f"V{DIGEST}") if self.part is None else self.part.digests(mirrored))
        if not self.strided:
            return np.concatenate(parts)
        whole = np.empty(len(self), f"V{DIGEST}")
        for rank, part in enumerate(parts):
            whole[rank :: self.ranks] = part
        return whole

    @cached_property
    def fingerprint(self) -> str:
        """That of a ``Reference`` of the whole. Collective at the first call."""
        probes = self._agree(None, None if self.part is None else self.part.probe())
        first = next(probe for probe in probes if probe is not None)
        return content_fingerprint(self.shape, self._digests(), first)

    def _search(self, queries: Tensor, given: list[int], near: Tensor, index: Tensor, budget: int) -> None:
        """Answers of this part's rows to queries ``[ranks, w, D]``, of which the first ``given`` are meant."""
        if self.part is None:
            return
        k = min(near.shape[2], len(self.part))
        width = queries.shape[1]
        whole = min(given) == width
        found = nearest(
            queries.flatten(0, 1) if whole else torch.cat([q[:n] for q, n in zip(queries, given)]),
            self.part,
            k,
            budget=budget,
        )
        ids = found[1] * self.ranks + self.rank if self.strided else found[1] + self.offset
        for r, (d, i) in enumerate(zip(found[0].split(given), ids.split(given))):
            near[r, : given[r], :k], index[r, : given[r], :k] = d, i

    def _empty(self, k: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """``[ranks, w, k]`` of what comes behind every neighbour."""
        last = torch.inf if dtype == torch.float32 else len(self)
        return torch.full((self.ranks, width, k), last, dtype=dtype, device=self.device)

    def _gather(self, mine: Tensor) -> Tensor:
        """``[ranks, ...]`` from ``[...]`` of each process."""
        if self.ranks == 1:
            return mine[None]
        out = mine.new_empty(self.ranks, *mine.shape)
        dist.all_gather(list(out.unbind(0)), mine, group=self.group)
        return out

    def _scatter(self, answers: Tensor) -> Tensor:
        """``[ranks, ...]``: what each process answered to this one, from what this one answers to each."""
        if self.ranks == 1:
            return answers
        out = torch.empty_like(answers)
        dist.all_to_all_single(out, answers, group=self.group)
        return out

    def _agree(self, error: Exception | None, value: Any) -> list[Any]:
        """Every process's value; raises on all what any of them has to say."""
        if self.ranks == 1:
            if error is not None:
                raise error
            return [value]
        said: list[Any] = [None] * self.ranks
        mine = error
        if not (error is None or isinstance(error, UserError)):
            mine = UserError(f"{error!r}.", "Fix what failed in this process.")
        dist.all_gather_object(said, (mine, value), group=self.group)
        for rank, (problem, _) in enumerate(said):
            if problem is not None:
                raise UserError(f"Process {rank}: {problem.problem}", problem.fix) from error
        return [each for _, each in said]
