"""FeatureSpace: where samples are compared, as they are or as an extractor's features."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.per_seed import sample_tensor
from fm_lightning.trajectory import Trajectory


def check_model_space(x: Tensor) -> None:
    """Raises UserError if samples are integers, such as bytes, although samples in the model's space are expected."""
    if not x.is_floating_point():
        raise UserError(
            f"These samples are {x.dtype}, and samples in the model's space are floating point.",
            "Convert them as the training data were, for example with images.float() / 127.5 - 1.",
        )


def as_read(x: Tensor, read: Callable[[Tensor], Tensor] | None) -> Tensor:
    """Samples ``[B, ...]`` in the unit that an extractor reads; ``read`` converts from the model's space.

    Raises:
        UserError: ``read`` would convert samples that are not in the model's space.
    """
    if read is None:
        return x
    check_model_space(x)
    return read(x)


def reader_name(read: Callable[[Tensor], Tensor] | None) -> str | None:
    """What a fingerprint states about ``read``."""
    return None if read is None else getattr(read, "__qualname__", type(read).__qualname__)


class ReadOnce:
    """Converts a batch once for all extractors that read it one after the other.

    Args:
        read: samples in the model's space -> what an extractor reads, for example a datamodule's ``to_uint8``.
    """

    def __init__(self, read: Callable[[Tensor], Tensor]) -> None:
        self.read = read
        self.__qualname__ = str(reader_name(read))
        self._last: tuple[weakref.ref[Tensor], Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._last is None or self._last[0]() is not x:
            self._last = (weakref.ref(x), self.read(x))
        return self._last[1]


class FeatureSpace:
    """Samples -> rows ``[B, D]``.

    Args:
        extractor: samples ``[B, ...]`` -> features ``[B, D]``; None: the samples themselves, flattened.
        read: brings samples into what the extractor reads, for example a datamodule's ``to_uint8``.
    """

    def __init__(
        self, extractor: FeatureExtractor | None = None, read: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        self.extractor, self.read = extractor, read

    @property
    def fingerprint(self) -> str:
        """Changes whenever the rows do."""
        return text_hash(None if self.extractor is None else self.extractor.fingerprint, reader_name(self.read))

    @torch.no_grad()
    def __call__(self, samples: Tensor | Trajectory, width: int) -> Tensor:
        """``[B, width]``; no network is run without samples.

        Raises:
            UserError: rows of another width.
        """
        x = sample_tensor(samples)
        if not len(x):
            return torch.zeros(0, width, device=x.device)
        rows = self.rows(x)
        if rows.shape[1] != width:
            raise UserError(
                f"The samples have {rows.shape[1]} numbers each and the reference {width}.",
                "Bring both into the same space.",
            )
        return rows

    @torch.no_grad()
    def rows(self, x: Tensor) -> Tensor:
        """``[B, D]`` of samples ``[B, ...]``, at least one."""
        x = as_read(x, self.read)
        return (x if self.extractor is None else self.extractor(x)).flatten(1)
