"""Unknown: only seeds, for a model whose training data are not available."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal, NoReturn

from torch import Tensor, nn

from fm_lightning.data.base import FlowData
from fm_lightning.data.labels import class_shares
from fm_lightning.data.latents.autoencoder import Decoder, open_autoencoder
from fm_lightning.data.samples import VAL_SEED
from fm_lightning.data.split import pixels
from fm_lightning.errors import UserError


class Unknown(FlowData):
    """Seeds for a checkpoint whose training data are not available.

    Without data nothing can be trained, no sample can be called a copy and there are no real samples to show: memorization,
    its verdicts and the floors are left out, and a Fréchet distance needs ``statistics``. Classes are sampled equally often.

    Args:
        shape: the shape of one sample in the model's space.
        num_classes: the number of classes; 0 for none.
        space: what samples are: ``pixels`` (images in [-1, 1]), ``latents`` (images if an ``autoencoder`` is given) or
            ``points``.
        autoencoder: the decoder of latents: name on the hub, folder, or any module with ``encode`` and ``decode``.
        factor: samples are ``(z - shift) * factor`` of latents z; by default as in the autoencoder's configuration.
        shift: see ``factor``.
        decode_batch: number of latents decoded at a time.
        kwargs: arguments of FlowData.

    Raises:
        UserError: an argument out of range; at ``setup``: training, or an autoencoder that does not fit.
    """

    has_training_data = False

    def __init__(
        self,
        shape: list[int],
        num_classes: int = 0,
        space: Literal["pixels", "latents", "points"] = "latents",
        autoencoder: nn.Module | str | None = None,
        factor: float | list[float] | None = None,
        shift: float | list[float] | None = None,
        decode_batch: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not shape or min(shape) < 1:
            raise UserError(f"shape={list(shape)} is not the shape of a sample.", "Set for example shape=[4, 32, 32]")
        if num_classes < 0:
            raise UserError(f"num_classes={num_classes} must be at least 0.", "Set 0 for a model without classes.")
        if decode_batch < 1:
            raise UserError(f"decode_batch={decode_batch} must be at least 1.", "Set for example decode_batch=16")
        if space not in ("pixels", "latents", "points"):
            raise UserError(
                f"space={space!r} is not one of pixels, latents and points.", "Set for example space=pixels"
            )
        if space == "pixels" and (len(shape) != 3 or shape[0] not in (1, 3)):
            raise UserError(
                f"space='pixels' does not fit shape={list(shape)}: images are [1 or 3, height, width].",
                "Set space=latents or space=points, or correct shape",
            )
        if autoencoder is not None and space != "latents":
            raise UserError(f"An autoencoder does not fit space={space!r}.", "Set space=latents, or leave it out.")
        self.shape, self.num_classes = tuple(shape), num_classes
        self._of_pixels, self._given = space == "pixels", autoencoder
        self._factor, self._shift, self.decode_batch = factor, shift, decode_batch
        self._decoder: Decoder | None = None
        self.space = "[-1, 1]" if space == "pixels" else space

    def setup(self, stage: str | None = None) -> None:
        if stage == "fit":
            raise UserError("Unknown has no data to train on.", "Run fm-lightning test, or use other data.")
        super().setup(stage)

    def load(self) -> None:
        if self._given is None:
            return
        found = open_autoencoder(self._given, self._factor, self._shift)
        self._decoder = Decoder(found, self.shape, found.shift, found.factor, self.decode_batch)
        self.space, self.decoder = f"latents of {found.name}", found.fingerprint

    def _check(self) -> None:
        _ = self.label_shares  # raises now, not at the first sample

    @cached_property
    def label_shares(self) -> Tensor | None:
        return class_shares(self._given_shares, self.num_classes, None)

    @property
    def fingerprint(self) -> str:
        return "unknown"

    @property
    def comparison_fingerprint(self) -> str:
        return "unknown"

    def val_dataloader(self) -> list[Any]:
        return [self._seeds(VAL_SEED, self.val_seeds)]

    @property
    def has_pixels(self) -> bool:
        """Whether samples can be shown as images."""
        return self._of_pixels or self._given is not None

    def decode(self, x: Tensor) -> Tensor:
        return x if self._decoder is None else self._decoder(x)

    def to_uint8(self, x: Tensor) -> Tensor:
        if self._of_pixels:
            return pixels(x)
        if self._decoder is None:
            raise TypeError("Unknown without an autoencoder holds no images")
        return self._decoder.to_uint8(x)

    def memorization_reference(self) -> NoReturn:
        raise self._nothing("training data to measure memorization against")

    def reference(self, index: Tensor | None = None) -> NoReturn:
        raise self._nothing("training data")

    def real(self) -> NoReturn:
        raise self._nothing("real samples")

    def held_out(self) -> NoReturn:
        raise self._nothing("held-out samples")

    def _nothing(self, what: str) -> UserError:
        return UserError(f"Unknown has no {what}.", "Use for example Latents or ImageData.")
