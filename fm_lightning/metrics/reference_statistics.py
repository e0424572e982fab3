"""The real side of Fréchet distances: computed once and kept on disk, or taken from an archive."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.frechet import GaussianReference


def kept_features(folder: Path, identity: tuple[str, ...], compute: Callable[[], Tensor]) -> Tensor:
    """``[n, D]`` float32 features of real images, from ``folder`` if they were computed before.

    Of several processes that start together one computes, and the others read what it wrote.

    Args:
        folder: where features are kept.
        identity: everything that they depend on: images, preprocessing, extractor.
        compute: makes them.

    Raises:
        UserError: the folder cannot be written.
    """
    path = folder / f"features-{hashlib.sha256(repr(identity).encode()).hexdigest()[:24]}.npy"
    try:
        if not path.exists():  # who finds them needs no permission to write
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.lock"):
                if not path.exists():
                    temporary = path.with_suffix(".tmp")
                    with temporary.open("wb") as file:
                        np.save(file, compute().numpy())
                    os.replace(temporary, path)
        return torch.from_numpy(np.load(path))
    except OSError as error:
        raise UserError(
            f"cannot write to {folder} ({error.strerror or error}), expected a folder for features of real images with room "
            "and permission to write; type FM_LIGHTNING_CACHE=FOLDER before the command"
        ) from error


def read_statistics(path: str | Path) -> GaussianReference:
    """Mean and covariance from an archive with ``mu`` and ``sigma``, as pytorch-fid, ADM and clean-fid publish them.

    Raises:
        UserError: no such file, no such archive, or sizes that do not go together.
    """
    remedy = "expected an .npz archive with mu [D] and sigma [D, D]; type another file, or leave `statistics` out"
    try:
        with np.load(path) as archive:
            mu, sigma = (np.asarray(archive[name], dtype=np.float64) for name in ("mu", "sigma"))
    except Exception as error:  # files that are no archive, half an archive, or no numbers raise a dozen types
        raise UserError(f"statistics {path} cannot be read ({' '.join(str(error).split())}), {remedy}") from error
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)):
        raise UserError(f"statistics {path} hold mu {list(mu.shape)} and sigma {list(sigma.shape)}, {remedy}")
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise UserError(f"statistics {path} hold NaN or infinity, {remedy}")
    return GaussianReference(torch.from_numpy(mu), torch.from_numpy(sigma))
