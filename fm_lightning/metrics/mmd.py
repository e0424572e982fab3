"""Kernel distance between two sets of features: the squared maximum mean discrepancy with a cubic kernel.

    k(x, y) = (x . y / D + 1)^3
    d^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Binkowski et al. 2018, arXiv 1801.01401; on Inception's features: KID.) It is unbiased at any number of samples, and can
therefore be negative. It is a U-statistic: to first order each sample adds ``1/n`` of

    q_i = 2 [ mean_{j != i} k(x_i, x_j) - mean_j k(x_i, y_j) ]

about its mean, and so does each real image with the roles exchanged. Differences between schedules over the same seeds, and
over the same real images, have the differences of these contributions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.estimate import Estimate
from fm_lightning.metrics.feature_metric import FeatureMetric
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.per_seed import check_same_seeds

BLOCK = 1000  # rows on each side of the table of kernels in memory: 4 MB, which the processor keeps near


class KernelReference:
    """The real side of kernel distances; the mean kernel among its rows is computed once.

    Args:
        features: ``[m, D]`` of real images, on the device where kernels are to be computed.
        block: rows on each side of the table of kernels that is held in memory (``4 block^2`` bytes).

    Raises:
        UserError: fewer than two rows, or a row that is not finite.
    """

    def __init__(self, features: Tensor, block: int = BLOCK) -> None:
        self.features, self.block = _checked(features, "real"), block
        self.own = _means_among(self.features, block)  # [m] mean over the other rows

    def distance(self, features: Tensor) -> float:
        """The unbiased squared distance of features ``[n, D]``."""
        return self.estimate(features).value

    @torch.no_grad()
    def estimate(self, features: Tensor) -> Estimate:
        """The distance of features ``[n, D]``, and what each sample and each real image contribute to it.

        Products in float32, sums in float64, ``n^2 / 2 + n m`` kernels, in blocks.
        """
        features = _checked(features, "generated").to(self.features.device)
        if features.shape[1] != self.features.shape[1]:
            raise UserError(
                f"Samples have {features.shape[1]} features and the reference {self.features.shape[1]}.",
                "Compute both with the same extractor.",
            )
        among = _means_among(features, self.block)
        to_real, to_samples = _means_between(features, self.features, self.block)
        value = float(among.mean() + self.own.mean() - 2 * to_real.mean())
        samples, real = 2 * (among - to_real), 2 * (self.own - to_samples)
        return Estimate.of(value, (samples - samples.mean()).cpu().numpy(), (real - real.mean()).cpu().numpy())


def kernel_distance(features: Tensor, real: Tensor) -> float:
    """Unbiased squared kernel distance between features ``[n, D]`` and ``[m, D]``."""
    return KernelReference(real).distance(features)


class KernelDistance(FeatureMetric):
    """Kernel distance of samples to real images on the features of ``extractor``; on Inception's it is KID.

    ``compute`` returns ``{key: distance}``: ``kid`` where the Fréchet distance is called ``fid``, ``kd_digits`` where it
    is called ``fd_digits``. Over all samples, not the mean over subsets of them, which has the same expectation and a
    larger variance.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``.
        reference: real features ``[m, D]``, or a ``KernelReference`` of them.
        read: brings samples into the space that the extractor reads, for example a datamodule's ``to_uint8``.

    Raises:
        UserError: see ``KernelReference``; at ``update``, features of another width than the reference's.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import integrate
        >>> from fm_lightning.metrics import RawFeatures
        >>> metric = KernelDistance(RawFeatures(), torch.randn(1000, 2))
        >>> metric.update(integrate(lambda x, t, y: torch.zeros_like(x), torch.randn(1000, 2)))
        >>> abs(metric.compute()["kd_raw"]) < 0.1
        True
    """

    def __init__(
        self,
        extractor: FeatureExtractor,
        reference: Tensor | KernelReference,
        read: Callable[[Tensor], Tensor] | None = None,
        **kwargs: Any,
    ) -> None:
        reference = reference if isinstance(reference, KernelReference) else KernelReference(reference)
        super().__init__(extractor, reference.features.shape[1], read, **kwargs)
        self.reference = reference

    @property
    def key(self) -> str:  # type: ignore[override]
        return kernel_key(self.extractor.key)

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        """The distance from the features of all samples."""
        return self.with_change({self.key: self.reference.distance(columns["features"])}, columns, base)

    def estimate(self, columns: Columns) -> Estimate:
        """The distance to just these real images, and what each sample contributes to it."""
        found = self.reference.estimate(columns["features"])
        assert found.influence is not None
        return Estimate.of(found.value, found.influence)

    def change(self, here: Columns, there: Columns) -> Estimate:
        """The distance here minus the distance there, over the same seeds line by line."""
        check_same_seeds(here, there)
        return self.estimate(here) - self.estimate(there)


def kernel_key(frechet_key: str) -> str:
    """The kernel distance's name for that of a Fréchet distance: ``fid`` -> ``kid``, ``fd_digits`` -> ``kd_digits``."""
    head, underscore, rest = frechet_key.partition("_")
    return {"fid": "kid", "fd": "kd"}.get(head, f"kd_{head}") + underscore + rest


def _checked(features: Tensor, whose: str) -> Tensor:
    if features.ndim != 2 or len(features) < 2:
        raise UserError(f"The {whose} features have shape {list(features.shape)}.", "Pass at least two rows, [n, D].")
    features = features.detach()
    for start in range(0, len(features), BLOCK):
        bad = ~features[start : start + BLOCK].isfinite().all(1)
        if bad.any():
            row = start + int(bad.nonzero()[0])
            raise UserError(f"Row {row} of the {whose} features contains NaN or infinity.", "Leave it out.")
    return features


def _means_among(x: Tensor, block: int) -> Tensor:
    """``[n]`` float64: mean kernel of each row with all others. Each pair is computed once."""
    sums = x.new_zeros(len(x), dtype=torch.float64)
    for a, b, table in _tables(x, x, block, symmetric=True):
        if a == b:
            table.fill_diagonal_(0)
        else:
            sums[b] += table.sum(0, dtype=torch.float64)
        sums[a] += table.sum(1, dtype=torch.float64)
    return sums / (len(x) - 1)


def _means_between(x: Tensor, y: Tensor, block: int) -> tuple[Tensor, Tensor]:
    """``[n]`` and ``[m]`` float64: mean kernel of each row with all rows of the other side."""
    of_x, of_y = (rows.new_zeros(len(rows), dtype=torch.float64) for rows in (x, y))
    for a, b, table in _tables(x, y, block):
        of_x[a] += table.sum(1, dtype=torch.float64)
        of_y[b] += table.sum(0, dtype=torch.float64)
    return of_x / len(y), of_y / len(x)


def _tables(x: Tensor, y: Tensor, block: int, symmetric: bool = False) -> Iterator[tuple[slice, slice, Tensor]]:
    """Kernels ``[<= block, <= block]`` of rows of x with rows of y; of a symmetric table only the upper half's blocks."""
    one = torch.ones((), device=x.device)
    with _plain_float32(x.device.type):
        for i in range(0, len(x), block):
            a = slice(i, min(i + block, len(x)))
            rows = x[a].float()  # by blocks: all rows that are kept in half precision would be three times as large
            for j in range(i if symmetric else 0, len(y), block):
                b = slice(j, min(j + block, len(y)))
                base = torch.addmm(one, rows, y[b].float().T, alpha=1 / x.shape[1])
                yield a, b, base.pow_(3)


@contextmanager
def _plain_float32(device: str) -> Iterator[None]:
    """Products in float32 as such: rounded to TF32 or bfloat16 they would be off by as much as distances differ."""
    backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
    allowed = backend.matmul.fp32_precision
    backend.matmul.fp32_precision = "ieee"
    try:
        with torch.autocast(device, enabled=False):
            yield
    finally:
        backend.matmul.fp32_precision = allowed
