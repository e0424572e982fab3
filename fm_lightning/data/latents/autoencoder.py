"""Autoencoder: images to latents and back, by diffusers' ``AutoencoderKL`` or any module with ``encode`` and ``decode``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError

LOCAL = "a folder that save_pretrained wrote, for example ./sd-vae-ft-ema"


class Network(Protocol):
    """A network with ``encode`` and ``decode``, like diffusers' autoencoders (whose outputs have their own types)."""

    def encode(self, images: Tensor, /) -> Any:
        """``[B, C, H, W]`` in [-1, 1] -> latents, or (mean, standard deviation) of their posterior."""

    def decode(self, latents: Tensor, /) -> Any:
        """Latents -> ``[B, C, H, W]`` in [-1, 1]."""


class Autoencoder(nn.Module):
    """Images <-> latents in float32, without gradients.

    The model's space is ``(z - shift) * factor``, z a latent. For Stable Diffusion's autoencoders shift is 0 and factor
    0.18215 (Rombach et al. 2022, one over the standard deviation of latents); diffusers' configurations hold both.

    Args:
        network: a module with ``encode`` and ``decode`` (see :class:`Network`).
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
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
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
