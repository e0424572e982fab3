"""The real side of distances: features of real images with what follows from them, kept on disk or read from an archive."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate
from fm_lightning.files import DamagedFile, compact, read_arrays, write_arrays
from fm_lightning.metrics.archive_images import ArchiveImages
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.features.space import as_read
from fm_lightning.metrics.frechet import GaussianReference, extrapolated_distance, moments
from fm_lightning.metrics.mmd import KernelReference
from fm_lightning.metrics.precision_recall import Balls


class RealFeatures:
    """Features of real images; what follows from them is computed once, when it is first needed.

    Args:
        features: ``[n, D]``; None where only their mean and covariance are known.
        gaussian: their Gaussian; by default that of ``features``.
        device: where kernels and neighbours are computed.
        seen: the share of these images that training saw; None where it is unknown.
        held_out: whether they are the held-out images.
    """

    def __init__(
        self,
        features: Tensor | None,
        gaussian: GaussianReference | None = None,
        device: torch.device | str = "cpu",
        seen: float | None = None,
        held_out: bool = False,
    ) -> None:
        if gaussian is None:
            assert features is not None
            gaussian = GaussianReference(*moments(features.cpu()), samples=len(features))
        self.features, self.gaussian, self.device = features, gaussian, torch.device(device)
        self.seen, self.held_out = seen, held_out

    @property
    def width(self) -> int:
        """D, the number of features."""
        return len(self.gaussian.mean)

    def estimates(self, features: Tensor) -> dict[str, Estimate]:
        """The distances of features ``[n, D]`` on which verdicts rest, with what each sample and each real image contributes:
        ``frechet``, extrapolated to infinitely many samples, and ``kernel``.
        """
        found = {}
        if len(features) >= 4:
            # An archive's mean and covariance may be those of more images than it holds.
            own = None if self.features is None or self.gaussian.samples != len(self.features) else self.features
            plug_in = self.gaussian.estimate(features, own)
            assert plug_in.influence is not None
            value = extrapolated_distance(self.gaussian, features)
            found["frechet"] = Estimate.of(value, plug_in.influence, plug_in.reference)
        if self.features is not None and len(features) >= 2:
            found["kernel"] = self.kernel.estimate(features.to(self.device))
        return found

    @property
    def on_device(self) -> Tensor:
        """``[n, D]`` the features on the device."""
        assert self.features is not None
        return self.features.to(self.device)

    @cached_property
    def kernel(self) -> KernelReference:
        return KernelReference(self.on_device)

    @cached_property
    def balls(self) -> Balls:
        return Balls(self.on_device.float())

    def save(self, path: Path) -> None:
        """Writes mean, covariance and features, of which more than 256 per image are kept in half precision."""
        arrays = {"mean": self.gaussian.mean.cpu().numpy(), "cov": self.gaussian.cov.cpu().numpy()}
        arrays["samples"] = np.array(self.gaussian.samples)
        arrays |= {"seen": np.array(np.nan if self.seen is None else self.seen), "held_out": np.array(self.held_out)}
        if self.features is not None:
            arrays["features"] = compact(self.features.cpu().numpy())
        write_arrays(path, arrays)

    @classmethod
    def load(cls, path: Path) -> RealFeatures:
        """What ``save`` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            DamagedFile: the file is not what was written.
        """
        kept = read_arrays(path, "Compare again.")
        mean, cov = torch.from_numpy(kept["mean"]), torch.from_numpy(kept["cov"])
        gaussian = GaussianReference(mean, cov, samples=int(kept["samples"]))
        features = torch.from_numpy(kept["features"]).float() if "features" in kept else None
        seen = float(kept.get("seen", np.nan))
        return cls(
            features, gaussian, seen=None if np.isnan(seen) else seen, held_out=bool(kept.get("held_out", False))
        )


def kept_features(folder: Path, identity: tuple[str, ...], compute: Callable[[], Tensor]) -> Tensor:
    """``[n, D]`` float32 features of real images, from ``folder`` if they were computed before.

    Of several processes that start together one computes, and the others read what it wrote.

    Args:
        folder: where features are kept.
        identity: everything that they depend on: images, preprocessing, extractor.
        compute: computes them.

    Raises:
        UserError: the folder cannot be written.
    """
    path = folder / f"features-{hashlib.sha256(repr(identity).encode()).hexdigest()[:24]}.npz"
    try:
        with suppress(FileNotFoundError, DamagedFile):  # reading needs no permission to write
            return torch.from_numpy(read_arrays(path)["features"])
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            try:
                return torch.from_numpy(read_arrays(path)["features"])  # another process was first
            except FileNotFoundError:
                pass
            except DamagedFile as error:
                print(f"{error.problem} The features are computed again.", flush=True)
            write_arrays(path, {"features": compute().numpy()})
        return torch.from_numpy(read_arrays(path)["features"])
    except OSError as error:
        raise UserError(
            f"Cannot write features of real images to {folder}: {error.strerror or error}.",
            "Put FM_LIGHTNING_CACHE=FOLDER before the command, with a writable folder.",
        ) from error


def read_statistics(path: str | Path, names: tuple[str, str] = ("mu", "sigma")) -> GaussianReference:
    """Mean and covariance from an .npz archive, as pytorch-fid, ADM and clean-fid publish them.

    Args:
        path: the archive.
        names: of the mean ``[D]`` and the covariance ``[D, D]`` in it; ADM's archives also have ``mu_s`` and ``sigma_s``.

    Raises:
        UserError: no such file, no such archive, or no mean and covariance in it (says why).
    """
    fix = f"Use an .npz archive with {names[0]} [D] and {names[1]} [D, D], or leave statistics out."
    try:
        with np.load(path) as archive:
            mu, sigma = (np.asarray(archive[name]) for name in names)
    except Exception as error:  # no archive, half an archive and no numbers raise a dozen types
        raise UserError(
            f"Cannot read statistics {path} ({' '.join(str(error).split()) or type(error).__name__}).", fix
        ) from error
    for name, values in zip(names, (mu, sigma)):
        if values.dtype.kind not in "fiu":
            raise UserError(f"In statistics {path}, {name} has type {values.dtype}.", fix)
    try:
        return GaussianReference(torch.from_numpy(mu.astype(np.float64)), torch.from_numpy(sigma.astype(np.float64)))
    except UserError as error:
        raise UserError(f"Statistics {path}: {error.problem}", fix) from error


@torch.no_grad()
def extract(
    extractor: FeatureExtractor,
    batches: Iterable[Tensor],
    device: torch.device | str,
    read: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """``[n, D]`` features of all batches, on the CPU.

    Args:
        extractor: samples -> features.
        batches: of samples in the model's space, or without ``read`` in the space that the extractor reads.
        device: where the extractor computes.
        read: brings samples into the space that the extractor reads.
    """
    return torch.cat([extractor(as_read(x.to(device), read)).cpu() for x in batches])


def archive_features(extractor: FeatureExtractor, path: str, folder: Path, device: torch.device | str) -> Tensor:
    """``[n, D]`` features of the images in an archive, kept in ``folder``.

    Raises:
        UserError: an extractor that does not read 8-bit images, or an archive without images.
    """
    if extractor.space != "uint8":
        raise UserError(
            f"{extractor.key} does not read the 8-bit images of {path}, which kid, precision_recall and cmmd need.",
            "Use an extractor of 8-bit images, for example fid.",
        )
    images = ArchiveImages(path)

    def compute() -> Tensor:
        print(f"Computing features of {len(images):,} images of {path} for {extractor.key} (once)", flush=True)
        return extract(extractor, images.batches(500), device)

    return kept_features(folder, (extractor.fingerprint, images.fingerprint), compute)
