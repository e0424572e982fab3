"""Feature extractors: modules ``[B, ...] -> [B, D]`` that carry the name of the distance measured on them.

A Fréchet distance on other features than Inception's is never called FID.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.hashes import tensor_bytes
from fm_lightning.metrics.features.digits import DigitsClassifier

Space = Literal["model", "uint8"]


class FeatureExtractor(nn.Module):
    """Maps samples to features.

    Attributes:
        key: the distance's name in logs.
        label: its name in tables.
        space: what it reads. "model": samples as the model makes them, floating point and unclipped; "uint8": pixels
            ``[B, C, H, W]`` as the datamodule's ``to_uint8`` gives them.
        statistics: the names under which an archive in ADM's format holds the mean and covariance of these features.
        costly: whether the features of real images are kept in the user's cache from run to run.

    Raises:
        UserError: at a call, samples in another unit than ``space``.
    """

    key: str
    label: str
    space: Space = "model"
    statistics = ("mu", "sigma")
    costly = False

    def __call__(self, x: Tensor) -> Tensor:
        """``[B, D]`` features of samples ``[B, ...]``."""
        if self.space == "model" and not x.is_floating_point():
            raise UserError(
                f"{self.key} reads samples in the model's space, and these are {x.dtype}.",
                "Convert them as the training data were, for example with images.float() / 127.5 - 1.",
            )
        if self.space == "uint8" and x.dtype != torch.uint8:
            raise UserError(
                f"{self.key} reads uint8 images, and these are {x.dtype}.",
                "Convert them with the datamodule's to_uint8.",
            )
        return super().__call__(x)

    def load(self) -> None:
        """Reads the weights, if they are not yet in memory: constructing an extractor is cheap, loading may download.

        Raises:
            UserError: the weights are missing, unreachable or another network's.
        """

    @property
    def fingerprint(self) -> str:
        """Changes whenever the features do: a hash of the extractor's name, structure and weights."""
        return state_hash(f"{self.key} {type(self).__qualname__} {self}", self)


def state_hash(about: str, module: nn.Module) -> str:
    """Changes with ``about`` and with what a checkpoint of the module holds."""
    digest = hashlib.sha256(about.encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor_bytes(value))
    return digest.hexdigest()[:16]


class RawFeatures(FeatureExtractor):
    """The samples themselves, flattened: for 2-D toys, and for images without any weights.

    Args:
        pool: average images over squares of this side first, so that a few thousand samples give a full-rank covariance.
            Averaging hides fine noise, so that the distance does not see the noise that a schedule leaves.
    """

    key = "fd_raw"
    label = "Fréchet distance (raw)"

    def __init__(self, pool: int = 1) -> None:
        super().__init__()
        self.pool = pool
        if pool > 1:
            self.key, self.label = f"fd_pool{pool}", f"Fréchet distance (pixels averaged {pool}x{pool})"

    def forward(self, x: Tensor) -> Tensor:
        return (nn.functional.avg_pool2d(x, self.pool) if self.pool > 1 else x).flatten(1)


class DigitsFeatures(FeatureExtractor):
    """The 64 features of the shipped classifier of handwritten digits; samples ``[B, 1, 8, 8]`` in [-1, 1], unclipped."""

    key = "fd_digits"
    label = "Fréchet distance (digits features)"

    def __init__(self) -> None:
        super().__init__()
        self.classifier = DigitsClassifier.load()

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier.features(x.float())


class ModuleFeatures(FeatureExtractor):
    """The output of any module, flattened.

    Args:
        module: ``[B, ...] -> [B, ...]``; it is put into evaluation mode.
        key: the distance's name, for example "fd_mine"; never "fid", "sfid" or "fid_...".
        space: "model" or "uint8", see ``FeatureExtractor``.
        label: its name in tables.

    Raises:
        UserError: a key reserved for Inception's features, or an unknown space.

    Example:
        >>> import torch
        >>> ModuleFeatures(nn.Linear(2, 3), key="fd_linear")(torch.zeros(4, 2)).shape
        torch.Size([4, 3])
    """

    costly = True

    def __init__(self, module: nn.Module, key: str, space: Space = "model", label: str | None = None) -> None:
        super().__init__()
        if not key or key.partition("_")[0] in ("fid", "sfid") or set(key) & set("/ "):
            raise UserError(
                f"key={key!r} cannot name this distance (FID is Inception's).", "Pass, for example, fd_mine."
            )
        if space not in ("model", "uint8"):
            raise UserError(f"space={space!r} is unknown.", "Pass model or uint8.")
        self.module = module.eval().requires_grad_(False)
        self.key, self.space, self.label = key, space, label or f"Fréchet distance ({key})"

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).flatten(1)
