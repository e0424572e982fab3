"""Columns of the table as tensors: the input of every number that a measure computes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from fm_lightning.table.evaluation import Evaluation

ENERGY = "energy"  # the measure that every line has, read from the lines themselves
Columns = Mapping[str, Tensor]


def read_columns(evaluation: Evaluation, row: str, measure: str, seeds: range | None = None) -> dict[str, Tensor]:
    """The columns of a measure for one row, ascending in ``seeds``; empty where nothing was measured.

    Args:
        evaluation: the table.
        row: the row's name.
        measure: the measure's name.
        seeds: which; by default those of the comparison.
    """
    if measure == ENERGY:
        lines = evaluation.lines(row, seeds, measured=False)
        if not len(lines):
            return {}
        found = {name: lines[name].to_numpy() for name in ("kpe", "displacement", "field_energy")}
        found |= {"seed": lines.seed.to_numpy(), "energy": evaluation.energy(row, seeds)}
        columns = {name: torch.from_numpy(np.array(values)) for name, values in found.items()}
        columns["times"] = torch.tensor(evaluation.rows[row]["times"], dtype=torch.float64)
    else:
        # These arrays are new: another copy could take gigabytes.
        columns = {name: torch.from_numpy(values) for name, values in evaluation.columns(row, measure, seeds).items()}
    if columns:
        columns["seeds"] = columns.pop("seed")
    return columns


def on_common_seeds(here: Columns, there: Columns) -> tuple[Columns, Columns]:
    """The lines of both whose seeds agree; unchanged where all of them agree."""
    if torch.equal(here["seeds"], there["seeds"]):
        return here, there
    _, i, j = np.intersect1d(here["seeds"].numpy(), there["seeds"].numpy(), return_indices=True)
    return _take(here, torch.from_numpy(i)), _take(there, torch.from_numpy(j))


def _take(columns: Columns, index: Tensor) -> dict[str, Tensor]:
    return {name: values if name == "times" else values[index] for name, values in columns.items()}
