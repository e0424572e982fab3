"""The columns of a measure, from trajectories or from samples that a comparison has kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch

from fm_lightning.comparison.measures import Measure
from fm_lightning.table.parts import Part
from fm_lightning.trajectory import Trajectory


def measured(
    measure: Measure, given: Iterable[tuple[str, Trajectory]], shape: Sequence[int], device: torch.device
) -> dict[str, dict[str, np.ndarray]]:
    """The columns of each row; where processes measure together, of all rows in one call."""
    if not measure.collective:
        return {row: _numpy(measure.measure(trajectory)) for row, trajectory in given}
    rows = {row: trajectory.x1 for row, trajectory in given}
    none = torch.zeros(0, *shape, device=device)
    columns = _numpy(measure.measure(_still(torch.cat([none, *rows.values()]))))
    ends = np.cumsum([len(x) for x in rows.values()])
    return {row: {n: v[end - len(rows[row]) : end] for n, v in columns.items()} for row, end in zip(rows, ends)}


def kept_samples(part: Part, device: torch.device) -> Iterator[tuple[str, Trajectory]]:
    """(row, its samples as a trajectory of no steps) of each row whose samples a part keeps."""
    labels = part.lines().column("label").to_numpy()
    for key in part.keys:
        kept, mine = part.samples(key), labels[part.place(key)]
        assert kept is not None
        y = None if np.isnan(mine).any() else torch.tensor(mine, dtype=torch.int64, device=device)
        yield key, _still(torch.tensor(kept, device=device), y)


def joined(pieces: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The pieces' columns, one after the other."""
    return {column: np.concatenate([piece[column] for piece in pieces]) for column in pieces[0]}


def _still(x: torch.Tensor, labels: torch.Tensor | None = None) -> Trajectory:
    nothing = x.new_zeros(len(x))
    edges = torch.zeros(1, dtype=torch.float64)
    return Trajectory(x, x.new_zeros(0, len(x)), nothing, nothing, edges, edges[:0], 0, labels)


def _numpy(columns: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: values.detach().cpu().numpy() for name, values in columns.items()}
