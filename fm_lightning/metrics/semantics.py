"""Semantic strength: how clearly a sample shows its own class, according to CLIP or a classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.estimate import wilson
from fm_lightning.hashes import text_hash
from fm_lightning.metrics.features.extractor import state_hash
from fm_lightning.metrics.features.space import FeatureSpace, as_read, check_model_space
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.per_seed import PerSeedMetric, sample_tensor
from fm_lightning.trajectory import Trajectory

CLIP = "openai/clip-vit-base-patch32"
PROMPT = "a photo of a {}"


class Semantics(PerSeedMetric):
    """The score of the own class and the margin by which it leads: ``{prefix}_score`` and ``{prefix}_margin``, ``[B]`` each.

    ``summarize`` returns their means, ``{prefix}_score_mean`` and ``{prefix}_margin_mean``, and the share of samples whose
    own class leads, ``{prefix}_accuracy`` with its 95% Wilson interval ``_lo``, ``_hi``.
    """

    name = "semantics"
    floors = False  # real images were not sampled for a class

    def __init__(self, prefix: str, **kwargs: Any) -> None:
        super().__init__((f"{prefix}_score", f"{prefix}_margin"), **kwargs)
        self.prefix = prefix

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        key = self.prefix
        score, lead = (columns[f"{key}_{name}"].double() for name in ("score", "margin"))
        hits, n = int((lead > 0).sum()), len(lead)
        low, high = wilson(hits, n)
        return {
            f"{key}_score_mean": float(score.mean()),
            f"{key}_margin_mean": float(lead.mean()),
            f"{key}_accuracy": hits / n,
            f"{key}_accuracy_lo": low,
            f"{key}_accuracy_hi": high,
        }

    @classmethod
    def recalled(cls, folder: Path, fingerprint: str, **options: Any) -> Semantics:
        """Summaries need the columns alone; option: prefix."""
        metric = cls.__new__(cls)
        Semantics.__init__(metric, **options)
        return metric

    def labels(self, samples: Tensor | Trajectory, classes: int) -> Tensor:
        """``[B]`` the samples' classes.

        Raises:
            UserError: samples without labels, or labels out of range.
        """
        labels = samples.labels if isinstance(samples, Trajectory) else None
        if labels is None:
            raise UserError(
                f"{type(self).__name__} needs the samples' classes.", "Pass trajectories of a conditional model."
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise UserError(
                f"Labels reach from {int(labels.min())} to {int(labels.max())}, but there are {classes} classes.",
                "Name all classes of the model.",
            )
        return labels


def margin(scores: Tensor, labels: Tensor) -> Tensor:
    """``[B]`` the own class's score minus the best other one's, from ``[B, K]`` with K at least 2."""
    own = scores.gather(1, labels[:, None])[:, 0]
    return own - scores.scatter(1, labels[:, None], -torch.inf).amax(1)


class ClipSemantics(Semantics):
    """CLIP score ``100 cos(image, "a photo of a {class}")`` of the own class (arXiv 2602.07928), and its margin.

    Args:
        classes: names in the order of the labels, at least 2.
        model: a folder with a CLIP and its processor, or a name on the Hugging Face hub (downloaded when first needed).
        read: brings samples to pixels, uint8 ``[B, 1 or 3, H, W]``: a datamodule's ``to_uint8``.
        prompt: with {} where the class goes.
        batch_size: images that go through the network at once.

    Raises:
        UserError: fewer than two classes, or a prompt without {}; at the first measurement, a model that cannot be loaded,
            samples without labels, or samples that are no pixels.
    """

    def __init__(
        self,
        classes: Sequence[str],
        model: str = CLIP,
        read: Callable[[Tensor], Tensor] | None = None,
        prompt: str = PROMPT,
        batch_size: int = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__("clip", **kwargs)
        if len(classes) < 2:
            raise UserError(f"A margin needs two classes, not {len(classes)}.", "Pass the names of all classes.")
        if "{}" not in prompt:
            raise UserError(f"prompt={prompt!r} has no {{}} for the class.", f'Pass, for example, "{PROMPT}".')
        self.classes, self.model, self.read, self.prompt = list(classes), model, read, prompt
        self.batch_size = batch_size
        self._loaded: _Clip | None = None

    @property
    def clip(self) -> _Clip:
        """The network with its processor and the prompts' embeddings, loaded when it is first needed."""
        if self._loaded is None:
            self._loaded = _Clip(self.model, [self.prompt.format(name) for name in self.classes])
        return self._loaded

    @property
    def fingerprint(self) -> str:
        return text_hash(self.clip.fingerprint, self.classes, self.prompt, FeatureSpace(None, self.read).fingerprint)

    @torch.no_grad()
    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """``clip_score [B]`` in [-100, 100] and ``clip_margin [B]``."""
        x, labels = sample_tensor(samples), self.labels(samples, len(self.classes))
        images = as_read(x, self.read)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise UserError(
                f"CLIP reads uint8 images [B, 1 or 3, H, W], not {list(images.shape)} of {images.dtype}.",
                "Pass read=data.to_uint8.",
            )
        if not len(images):
            return {name: torch.zeros(0, device=x.device) for name in self.columns}
        cosines = torch.cat([self.clip.cosines(part) for part in images.split(self.batch_size)])
        own = cosines.gather(1, labels.to(cosines.device)[:, None])[:, 0]
        return {"clip_score": 100 * own, "clip_margin": 100 * margin(cosines, labels.to(cosines.device))}


class _Clip:
    """transformers' CLIP, frozen, with prompts embedded once."""

    def __init__(self, model: str, prompts: Sequence[str]) -> None:
        from transformers import CLIPModel, CLIPProcessor  # here, because importing transformers takes seconds

        try:
            self.processor = CLIPProcessor.from_pretrained(model)
            self.net = CLIPModel.from_pretrained(model).eval().requires_grad_(False)
        except Exception as error:  # hubs, archives and configurations raise a dozen types
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            what = (
                f"{model} holds no CLIP with its processor" if Path(model).exists() else f"Cannot load CLIP {model!r}"
            )
            raise UserError(
                f"{what} ({reason}).",
                f"Without a network, save {CLIP} elsewhere with save_pretrained and pass that folder as model.",
            ) from error
        tokens = self.processor(text=list(prompts), return_tensors="pt", padding=True)
        self.prompts = F.normalize(_embedding(self.net.get_text_features(**tokens)).float(), dim=1)  # [K, D]

    @property
    def fingerprint(self) -> str:
        return state_hash(type(self.net).__qualname__, self.net)

    def cosines(self, images: Tensor) -> Tensor:
        """``[B, K]`` cosines of uint8 images ``[B, 1 or 3, H, W]`` with the prompts, float32."""
        device = images.device
        self.net, self.prompts = self.net.to(device), self.prompts.to(device)
        colour = list(images.expand(-1, 3, -1, -1).cpu())
        pixels = self.processor(images=colour, return_tensors="pt")["pixel_values"].to(device)
        with torch.autocast(device.type, enabled=False):
            features = _embedding(self.net.get_image_features(pixel_values=pixels))
        return F.normalize(features.float(), dim=1) @ self.prompts.T


def _embedding(found: Any) -> Tensor:
    """transformers 4 returns the projected embedding itself, transformers 5 an output that holds it."""
    return found if isinstance(found, Tensor) else found.pooler_output


class ClassifierSemantics(Semantics):
    """Confidence (softmax probability) of the own class and margin of its logit, from any classifier.

    Args:
        module: samples ``[B, ...]`` -> logits ``[B, K]``, K at least 2; put into evaluation mode.
        read: brings samples into what the classifier reads.
        prefix: of the numbers' names.

    Raises:
        UserError: at ``measure``, samples in another unit or without labels, or outputs that are no logits.
    """

    module: nn.Module

    def __init__(
        self,
        module: nn.Module,
        read: Callable[[Tensor], Tensor] | None = None,
        prefix: str = "classifier",
        **kwargs: Any,
    ) -> None:
        super().__init__(prefix, **kwargs)
        # Kept out of the module tree: the classifier is neither moved nor saved along with the metric.
        object.__setattr__(self, "module", module.eval())
        self.read = read

    @property
    def fingerprint(self) -> str:
        return text_hash(
            state_hash(type(self.module).__qualname__, self.module), FeatureSpace(None, self.read).fingerprint
        )

    @torch.no_grad()
    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """``{prefix}_score [B]`` in [0, 1] and ``{prefix}_margin [B]``."""
        x = sample_tensor(samples)
        if not len(x):
            return {name: torch.zeros(0, device=x.device) for name in self.columns}
        check_model_space(x)
        logits = self.module(as_read(x, self.read))
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise UserError(
                f"The classifier's output has shape {list(logits.shape)}.",
                "Pass a module that returns logits [B, K] of at least 2 classes.",
            )
        labels = self.labels(samples, logits.shape[1]).to(logits.device)
        own = logits.float().log_softmax(1).gather(1, labels[:, None])[:, 0]
        return {f"{self.prefix}_score": own.exp(), f"{self.prefix}_margin": margin(logits.float(), labels)}
