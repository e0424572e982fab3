"""What tells two velocity fields apart: their values on a fixed probe, where they have no weights to hash.

    evaluation/velocities/NAME.npz      the values of a field on the probe, float32

The values are compared within a tolerance that another processor or another number of threads does not exceed: the same
field gets the same name everywhere, and a changed one gets another name.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_lightning.comparison.sampling import Model
from fm_lightning.errors import UserError
from fm_lightning.files import DamagedFile, read_arrays, write_arrays
from fm_lightning.flow.velocity import Velocity, declared, evaluating
from fm_lightning.nets.velocity import check_returned
from fm_lightning.noise import noise
from fm_lightning.table.keys import key

FOLDER = "velocities"
COUNT, TIMES = 8, (0.0, 0.3, 0.6, 0.9)  # of the probe
FIRST_SEED = 40_000_000  # no sample has it
REPEATED, SAME = 1e-4, 1e-3  # largest relative differences: of one field asked twice; of one field on two machines


def sampling_identity(model: Model) -> dict[str, Any]:
    """What samples depend on besides the velocity: the data, both seeds, numbers and batches."""
    shares = model.samples.label_shares
    return {
        "training_data": model.samples.fingerprint,
        "decoder": model.samples.decoder,
        "label_shares": None if shares is None else key(shares.tolist()),
        "base_seed": model.base_seed,
        "label_seed": None if shares is None else model.samples.base_seed,
        "dtype": str(model.dtype).removeprefix("torch."),
        "merge_rows": model.merge_rows,
    }


class Probes:
    """Names velocity fields by their values.

    Args:
        folder: the table's, where earlier values are kept.
        model: for the space, the labels and the device.
    """

    def __init__(self, folder: Path, model: Model) -> None:
        self._folder, self._model = folder / FOLDER, model
        self._new: dict[str, np.ndarray] = {}

    def name(self, velocity: Velocity) -> str:
        """The name of the field, which is that of an earlier one with the same values.

        Raises:
            UserError: see ``probe``.
        """
        values = probe(velocity, self._model).numpy()
        for file in sorted(self._folder.glob("*.npz")):
            with suppress(DamagedFile):  # written again below
                if difference(values, read_arrays(file)["values"]) <= SAME:
                    return file.stem
        name = hashlib.sha256(values.tobytes()).hexdigest()[:16]
        self._new[name] = values
        return name

    def keep(self) -> None:
        """Writes the values of the new fields."""
        for name, values in self._new.items():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_arrays(self._folder / f"{name}.npz", {"values": values})


@torch.no_grad()
def probe(velocity: Velocity, model: Model) -> Tensor:
    """``[times, COUNT, ...]`` float32, the field's values at fixed states, times and labels.

    Raises:
        UserError: the field gives other values when it is asked again, in another order: it draws random numbers, as
            dropout does, or its values depend on the rest of the batch.
    """
    samples = model.samples
    x = noise(range(FIRST_SEED, FIRST_SEED + COUNT), samples.shape, 0).to(model.device, model.dtype)
    y = None
    if samples.num_classes:
        y = (torch.arange(COUNT) * samples.num_classes // COUNT).to(model.device)
    found, half = [], COUNT // 2
    with evaluating(velocity):
        for time in TIMES:
            at, t = declared(velocity).at(time), x.new_full((COUNT,), time)
            values = at(x, t, y)
            check_returned(velocity, values, x)
            if time == 0 and not values.isfinite().any():
                raise UserError(
                    "Every value of the velocity at t = 0 is infinite or NaN.", "Check its weights and its inputs."
                )
            once = values.float().cpu()
            again = [at(x[i], t[i], None if y is None else y[i]) for i in (slice(half, None), slice(0, half))]
            if difference(torch.cat(again[::-1]).float().cpu().numpy(), once.numpy()) > REPEATED:
                raise UserError(
                    f"The velocity {type(velocity).__name__} gives two values for one state.",
                    "Switch off dropout and batch statistics, for example with net.eval().",
                )
            found.append(once)
    return torch.stack(found)


def difference(one: np.ndarray, two: np.ndarray) -> float:
    """The largest difference relative to the values' root mean square; infinite between different shapes."""
    if one.shape != two.shape:
        return np.inf
    scale = float(np.sqrt(np.square(two, dtype=np.float64).mean()))
    return float(np.abs(one.astype(np.float64) - two).max()) / max(scale, 1e-30)
