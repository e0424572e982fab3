"""Autoencoder: images to latents and back, by diffusers' ``AutoencoderKL`` or any module with ``encode`` and ``decode``.

Decoder: from the model's space to images, in batches of bounded size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fm_lightning.data.latents.manifest import Manifest
from fm_lightning.data.split import pixels
from fm_lightning.errors import UserError
from fm_lightning.hashes import tensor_bytes

LOCAL = "a folder that save_pretrained wrote, for example ./sd-vae-ft-ema"


class Autoencoder(nn.Module):
    """Images <-> latents in float32, without gradients.

    The model's space is ``(z - shift) * factor``, z a latent. For Stable Diffusion's autoencoders shift is 0 and factor
    0.18215 (Rombach et al. 2022, one over the standard deviation of latents); diffusers' configurations hold both.

    Args:
        network: a module with ``encode``, images ``[B, C, H, W]`` in [-1, 1] -> latents or (mean, standard deviation) of their
            posterior, and ``decode``, latents -> images; like diffusers' autoencoders, whose outputs have their own types.
        name: its name in tables and messages; default: its class.
        factor: factor of the model's space, one number or one per channel; default: as in the network's configuration,
            else 1.
        shift: shift of the model's space, also from its configuration, otherwise 0.

    Raises:
        UserError: a network without ``encode`` or ``decode``.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str | None = None,
        factor: float | Sequence[float] | None = None,
        shift: float | Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        for method in ("encode", "decode"):
            if not callable(getattr(network, method, None)):
                raise UserError(
                    f"Autoencoder {type(network).__name__} has no method {method}.", f"Add one, or pass {LOCAL}"
                )
        # Without dropout and without gradients.
        self.network: Any = network.eval().requires_grad_(False).float()
        self.name = name or type(network).__name__
        config = getattr(network, "config", None)
        config = config if isinstance(config, Mapping) else {}
        known = config.get("scaling_factor") or 1.0
        mean, std = config.get("latents_mean"), config.get("latents_std")
        factor = factor if factor is not None else [known / s for s in std] if std else known
        shift = shift if shift is not None else mean or config.get("shift_factor") or 0.0
        self.factor: float | list[float] = list(factor) if isinstance(factor, Sequence) else factor
        self.shift: float | list[float] = list(shift) if isinstance(shift, Sequence) else shift

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns mean and standard deviation of the posterior, ``[B, c, h, w]`` each (0 if the network has no posterior).

        Args:
            images: ``[B, C, H, W]`` in [-1, 1].
        """
        found = self.network.encode(images.float())
        found = getattr(found, "latent_dist", found)
        if isinstance(found, Tensor):
            return found, torch.zeros_like(found)
        return found if isinstance(found, tuple) else (found.mean, found.std)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Maps unscaled latents ``[B, c, h, w]`` of the network to images ``[B, C, H, W]``, about [-1, 1]."""
        found = self.network.decode(latents.float())
        return getattr(found, "sample", found)

    @property
    def fingerprint(self) -> str:
        """Hash of the weights; it does not depend on where they were read from."""
        digest = hashlib.sha256(type(self.network).__name__.encode())
        for key, value in self.network.state_dict().items():
            digest.update(f"{key} {list(value.shape)}".encode())
            digest.update(tensor_bytes(value))
        return digest.hexdigest()[:16]


def open_autoencoder(
    given: str | nn.Module, factor: float | Sequence[float] | None = None, shift: float | Sequence[float] | None = None
) -> Autoencoder:
    """Opens an autoencoder by name or folder (diffusers' ``AutoencoderKL``), or wraps a module.

    Args:
        given: name on the hub, folder, or module with ``encode`` and ``decode``.
        factor: see :class:`Autoencoder`.
        shift: see :class:`Autoencoder`.

    Raises:
        UserError: an autoencoder that is missing, unreachable or incomplete, or diffusers is not installed.
    """
    if isinstance(given, Autoencoder):
        return given
    if isinstance(given, nn.Module):
        return Autoencoder(given, factor=factor, shift=shift)
    try:
        from diffusers import AutoencoderKL  # takes seconds
    except ImportError as error:
        raise UserError(
            f"Reading autoencoder={given!r} needs diffusers ({error}).", "Run pip install 'fm-lightning[imagenet]'"
        ) from error
    path = Path(given).expanduser()
    try:
        network, info = AutoencoderKL.from_pretrained(path if path.is_dir() else given, output_loading_info=True)
    except Exception as error:  # diffusers, the hub and safetensors raise exceptions of any type
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise UserError(
            f"Cannot load autoencoder={given!r} ({reason}).",
            f"Set the name of an AutoencoderKL on the Hugging Face hub and check the network, or set {LOCAL}",
        ) from error
    if missing := info["missing_keys"]:
        raise UserError(
            f"The file of autoencoder={given!r} lacks {len(missing)} weights, for example {sorted(missing)[0]}.",
            f"Set {LOCAL}",
        )
    return Autoencoder(network, str(given), factor, shift)


class Decoder:
    """Maps ``x [B, c, h, w]`` to images ``[B, C, H, W]``, by decoding latents ``z = x / factor + shift``.

    Args:
        autoencoder: the autoencoder of the latents.
        shape: the shape ``(c, h, w)`` of a latent.
        shift: one number, or one per channel.
        factor: one number, or one per channel.
        batch: number of latents decoded at a time.

    Attributes:
        image_shape: the shape ``[C, H, W]`` of an image.

    Raises:
        UserError: an autoencoder that cannot decode latents of this shape.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        shape: tuple[int, ...],
        shift: float | list[float] | Tensor,
        factor: float | list[float] | Tensor,
        batch: int,
    ) -> None:
        self.autoencoder, self.batch = autoencoder, batch
        self.shift, self.factor = per_channel(shift, shape[0]), per_channel(factor, shape[0])
        try:
            self.image_shape = list(autoencoder.decode(torch.zeros(1, *shape)).shape[1:])
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"autoencoder={autoencoder.name} cannot decode latents of {list(shape)} ({reason}).",
                "Use the one that encoded them.",
            ) from error

    def __call__(self, x: Tensor) -> Tensor:
        """Returns images ``[B, C, H, W]``, about [-1, 1]."""
        if not len(x):
            return x.new_zeros(0, *self.image_shape)
        return torch.cat([self._decode(part) for part in x.split(self.batch)])

    def to_uint8(self, x: Tensor) -> Tensor:
        """Returns images ``[B, C, H, W]`` uint8, rounded and clamped; only one batch is in memory as float32."""
        if not len(x):
            return x.new_zeros(0, *self.image_shape, dtype=torch.uint8)
        return torch.cat([pixels(self._decode(part)) for part in x.split(self.batch)])

    def _decode(self, x: Tensor) -> Tensor:
        shift, factor = self.shift.to(x.device), self.factor.to(x.device)
        return self.autoencoder.to(x.device).decode(x.float() / factor + shift)


def per_channel(values: float | list[float] | Tensor, channels: int) -> Tensor:
    """Returns ``[c, 1, 1]`` float32."""
    values = torch.as_tensor(values, dtype=torch.float32)
    return values if values.ndim == 3 else values.expand(channels).clone()[:, None, None]


def scales(manifest: Manifest, scaling: str) -> tuple[Tensor, Tensor]:
    """Returns shift and factor ``[c, 1, 1]`` of the model's space ``(z - shift) * factor``.

    Args:
        manifest: of the stored latents z.
        scaling: "autoencoder" or "channels"; see ``Latents``.
    """
    channels = manifest.shape[0]
    if scaling == "channels":
        return per_channel(manifest.channel_mean, channels), 1 / per_channel(manifest.channel_std, channels)
    return per_channel(manifest.shift, channels), per_channel(manifest.factor, channels)
