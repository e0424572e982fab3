"""Inception features: what FID, KID, the Inception score, and precision and recall are measured on.

The network is torch-fidelity's ``FeatureExtractorInceptionV3``: the 2015 TensorFlow graph in PyTorch, fed with uint8 images
that are resized to 299 x 299. *How* they are resized is part of the number, most of all for small images:

    fid           torch-fidelity, TTUR, ADM     source = i * w / 299, the edge clamped: TensorFlow 1's bilinear resize, whose
                  (the field's FID)             pixel centres lie at integers; scaled as (x - 128) / 128
    fid_pytorch   pytorch-fid                   source = (i + 1/2) * w / 299 - 1/2, the edge clamped: PyTorch's bilinear resize
                  (the paper's CelebA numbers)  with align_corners=False and no antialiasing; scaled as 2 x / 255 - 1

So what the second network sees lies 1/2 - w / 598 source pixels further to the lower right (0.45 for w = 32), and is
brighter by x / 32640 (1/128 at white). Network, weights and the feature layer (2048, after the average pool) are the same.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.image_features import ImageFeatures, hub_file


class InceptionNetwork(ImageFeatures):
    """torch-fidelity's InceptionV3.

    Args:
        weights: a file in torch-fidelity's format (the ``state_dict`` of ``FeatureExtractorInceptionV3``); None takes the
            published one from torch's hub folder, downloading it there if it is missing.
        batch_size: images that go through the network at once.
    """

    net: FeatureExtractorInceptionV3

    @property
    def source(self) -> tuple[str, Path]:
        return URL_INCEPTION_V3, hub_file(URL_INCEPTION_V3)

    def build(self) -> nn.Module:
        if self.weights is not None:
            _check_weights(self.weights)
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=self.weights, verbose=False
        )


class InceptionFeatures(InceptionNetwork):
    """The 2048 features after the average pool, with torch-fidelity's TensorFlow-like resize: the distance is FID."""

    key = "fid"
    label = "FID"

    def embed(self, images: Tensor) -> Tensor:
        return self.net(images)[0]

    def logits(self, features: Tensor) -> Tensor:
        """``[n, 2048]`` -> ``[n, 1008]`` torch-fidelity's ``logits_unbiased``: the last layer without its bias."""
        return features @ self.net.fc.weight.to(features).T


class PytorchFIDFeatures(InceptionFeatures):
    """The same network with pytorch-fid's resize: for comparison with numbers that were computed by pytorch-fid.

    pytorch-fid's distance also differs where a covariance is singular (fewer images than 2048): there it may add 1e-6 to
    both diagonals. Otherwise the formula is the same.
    """

    key = "fid_pytorch"
    label = "FID (pytorch-fid's resize)"

    def embed(self, images: Tensor) -> Tensor:
        x = F.interpolate(images.float() / 255, (299, 299), mode="bilinear", align_corners=False)
        x = 2 * x - 1
        # torch-fidelity resizes inside its forward; its layers stand in the order in which they run.
        for layer in list(self.net.children())[:-1]:
            x = layer(x)
        return x.flatten(1)


class SpatialInceptionFeatures(InceptionNetwork):
    """Spatial features: the distance is sFID (arXiv 2103.03841), as ADM's evaluator computes it.

    The first 7 channels of the 1x1 branch of TensorFlow's ``mixed_6`` (here ``Mixed_6d``), rectified, on the 17 x 17 grid:
    2023 numbers in the order row, column, channel. An ADM archive holds their statistics as ``mu_s`` and ``sigma_s``.
    """

    key = "sfid"
    label = "sFID"
    statistics = ("mu_s", "sigma_s")
    channels = 7

    def embed(self, images: Tensor) -> Tensor:
        x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(299, 299), align_corners=False)
        x = (x - 128) / 128
        for name, layer in self.net.named_children():  # in the order in which they run
            if name == "Mixed_6d":
                return layer.branch1x1(x)[:, : self.channels].permute(0, 2, 3, 1).flatten(1)
            x = layer(x)
        raise AssertionError("torch-fidelity's Inception has no Mixed_6d")


def _check_weights(path: str) -> None:
    """Raises UserError unless the file is a state dict with Inception's layers; torch-fidelity's loader would run any pickle."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        shapes = {name: tuple(state[name].shape) for name in ("Conv2d_1a_3x3.conv.weight", "fc.weight")}
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"Cannot load Inception weights from {path} ({reason}).", f"Download {URL_INCEPTION_V3}."
        ) from error
    if shapes != {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3), "fc.weight": (1008, 2048)}:
        raise UserError(
            f"The Inception weights in {path} have other shapes: {shapes}.", f"Download {URL_INCEPTION_V3}."
        )
