"""Image features of DINOv2 (arXiv 2304.07193), by torch-fidelity's extractor."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch_fidelity.feature_extractor_dinov2 import MODEL_METADATA, FeatureExtractorDinoV2

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.image_features import ImageFeatures, hub_file


class DinoFeatures(ImageFeatures):
    """DINOv2's class token as torch-fidelity computes it (TensorFlow-like resize to 224 x 224): ``fd_dinov2``.

    The architecture is code of the repository facebookresearch/dinov2, which torch's hub fetches along with the weights.

    Args:
        model: "dinov2-vit-s-14", "-b-14", "-l-14" (the usual one for FD-DINOv2) or "-g-14".
        batch_size: images that go through the network at once.

    Raises:
        UserError: an unknown model.
    """

    key = "fd_dinov2"
    label = "Fréchet distance (DINOv2)"

    def __init__(self, model: str = "dinov2-vit-l-14", batch_size: int = 64) -> None:
        super().__init__(None, batch_size)
        if model not in MODEL_METADATA:
            raise UserError(f"There is no DINOv2 model {model!r}.", f"Pass one of {', '.join(MODEL_METADATA)}.")
        self.model = model

    @property
    def source(self) -> tuple[str, Path]:
        name = MODEL_METADATA[self.model]
        address = f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth"
        return address, hub_file(address)

    def build(self) -> nn.Module:
        code = Path(torch.hub.get_dir()) / "facebookresearch_dinov2_main"
        try:
            return FeatureExtractorDinoV2(self.model, ["dinov2"])
        except OSError as error:
            address, place = self.source
            raise UserError(
                f"Cannot download facebookresearch/dinov2 for {self.key} ({error}).",
                f"On another machine, clone https://github.com/facebookresearch/dinov2 into {code} and download {address} "
                f"to {place}.",
            ) from error

    def embed(self, images: Tensor) -> Tensor:
        return self.net(images)[0]
