"""All that a reader can see of a run's table, and how two tables are compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fm_lightning import Evaluation


def table_contents(run: Path) -> dict[str, dict[str, np.ndarray]]:
    """Row -> every column, its energies per step and its vectors."""
    table = Evaluation.open(run)
    found = {}
    for row in table.shown:
        lines = table.lines(row)
        found[row] = {c: lines[c].to_numpy() for c in lines.columns if c not in ("row", "label", "key")}
        found[row] |= {"energy": table.energy(row)}
        for measure in table.manifest.measures:
            found[row] |= {f"{measure} {c}": values for c, values in table.columns(row, measure).items()}
    return found


def assert_equal_tables(one: dict, two: dict, tolerance: float = 0.0) -> None:
    assert list(one) == list(two)
    for row, columns in one.items():
        assert columns.keys() == two[row].keys(), row
        for name, values in columns.items():
            where = f"{row} {name}"
            if values.dtype == object or not tolerance:
                np.testing.assert_array_equal(values, two[row][name], err_msg=where)
            else:
                np.testing.assert_allclose(values, two[row][name], rtol=tolerance, atol=tolerance, err_msg=where)
