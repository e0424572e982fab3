"""Features of the samples, the training images and held-out ones, for all questions that compare there."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fm_lightning.diagnosis.subject import Subject
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.real_features import extract as features_of_batches


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of an extractor on the CPU: ``samples [n, D]``, ``training [N, D]``, ``held_out [m, D]``; ``key`` names it."""

    key: str
    samples: Tensor
    training: Tensor
    held_out: Tensor


def extract(subject: Subject, extractor: FeatureExtractor) -> Features:
    """Runs the extractor over all three.

    Raises:
        UserError: its weights cannot be had.
    """
    data, size = subject.data, subject.data.eval_batch_size
    extractor.load()
    extractor.to(subject.device).eval()
    read = data.to_uint8 if extractor.space == "uint8" else None
    every = (part.split(size) for part in (subject.samples, data.encoded(data.train_split), subject.held_out))
    rows = (features_of_batches(extractor, batches, subject.device, read) for batches in every)
    return Features(extractor.key, *(part.flatten(1).float() for part in rows))
