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

from fm_lightning.errors import OldError, UserError
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
        raise OldError(
            f"cannot write to {folder} ({error.strerror or error})",
            "a folder for features of real images with room and permission to write",
            "type FM_LIGHTNING_CACHE=FOLDER before the command",
        ) from error


def read_statistics(path: str | Path, names: tuple[str, str] = ("mu", "sigma")) -> GaussianReference:
    """Mean and covariance from an .npz archive, as pytorch-fid, ADM and clean-fid publish them.

    Args:
        path: the archive.
        names: of the mean ``[D]`` and the covariance ``[D, D]`` in it; ADM's archives have ``mu_s`` and ``sigma_s``, too.

    Raises:
        UserError: no such file, no such archive, or not the mean and covariance of anything (says why).
    """
    wanted = f"an .npz archive with {names[0]} [D] and {names[1]} [D, D]"
    remedy = "type another file, or leave `statistics` out"
    try:
        with np.load(path) as archive:
            mu, sigma = (np.asarray(archive[name]) for name in names)
    except Exception as error:  # files that are no archive, half an archive, or no numbers raise a dozen types
        raise OldError(f"statistics {path} cannot be read ({' '.join(str(error).split())})", wanted, remedy) from error
    for name, values in zip(names, (mu, sigma)):
        if values.dtype.kind not in "fiu":
            raise OldError(f"statistics {path} hold {name} of type {values.dtype}", wanted, remedy)
    try:
        return GaussianReference(torch.from_numpy(mu.astype(np.float64)), torch.from_numpy(sigma.astype(np.float64)))
    except UserError as error:
        raise UserError(f"Statistics {path}: {error.problem}", error.fix) from error
