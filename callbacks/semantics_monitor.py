"""SemanticsMonitor: how clearly samples show their own class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning import Trainer
from torch import Tensor, nn

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.data.class_names import class_names
from fm_lightning.errors import OldError
from fm_lightning.metrics.per_seed import Columns
from fm_lightning.metrics.semantics import ClassifierSemantics, ClipSemantics, Semantics, strength
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.training.module import FlowMatching


class SemanticsMonitor(Monitor[Semantics]):
    """Score and margin of the own class, by CLIP or by a classifier; floors, which nobody asked for a class, are left out.

    Numbers, per row: ``clip_score_mean``, ``clip_margin_mean`` and ``clip_accuracy`` with its Wilson interval (``_lo``,
    ``_hi``); of a classifier ``classifier_score_mean`` and so on.

    Args:
        class_names: for CLIP's prompts, in the order of the labels; by default those of the data's source, "imagenet" for
            ImageNet's.
        clip: a CLIP: a folder, or a name on the Hugging Face hub.
        classifier: in place of CLIP: samples in the model's space -> logits.

    Raises:
        UserError: neither or both of CLIP and a classifier; before training: a model without labels, another number of class
            names than of classes, or a CLIP that cannot be loaded.
    """

    name = "semantics"
    floors = False

    def __init__(
        self,
        class_names: list[str] | str | None = None,
        clip: str | None = None,
        classifier: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if (clip is None) == (classifier is None):
            raise OldError(
                "neither or both of clip and classifier given",
                "one",
                "give clip=..., or classifier=...",
            )
        self.class_names, self.clip, self.classifier = class_names, clip, classifier
        self._key = "clip" if clip else "classifier"
        self._metric: Semantics | None = None

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data = pl_module.data
        if not data.num_classes:
            raise OldError(
                "SemanticsMonitor given for a model without labels",
                "classes to ask for",
                "leave it out, or train a conditional model",
            )
        if self.classifier is not None:
            self._metric = ClassifierSemantics(self.classifier.to(trainer.strategy.root_device))
            return
        assert self.clip is not None
        metric = ClipSemantics(class_names(self.class_names, data), self.clip, data.to_uint8)
        _ = metric.clip  # loaded, or refused, before training
        self._metric = metric

    def build(self) -> Semantics:
        if isinstance(self._metric, ClipSemantics):
            fresh = ClipSemantics(self._metric.classes, self._metric.model, self._metric.read)
            fresh._loaded = self._metric.clip
            return fresh
        assert self.classifier is not None
        return ClassifierSemantics(self.classifier)

    @property
    def fingerprint(self) -> str:
        assert self._metric is not None
        return self._metric.fingerprint

    def measure(self, trajectory: Trajectory) -> dict[str, Tensor]:
        assert self._metric is not None
        return self._metric.measure(trajectory)

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        return strength(columns, self._key)
