"""Features of the samples, the training images and held-out ones, for all questions that compare there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.diagnosis.subject import Subject
from fm_lightning.metrics.features.extractor import FeatureExtractor


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of an extractor on the CPU: ``samples [n, D]``, ``training [N, D]``, ``held_out [m, D]``; ``key`` names it."""

    key: str
    samples: Tensor
    training: Tensor
    held_out: Tensor


@torch.no_grad()
def extract(subject: Subject, extractor: FeatureExtractor) -> Features:
    """Runs the extractor over all three.

    Raises:
        UserError: its weights cannot be had.
    """
    data, device = subject.data, subject.device
    extractor.load()
    extractor.to(device).eval()
    read = data.to_uint8 if extractor.space == "uint8" else None

    def rows(parts: Iterable[Tensor]) -> Tensor:
        moved = (x.to(device) for x in parts)
        return torch.cat([extractor(x if read is None else read(x)).flatten(1).float().cpu() for x in moved])

    size = data.eval_batch_size
    return Features(
        extractor.key,
        rows(subject.samples.split(size)),
        rows(data.encoded(data.train_split).split(size)),
        rows(subject.held_out.split(size)),
    )
