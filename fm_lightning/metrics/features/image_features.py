"""ImageFeatures: a pretrained network that reads 8-bit images."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.extractor import FeatureExtractor


class ImageFeatures(FeatureExtractor):
    """Features of uint8 images ``[B, C, H, W]``; gray ones (``C = 1``) are repeated to RGB.

    Args:
        weights: the weights' file; None takes the one in torch's hub folder, downloading it there if it is missing.
        batch_size: images that go through the network at once.
    """

    space = "uint8"
    costly = True
    net: nn.Module

    def __init__(self, weights: str | None = None, batch_size: int = 128) -> None:
        super().__init__()
        if batch_size < 1:
            raise UserError(f"batch_size={batch_size} must be positive.", "Pass, for example, 128.")
        self.weights, self.batch_size = weights, batch_size
        self._fingerprint = ""

    @property
    @abstractmethod
    def source(self) -> tuple[str, Path]:
        """The weights' address, and the path where their download is, or would be."""

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, with the weights of ``self.weights`` or of the hub folder."""

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """uint8 RGB ``[B, 3, H, W]`` -> features ``[B, D]`` float32."""

    def load(self) -> None:
        if hasattr(self, "net"):
            return
        address, place = self.source
        if self.weights is not None and not Path(self.weights).is_file():
            raise UserError(
                f"There is no file {self.weights} with weights for {self.key}.",
                f"Download {address}, or leave weights out to have it downloaded.",
            )
        try:
            net = self.build()
        except UserError:
            raise
        except Exception as error:  # networks, hubs, archives and pickles raise a dozen types
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            file = Path(self.weights) if self.weights is not None else place
            if file.exists():
                raise UserError(
                    f"Cannot load weights for {self.key} from {file} ({reason}).", f"Download {address} again."
                ) from error
            raise UserError(
                f"Cannot download weights for {self.key} ({reason}).",
                f"Download {address} on another machine and put it at {place}, or pass its path as weights.",
            ) from error
        self.net = net.eval().requires_grad_(False)

    @property
    def fingerprint(self) -> str:
        if not self._fingerprint:  # hashing a billion weights takes seconds
            self.load()
            self._fingerprint = super().fingerprint
        return self._fingerprint

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """uint8 ``[B, 1 or 3, H, W]`` -> ``[B, D]`` float32.

        Raises:
            UserError: other types, ranks or numbers of channels.
        """
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise UserError(
                f"{self.key} reads uint8 images [B, 1 or 3, H, W], not {list(x.shape)} of {x.dtype}.",
                "Convert them, or use an extractor for such data.",
            )
        if not hasattr(self, "net"):
            self.load()
            self.net.to(x.device)
        with torch.autocast(x.device.type, enabled=False):  # features belong to the image, not to the run's precision
            parts = x.expand(-1, 3, -1, -1).split(self.batch_size)
            return torch.cat([self.embed(part.contiguous()) for part in parts])


def hub_file(address: str) -> Path:
    """Where torch's hub keeps the file that it downloaded from ``address``."""
    return Path(torch.hub.get_dir()) / "checkpoints" / address.rpartition("/")[2]
