"""SemanticsMonitor: how clearly samples show their own class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning import Trainer
from torch import nn

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.data.class_names import class_names
from fm_lightning.errors import UserError
from fm_lightning.metrics.semantics import ClassifierSemantics, ClipSemantics, Semantics
from fm_lightning.training.module import FlowMatching


class SemanticsMonitor(Monitor[Semantics]):
    """Score and margin of the own class, by CLIP or a classifier; floors were not sampled for a class and are left out.

    Numbers, per row: ``clip_score_mean``, ``clip_margin_mean`` and ``clip_accuracy`` with its Wilson interval (``_lo``,
    ``_hi``); of a classifier ``classifier_score_mean`` and so on.

    Args:
        class_names: for CLIP's prompts, in the order of the labels; by default those of the data's source, "imagenet" for
            ImageNet's.
        clip: a folder with a CLIP, or its name on the Hugging Face hub.
        classifier: samples in the model's space -> logits; used instead of CLIP.

    Raises:
        UserError: neither or both of CLIP and a classifier; before training: a model without labels, another number of class
            names than of classes, or a CLIP that cannot be loaded.
    """

    def __init__(
        self, class_names: list[str] | str | None = None, clip: str | None = None, classifier: nn.Module | None = None
    ) -> None:
        super().__init__()
        if (clip is None) == (classifier is None):
            raise UserError("SemanticsMonitor needs a CLIP or a classifier, and not both.", "Pass clip or classifier.")
        self.class_names, self.clip, self.classifier = class_names, clip, classifier

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data = pl_module.data
        if not data.num_classes:
            raise UserError("SemanticsMonitor needs a model with classes.", "Remove it, or train a conditional model.")
        if self.classifier is not None:
            self.measures = [ClassifierSemantics(self.classifier.to(trainer.strategy.root_device))]
            return
        assert self.clip is not None
        metric = ClipSemantics(class_names(self.class_names, data), self.clip, data.to_uint8)
        _ = metric.clip  # loaded, or refused, before training
        self.measures = [metric]

    def recalled(self, folder: Path, fingerprints: Mapping[str, str]) -> list[Semantics]:
        if Semantics.name not in fingerprints:
            return []
        kind, prefix = (ClipSemantics, "clip") if self.clip else (ClassifierSemantics, "classifier")
        return [kind.recalled(folder, fingerprints[Semantics.name], prefix=prefix)]
