"""The columns of a measure, from trajectories or from samples that a comparison has kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fm_lightning.metrics.measure import Measure
from fm_lightning.table.parts import Part
from fm_lightning.trajectory import Trajectory

Named = Iterable[tuple[str, Trajectory]]  # a row's name or key, and its samples
Arrays = dict[str, np.ndarray]


def measure_rows(measure: Measure, rows: Named) -> dict[str, Arrays]:
    """The columns of each row; one row's samples are in memory at a time."""
    return {row: _numpy(measure.measure(trajectory)) for row, trajectory in rows}


def measure_together(
    measure: Measure, blocks: Sequence[Named], shape: Sequence[int], device: torch.device
) -> list[dict[str, Arrays]]:
    """The columns of each row of each block, from one call: all processes search together, those without samples too."""
    rows = [{row: trajectory.x1 for row, trajectory in block} for block in blocks]
    none = torch.zeros(0, *shape, device=device)
    columns = _numpy(measure.measure(_still(torch.cat([none, *(x for block in rows for x in block.values())]))))
    begin, found = 0, []
    for block in rows:
        mine = {}
        for row, x in block.items():
            mine[row] = {name: values[begin : begin + len(x)] for name, values in columns.items()}
            begin += len(x)
        found.append(mine)
    return found


def kept_samples(part: Part, device: torch.device) -> Iterator[tuple[str, Trajectory]]:
    """(key, its samples as a trajectory of no steps) of each row whose samples a part keeps."""
    labels = part.lines().column("label").to_numpy()
    for key in part.keys:
        kept, mine = part.samples(key), labels[part.place(key)]
        assert kept is not None
        y = None if np.isnan(mine).any() else torch.tensor(mine, dtype=torch.int64, device=device)
        yield key, _still(torch.tensor(kept, device=device), y)


def concatenated(pieces: Sequence[Arrays]) -> Arrays:
    """The pieces' columns, one after the other."""
    return {column: np.concatenate([piece[column] for piece in pieces]) for column in pieces[0]}


def _still(x: Tensor, labels: Tensor | None = None) -> Trajectory:
    nothing = x.new_zeros(len(x))
    edges = torch.zeros(1, dtype=torch.float64)
    return Trajectory(x, x.new_zeros(0, len(x)), nothing, nothing, edges, edges[:0], 0, labels)


def _numpy(columns: dict[str, Tensor]) -> Arrays:
    return {name: values.detach().cpu().numpy() for name, values in columns.items()}
