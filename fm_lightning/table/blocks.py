"""Blocks: what a comparison still has to sample or to measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from fm_lightning.table.parts import Part


class Block(NamedTuple):
    """Seeds ``first`` to ``last`` of some rows, to be sampled; only measured where a ``part`` keeps the samples."""

    first: int
    last: int
    rows: tuple[str, ...]
    part: Part | None = None
    measures: tuple[str, ...] = ()  # NAME-FINGERPRINT that its lines need

    @property
    def size(self) -> int:
        return self.last - self.first + 1


def missing(
    parts: Sequence[Part], rows: Mapping[str, str], seeds: range, size: int, measures: Iterable[str]
) -> list[Block]:
    """The blocks that complete a table; blocks of the same rows follow each other.

    Args:
        parts: the parts that exist.
        rows: name -> key; of names that share a key, the first is sampled.
        seeds: the seeds that every row needs.
        size: seeds of a full block. Blocks begin at multiples of it, so that an interrupted comparison samples the same
            batches as an uninterrupted one.
        measures: ``NAME-FINGERPRINT`` of the measures that every line needs.
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
            continue  # the missing measures need samples, so these are sampled again
        if not whole and any(lacks[key][here].any() for key in wanted):
            again.append(Block(part.first, part.last, tuple(names[key] for key in wanted), part, measures))
        for key in wanted:
            lacks[key][here] = False
    return again + [block._replace(measures=measures) for block in _new_blocks(lacks, names, seeds, size)]


def _new_blocks(lacks: Mapping[str, np.ndarray], names: Mapping[str, str], seeds: range, size: int) -> list[Block]:
    found: dict[tuple[str, ...], list[Block]] = {}
    for start in range(0, len(seeds), size):
        runs: dict[tuple[int, int], list[str]] = {}
        for key, lack in lacks.items():
            for run in _intervals(lack[start : start + size]):
                runs.setdefault(run, []).append(names[key])
        for (begin, end), some in runs.items():
            first = seeds.start + start
            found.setdefault(tuple(some), []).append(Block(first + begin, first + end - 1, tuple(some)))
    return [block for blocks in found.values() for block in blocks]


def _intervals(lack: np.ndarray) -> list[tuple[int, int]]:
    """``[begin, end)`` of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], lack, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2])]
