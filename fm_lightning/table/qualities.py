"""Distances that judge, with what each seed contributes to them: derived from features once, then kept.

    evaluation/qualities/KEY-MEASURE-N.npz      seeds [n]; of "frechet" and "kernel" the value, and what each seed [n] and
                                                each real image [m] contributes

They are a cache: what is missing or damaged is recomputed from the features on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fm_lightning.estimate import Estimate
from fm_lightning.files import DamagedFile, read_arrays, write_arrays
from fm_lightning.table.columns import read_columns
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.verdicts.residual import Distance

FOLDER = "qualities"
NAMES: tuple[Distance, ...] = ("frechet", "kernel")


def keep_qualities(
    evaluation: Evaluation, row: str, key: str, compute: Callable[[Mapping[str, Tensor]], Mapping[str, Estimate]]
) -> None:
    """Computes a row's qualities on the features of ``key`` unless they are there for these seeds and this reference."""
    place = _place(evaluation, row, key)
    if place is None or _read(place):
        return
    columns = read_columns(evaluation, row, key)
    if not columns:
        return
    arrays: dict[str, NDArray] = {"seeds": columns["seeds"].numpy()}
    for name, quality in compute(columns).items():
        arrays |= {f"{name}_value": np.array(quality.value), f"{name}_influence": np.asarray(quality.influence)}
        if quality.reference is not None:
            arrays[f"{name}_reference"] = quality.reference
    place.parent.mkdir(exist_ok=True)
    write_arrays(place, arrays)


def read_qualities(
    evaluation: Evaluation, row: str, key: str | None = None
) -> dict[Distance, tuple[NDArray[np.int64], Estimate]]:
    """name -> seeds ``[n]`` and the quality over them; empty where none were computed.

    Args:
        evaluation: the table.
        row: the row's name.
        key: names the features, for example "fid"; those on which verdicts rest by default.
    """
    key = key or evaluation.manifest.about.get("quality", {}).get("key")
    place = _place(evaluation, row, key) if key else None
    kept = {} if place is None else _read(place)
    return {
        name: (
            kept["seeds"],
            Estimate.of(float(kept[f"{name}_value"]), kept[f"{name}_influence"], kept.get(f"{name}_reference")),
        )
        for name in NAMES
        if f"{name}_value" in kept
    }


def _read(place: Path) -> dict[str, NDArray]:
    """What is there; empty if there is nothing, or if it is damaged, which is said."""
    try:
        return read_arrays(place)
    except FileNotFoundError:
        return {}
    except DamagedFile as error:
        print(f"{error.problem} It is computed again.", flush=True)
        place.unlink()
        return {}


def _place(evaluation: Evaluation, row: str, key: str) -> Path | None:
    quality = evaluation.manifest.about.get(f"quality_{key}")
    if not quality or key not in evaluation.manifest.measures:
        return None
    fingerprint = f"{evaluation.manifest.measures[key]}-{quality['real']}"
    count = evaluation.count(row)
    return evaluation.folder / FOLDER / f"{evaluation.rows[row]['key']}-{key}-{fingerprint}-{count}.npz"
