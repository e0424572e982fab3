"""Semantic strength: how clearly a sample shows its own class, asked of CLIP or of a classifier."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fm_lightning.errors import OldError
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.intervals import wilson
from fm_lightning.metrics.per_seed import Columns, PerSeedMetric, fingerprint, sample_tensor
from fm_lightning.trajectory import Trajectory

CLIP = "openai/clip-vit-base-patch32"
PROMPT = "a photo of a {}"


class Semantics(PerSeedMetric):
    """A score of the own class, and the margin by which it leads: ``{key}_score`` and ``{key}_margin``, ``[B]`` each.

    ``summarize`` returns their means, ``{key}_score_mean`` and ``{key}_margin_mean``, and the share of samples whose own class
    leads, ``{key}_accuracy`` with Wilson's 95 % interval ``_lo``, ``_hi``.
    """

    key: str

    def __init__(self, key: str, **kwargs: Any) -> None:
        super().__init__((f"{key}_score", f"{key}_margin"), **kwargs)
        self.key = key

    def summarize(self, columns: Columns) -> dict[str, float]:
        return strength(columns, self.key)

    def labels(self, samples: Tensor | Trajectory, classes: int) -> Tensor:
        """``[B]`` the samples' classes.

        Raises:
            UserError: there are none, or one is no class.
        """
        labels = samples.labels if isinstance(samples, Trajectory) else None
        if labels is None:
            raise OldError(
                f"samples without labels given to {type(self).__name__}",
                "trajectories with a class each",
                "sample a conditional model",
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise OldError(
                f"labels {int(labels.min())} to {int(labels.max())} given",
                f"0 to {classes - 1}",
                "name all classes of the model",
            )
        return labels


def strength(columns: Columns, key: str) -> dict[str, float]:
    """The numbers of ``{key}_score`` and ``{key}_margin``, see ``Semantics``."""
    score, margin = (columns[f"{key}_{name}"].double() for name in ("score", "margin"))
    hits, n = int((margin > 0).sum()), len(margin)
    low, high = wilson(hits, n)
    return {
        f"{key}_score_mean": float(score.mean()),
        f"{key}_margin_mean": float(margin.mean()),
        f"{key}_accuracy": hits / n,
        f"{key}_accuracy_lo": low,
        f"{key}_accuracy_hi": high,
    }


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
            raise OldError(
                f"{len(classes)} classes given", "at least 2 for a margin", "name them in order of the labels"
            )
        if "{}" not in prompt:
            raise OldError(f"prompt={prompt!r} given", "{} where the class goes", f'type "{PROMPT}"')
        self.classes, self.model, self.read, self.prompt = list(classes), model, read, prompt
        self.batch_size = batch_size
        self._loaded: _Clip | None = None

    @property
    def clip(self) -> _Clip:
        """The network with its processor and the prompts' embeddings, loaded when first asked for."""
        if self._loaded is None:
            self._loaded = _Clip(self.model, [self.prompt.format(name) for name in self.classes])
        return self._loaded

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.clip.fingerprint, self.classes, self.prompt, FeatureSpace(None, self.read).fingerprint)

    @torch.no_grad()
    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """``clip_score [B]`` in [-100, 100] and ``clip_margin [B]``."""
        x, labels = sample_tensor(samples), self.labels(samples, len(self.classes))
        images = x if self.read is None else self.read(x)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise OldError(
                f"images {list(images.shape)} of {images.dtype} given to CLIP",
                "uint8 [B, 1 or 3, H, W]",
                "pass read=data.to_uint8",
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
            where = (
                f"{model} holds no CLIP with its processor" if Path(model).exists() else f"cannot load CLIP {model!r}"
            )
            raise OldError(
                f"{where} ({reason})",
                "a folder or a name on the Hugging Face hub",
                f"where there is no network, save {CLIP} elsewhere with save_pretrained and pass that folder as model",
            ) from error
        tokens = self.processor(text=list(prompts), return_tensors="pt", padding=True)
        self.prompts = F.normalize(_embedding(self.net.get_text_features(**tokens)).float(), dim=1)  # [K, D]

    @property
    def fingerprint(self) -> str:
        return _weights_fingerprint(self.net)

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
        key: names the numbers.

    Raises:
        UserError: at ``measure``, samples without labels, or outputs that are no logits.
    """

    module: nn.Module

    def __init__(
        self,
        module: nn.Module,
        read: Callable[[Tensor], Tensor] | None = None,
        key: str = "classifier",
        **kwargs: Any,
    ) -> None:
        super().__init__(key, **kwargs)
        # Kept out of the module tree: nobody moves or saves the classifier along with the metric.
        object.__setattr__(self, "module", module.eval())
        self.read = read

    @property
    def fingerprint(self) -> str:
        return fingerprint(_weights_fingerprint(self.module), FeatureSpace(None, self.read).fingerprint)

    @torch.no_grad()
    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        """``{key}_score [B]`` in [0, 1] and ``{key}_margin [B]``."""
        x = sample_tensor(samples)
        if not len(x):
            return {name: torch.zeros(0, device=x.device) for name in self.columns}
        logits = self.module(x if self.read is None else self.read(x))
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise OldError(
                f"a classifier with outputs {list(logits.shape)} given",
                "logits [B, K] of at least 2 classes",
                "pass another module",
            )
        labels = self.labels(samples, logits.shape[1]).to(logits.device)
        own = logits.float().log_softmax(1).gather(1, labels[:, None])[:, 0]
        return {f"{self.key}_score": own.exp(), f"{self.key}_margin": margin(logits.float(), labels)}


def _weights_fingerprint(net: nn.Module) -> str:
    """Changes with a network's parameters and buffers."""
    digest = hashlib.sha256(type(net).__qualname__.encode())
    for name, value in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
