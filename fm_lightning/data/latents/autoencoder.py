"""Autoencoder: images to latents and back, by diffusers' ``AutoencoderKL`` or any module with ``encode`` and ``decode``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fm_lightning.errors import OldError

LOCAL = "a folder that save_pretrained wrote, e.g. ./sd-vae-ft-ema"


class Network(Protocol):
    """What an autoencoder is made of. diffusers' autoencoders are such networks, with outputs of their own types."""

    def encode(self, images: Tensor, /) -> Any:
        """``[B, C, H, W]`` in [-1, 1] -> latents, or (mean, standard deviation) of their posterior."""

    def decode(self, latents: Tensor, /) -> Any:
        """Latents -> ``[B, C, H, W]`` in [-1, 1]."""


class Autoencoder(nn.Module):
    """Images <-> latents in float32, without gradients.

    The model's space is ``(z - shift) * factor``, z a latent. For Stable Diffusion's autoencoders shift is 0 and factor
    0.18215 (Rombach et al. 2022, one over the standard deviation of latents); diffusers' configurations tell both.

    Args:
        network: a module with ``encode`` and ``decode`` (see :class:`Network`).
        name: how tables and messages call it; default: its class.
        factor: of the model's space, one number or one for each channel; default: what the network's configuration says,
            else 1.
        shift: likewise, else 0.

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
                raise OldError(
                    f"autoencoder {type(network).__name__} without {method} given",
                    "a module with encode and decode",
                    f"give its class such a method, or {LOCAL}",
                )
        # Deterministic twice: no dropout, and no gradients to keep.
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
        """Mean and standard deviation of the posterior, ``[B, c, h, w]`` each (0 where the network has no posterior).

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
        """``[B, c, h, w]`` latents as the network makes them, unscaled -> ``[B, C, H, W]``, about [-1, 1]."""
        found = self.network.decode(latents.float())
        return getattr(found, "sample", found)

    @property
    def fingerprint(self) -> str:
        """Changes with the weights, not with the place that they were read from."""
        digest = hashlib.sha256(type(self.network).__name__.encode())
        for key, value in self.network.state_dict().items():
            digest.update(f"{key} {list(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]


def open_autoencoder(
    given: str | nn.Module,
    factor: float | Sequence[float] | None = None,
    shift: float | Sequence[float] | None = None,
) -> Autoencoder:
    """An autoencoder by name or folder (diffusers' ``AutoencoderKL``), or of a module that has been built.

    Args:
        given: name on the hub, a folder, or a module with ``encode`` and ``decode``.
        factor: as for :class:`Autoencoder`.
        shift: as for :class:`Autoencoder`.

    Raises:
        UserError: not there, not reachable, incomplete, or diffusers is not installed.
    """
    if isinstance(given, Autoencoder):
        return given
    if isinstance(given, nn.Module):
        return Autoencoder(given, factor=factor, shift=shift)
    try:
        from diffusers import AutoencoderKL  # takes seconds
    except ImportError as error:
        raise OldError(
            f"autoencoder={given!r} given, which diffusers reads",
            f"it installed ({error})",
            "type pip install 'fm-lightning[imagenet]'",
        ) from error
    path = Path(given).expanduser()
    try:
        network, info = AutoencoderKL.from_pretrained(path if path.is_dir() else given, output_loading_info=True)
    except Exception as error:  # diffusers, the hub and safetensors raise whatever they like
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        raise OldError(
            f"autoencoder={given!r} given, which cannot be loaded ({reason})",
            ("the name of an AutoencoderKL on the Hugging Face hub and a network that reaches it, or a local folder"),
            f"type {LOCAL}",
        ) from error
    if missing := info["missing_keys"]:
        raise OldError(
            (f"autoencoder={given!r} given, whose file lacks {len(missing)} weights (the first: {sorted(missing)[0]})"),
            "all of an AutoencoderKL",
            f"type {LOCAL}",
        )
    return Autoencoder(network, str(given), factor, shift)
