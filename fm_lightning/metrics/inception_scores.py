"""Scores from features that are there already: Inception score and kernel distance by torch-fidelity's code, and CMMD by the
streaming kernel sums."""

from __future__ import annotations

from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from fm_lightning.errors import OldError
from fm_lightning.metrics.feature_moments import check_finite
from fm_lightning.metrics.neighbours.kernel import log_kernel_sum

SUBSET, SPLITS = 1000, 10


def inception_score(logits: Tensor) -> dict[str, float]:
    """``isc_mean`` and ``isc_std`` over ten splits, from Inception's logits ``[n, 1008]`` (arXiv 1606.03498).

    Raises:
        UserError: fewer samples than splits.
    """
    if len(logits) < SPLITS:
        raise OldError(
            f"Inception score of {len(logits)} samples asked for",
            f"at least one for each of its {SPLITS} splits",
            "draw more seeds",
        )
    found = isc_features_to_metric(logits.cpu(), splits=SPLITS)
    return {"isc_mean": found["inception_score_mean"], "isc_std": found["inception_score_std"]}


def kernel_distance(features: Tensor, real: Tensor) -> dict[str, float]:
    """``kid_mean`` and ``kid_std`` over 100 subsets of 1 000 (of all, if there are fewer) (arXiv 1801.01401).

    Where a subset is all that there is on either side, ``kid_std`` would not show how much that side varies: it is left out.

    Args:
        features: ``[n, D]`` of the samples.
        real: ``[m, D]`` of real images.

    Raises:
        UserError: fewer than two images on a side, features of other width, or not finite (the image is named).
    """
    size = min(SUBSET, len(features), len(real))
    if size < 2:
        raise OldError(
            f"a kernel distance of {len(features)} samples and {len(real)} real images asked for",
            "at least 2 of each",
            "draw more seeds",
        )
    if features.shape[1] != real.shape[1]:
        raise OldError(
            f"{features.shape[1]} features of samples and {real.shape[1]} of real images given",
            "as many",
            "take both from the same extractor",
        )
    for side in (features, real):
        check_finite(side)
    found = kid_features_to_metric(features.float(), real.float(), kid_subset_size=size, verbose=False)
    numbers = {"kid_mean": found["kernel_inception_distance_mean"]}
    if size < min(len(features), len(real)):
        numbers["kid_std"] = found["kernel_inception_distance_std"]
    return numbers


def cmmd(features: Tensor, real: Tensor, bandwidth: float = 10.0) -> dict[str, float]:
    """``cmmd``: 1 000 times the squared maximum mean discrepancy with a Gaussian kernel (arXiv 2401.09603, eq. 4).

    As its authors' code does, the estimate keeps the pairs of an image with itself, and so is never negative.

    Args:
        features: ``[n, D]`` CLIP embeddings of length 1 of the samples.
        real: ``[m, D]`` of real images.
        bandwidth: sigma of ``exp(-|x - y|^2 / (2 sigma^2))``.
    """

    def mean_kernel(a: Tensor, b: Tensor) -> float:
        return float(log_kernel_sum(a, b, bandwidth).exp().mean()) / len(b)

    both = mean_kernel(features, features) + mean_kernel(real, real) - 2 * mean_kernel(features, real)
    return {"cmmd": 1000 * both}
