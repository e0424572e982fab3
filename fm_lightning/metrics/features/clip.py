"""Image features of CLIP (arXiv 2103.00020), from torch-fidelity's copy of the published networks."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity.feature_extractor_clip import MODEL_METADATA, MODEL_URLS, FeatureExtractorCLIP

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.image_features import ImageFeatures

_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipFeatures(ImageFeatures):
    """CLIP's image embedding as torch-fidelity computes it (TensorFlow-like resize, not normalised): ``fd_clip``.

    Args:
        model: one of torch-fidelity's names, for example "clip-vit-b-32" (its default for CLIP distances).
        weights: the published TorchScript archive; None takes torch's hub folder, downloading it there if missing.
        batch_size: images that go through the network at once.

    Raises:
        UserError: an unknown model.
    """

    key = "fd_clip"
    label = "Fréchet distance (CLIP)"
    net: FeatureExtractorCLIP

    def __init__(self, model: str = "clip-vit-b-32", weights: str | None = None, batch_size: int = 128) -> None:
        super().__init__(weights, batch_size)
        if model not in MODEL_URLS:
            raise UserError(f"There is no CLIP model {model!r}.", f"Pass one of {', '.join(MODEL_URLS)}.")
        self.model = model

    @property
    def source(self) -> tuple[str, Path]:
        name = f"{self.model}-{MODEL_METADATA[self.model]['hash']}.pt"
        return MODEL_URLS[self.model], Path(torch.hub.get_dir()) / "checkpoints" / name

    def build(self) -> nn.Module:
        return FeatureExtractorCLIP(self.model, ["clip"], feature_extractor_weights_path=self.weights, verbose=False)

    def embed(self, images: Tensor) -> Tensor:
        return self.net(images)[0]


class CmmdFeatures(ClipFeatures):
    """CLIP embeddings of length 1 after an antialiased bicubic resize, as CMMD reads them (arXiv 2401.09603).

    ``FIDMonitor(extractors=[CmmdFeatures()], cmmd=True)`` logs ``cmmd`` and the Fréchet distance on these embeddings.

    CMMD's own model is "clip-vit-l-14-336px"; the number from another model is not comparable with published ones.
    """

    key = "fd_cmmd"
    label = "Fréchet distance (CMMD's embeddings)"

    def __init__(self, model: str = "clip-vit-l-14-336px", weights: str | None = None, batch_size: int = 32) -> None:
        super().__init__(model, weights, batch_size)

    def embed(self, images: Tensor) -> Tensor:
        size = (self.net.resolution, self.net.resolution)
        x = F.interpolate(images.float() / 255, size, mode="bicubic", antialias=True)
        mean, std = (x.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
        return F.normalize(self.net.model.visual((x - mean) / std).float(), dim=1)
