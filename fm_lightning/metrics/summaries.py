"""Other numbers of the features behind a Fréchet distance: kernel distance, precision and recall, Inception score, CMMD.

Kernel distance and Inception score come from torch-fidelity's code, CMMD from the streaming kernel sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.frechet import check_finite
from fm_lightning.metrics.neighbours.kernel import log_kernel_sum
from fm_lightning.metrics.precision_recall import NEIGHBOURS, precision_recall

if TYPE_CHECKING:
    from fm_lightning.metrics.real_features import RealFeatures

SUBSET, SPLITS = 1000, 10
SIGMA = 10.0  # of CMMD's kernel


def inception_score(logits: Tensor) -> dict[str, float]:
    """``isc_mean`` and ``isc_std`` over ten splits, from Inception's logits ``[n, 1008]`` (arXiv 1606.03498).

    Raises:
        UserError: fewer samples than splits.
    """
    if len(logits) < SPLITS:
        raise UserError(f"{len(logits)} samples have no Inception score.", f"Use at least {SPLITS}, one per split.")
    from torch_fidelity.metric_isc import isc_features_to_metric  # here, because it is rarely needed and takes a second

    found = isc_features_to_metric(logits.cpu(), splits=SPLITS)
    return {"isc_mean": found["inception_score_mean"], "isc_std": found["inception_score_std"]}


def kid(features: Tensor, real: Tensor) -> dict[str, float]:
    """``kid_mean`` and ``kid_std`` over 100 subsets of 1,000, or of all if there are fewer (arXiv 1801.01401).

    ``kid_std`` is left out where a subset holds all images of a side, because it would not show how much that side varies.

    Args:
        features: ``[n, D]`` of the samples.
        real: ``[m, D]`` of real images.

    Raises:
        UserError: fewer than two images on a side, features of other width, or not finite (the image is named).
    """
    size = min(SUBSET, len(features), len(real))
    if size < 2:
        raise UserError(
            f"{len(features)} samples and {len(real)} real images have no kernel distance.", "Use at least 2 of each."
        )
    if features.shape[1] != real.shape[1]:
        raise UserError(
            f"Samples have {features.shape[1]} features and real images {real.shape[1]}.",
            "Compute both with the same extractor.",
        )
    for side in (features, real):
        check_finite(side)
    from torch_fidelity.metric_kid import kid_features_to_metric  # here, because it is rarely needed and takes a second

    found = kid_features_to_metric(features.float(), real.float(), kid_subset_size=size, verbose=False)
    numbers = {"kid_mean": found["kernel_inception_distance_mean"]}
    if size < min(len(features), len(real)):
        numbers["kid_std"] = found["kernel_inception_distance_std"]
    return numbers


def cmmd(features: Tensor, real: Tensor) -> dict[str, float]:
    """``cmmd``: 1 000 times the squared maximum mean discrepancy with the kernel ``exp(-|x - y|^2 / (2 SIGMA^2))`` (arXiv
    2401.09603, eq. 4).

    Like its authors' code, the estimate includes the pairs of an image with itself, and so is never negative.

    Args:
        features: ``[n, D]`` CLIP embeddings of length 1 of the samples.
        real: ``[m, D]`` of real images.
    """

    def mean_kernel(a: Tensor, b: Tensor) -> float:
        return float(log_kernel_sum(a, b, SIGMA).exp().mean()) / len(b)

    both = mean_kernel(features, features) + mean_kernel(real, real) - 2 * mean_kernel(features, real)
    return {"cmmd": 1000 * both}


@dataclass(frozen=True)
class Summary:
    """Numbers of a set of samples that follow from their features.

    Attributes:
        name: the option that switches it on.
        least: the samples that it needs.
        numbers: features ``[n, D]``, the real side and the extractor -> name -> number.
        reads_real: whether it needs the features of real images, and not just their mean and covariance.
    """

    name: str
    least: int
    numbers: Callable[[Tensor, RealFeatures, FeatureExtractor], dict[str, float]]
    reads_real: bool = True

    def check(self, extractor: FeatureExtractor) -> None:
        """Raises UserError if the extractor's features do not allow it."""
        if self.name == "inception_score" and not hasattr(extractor, "logits"):
            raise UserError(
                f"The Inception score cannot be computed from the features of {extractor.key}.",
                "Use the extractor fid, or leave inception_score out.",
            )


def _kid(features: Tensor, real: RealFeatures, extractor: FeatureExtractor) -> dict[str, float]:
    assert real.features is not None
    return kid(features, real.features)


def _precision_recall(features: Tensor, real: RealFeatures, extractor: FeatureExtractor) -> dict[str, float]:
    return precision_recall(features.to(real.device), real.on_device, real.balls)


def _inception_score(features: Tensor, real: RealFeatures, extractor: FeatureExtractor) -> dict[str, float]:
    extractor.load()
    return inception_score(extractor.logits(features))  # type: ignore[operator]


def _cmmd(features: Tensor, real: RealFeatures, extractor: FeatureExtractor) -> dict[str, float]:
    assert real.features is not None
    return cmmd(features, real.features)


SUMMARIES = {
    summary.name: summary
    for summary in (
        Summary("inception_score", SPLITS, _inception_score, reads_real=False),
        Summary("precision_recall", NEIGHBOURS + 1, _precision_recall),
        Summary("kid", 2, _kid),
        Summary("cmmd", 2, _cmmd),
    )
}
