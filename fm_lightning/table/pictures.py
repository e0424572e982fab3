"""Pictures of a comparison: the first samples of every row with their nearest training images.

    evaluation/pictures/KEY-FIRST.npz      samples, nearest [m, H, W, C] uint8 (points: [m, 2]), ratio, seed [m] of one row
    evaluation/pictures/training.npz       images [k, H, W, C] and counts [k] of those that base copies most, or points [n, 2]

Each is written when its block is finished, so that a comparison that is killed and resumed has them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fm_lightning.files import DamagedFile, read_arrays, write_arrays
from fm_lightning.table.evaluation import Evaluation

FOLDER = "pictures"


def write_pictures(folder: Path, name: str, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes ``folder/pictures/NAME.npz`` whole or not at all."""
    place = folder / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    write_arrays(place / f"{name}.npz", arrays, compressed=True)


def read_pictures(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """``samples/ROW``, ``nearest/ROW``, ``ratio/ROW``, ``most_copied/images``, ``most_copied/base``, ``training/points``."""
    place = evaluation.folder / FOLDER
    out: dict[str, np.ndarray] = {}
    for row, about in evaluation.shown.items():
        pieces = [piece for file in sorted(place.glob(f"{about['key']}-*.npz")) if (piece := _read(file))]
        if not pieces:
            continue
        seed = np.concatenate([p["seed"] for p in pieces])
        _, first = np.unique(seed, return_index=True)
        for kind in pieces[0]:
            if kind != "seed":
                out[f"{kind}/{row}"] = np.concatenate([p[kind] for p in pieces])[first]
    if (place / "training.npz").exists():
        training = _read(place / "training.npz")
        if "images" in training:
            out |= {"most_copied/images": training["images"], "most_copied/base": training["counts"]}
        elif "points" in training:
            out["training/points"] = training["points"]
    return out


def _read(file: Path) -> dict[str, np.ndarray]:
    """Empty where the file is damaged, which is said: a page without a picture is better than none."""
    try:
        return read_arrays(file)
    except DamagedFile as error:
        print(f"{error.problem} Its pictures are left out.", flush=True)
        return {}
