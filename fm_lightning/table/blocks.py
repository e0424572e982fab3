"""Blocks: what a comparison still has to sample or to measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fm_lightning.table.parts import Part


class Block(NamedTuple):
    """Seeds ``first`` to ``last`` of some rows: to sample, or, where a ``part`` keeps the samples, to measure alone."""

    first: int
    last: int
    rows: tuple[str, ...]
    part: Part | None = None
    measures: tuple[str, ...] = ()  # NAME-FINGERPRINT of what its lines are to have

    @property
    def size(self) -> int:
        return self.last - self.first + 1


def missing(
    parts: Sequence[Part], rows: Mapping[str, str], seeds: range, size: int, measures: Iterable[str]
) -> list[Block]:
    """The blocks that complete a table, those of like rows beside each other.

    Args:
        parts: that are there.
        rows: name -> key; of names that share a key the first is sampled.
        seeds: that every row is to have.
        size: seeds of a full block. Blocks begin at multiples of it, so that a comparison that was interrupted samples
            the same batches as one that was not.
        measures: ``NAME-FINGERPRINT`` that every line is to have.
    """
    measures = tuple(dict.fromkeys(measures))
    names: dict[str, str] = {}
    for name, key in rows.items():
        names.setdefault(key, name)
    lacks = {key: np.ones(len(seeds), dtype=bool) for key in names}
    again: list[Block] = []
    for part in sorted(parts, key=lambda part: part.path.name):
        wanted = [key for key in part.keys if key in lacks]
        begin, end = max(part.first, seeds.start), min(part.last + 1, seeds.stop)
        if not wanted or begin >= end:
            continue
        here = slice(begin - seeds.start, end - seeds.start)
        whole = all(part.has(measure) for measure in measures)
        if not whole and not part.keeps_all:
            continue  # sampled again: what it lacks needs its samples
        if not whole and any(lacks[key][here].any() for key in wanted):
            again.append(Block(part.first, part.last, tuple(names[key] for key in wanted), part, measures))
        for key in wanted:
            lacks[key][here] = False
    return again + [block._replace(measures=measures) for block in _cut(lacks, names, seeds, size)]


def _cut(lacks: Mapping[str, np.ndarray], names: Mapping[str, str], seeds: range, size: int) -> list[Block]:
    found: dict[tuple[str, ...], list[Block]] = {}
    for start in range(0, len(seeds), size):
        runs: dict[tuple[int, int], list[str]] = {}
        for key, lack in lacks.items():
            for run in _runs(lack[start : start + size]):
                runs.setdefault(run, []).append(names[key])
        for (begin, end), some in runs.items():
            first = seeds.start + start
            found.setdefault(tuple(some), []).append(Block(first + begin, first + end - 1, tuple(some)))
    return [block for blocks in found.values() for block in blocks]


def _runs(lack: np.ndarray) -> list[tuple[int, int]]:
    """``[begin, end)`` of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lack, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]
