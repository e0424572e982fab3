"""Weights from elsewhere, copied into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from fm_lightning.adapters import torchcfm
from fm_lightning.adapters.meta import MetaVelocity
from fm_lightning.adapters.sit import Reversed, check_sit, size_name, without_projectors
from fm_lightning.adapters.state_dicts import copy_weights, read_weights
from fm_lightning.nets.sit import SiT
from fm_lightning.nets.unet import UNet


def load_weights(net: nn.Module, path_or_state: str | Path | Mapping[str, Any]) -> str:
    """Copies weights into ``net``, in place: ours, SiT's, REPA's, torchcfm's, or any that have its names.

    Args:
        net: what they belong to. A ``UNet`` also takes torchcfm's names (with its default order of the attention's rows);
            ``Reversed(SiT(...))`` takes REPA's files; a ``MetaVelocity`` takes its model's.
        path_or_state: see ``read_weights``. Our own checkpoints give the average where training kept one.

    Returns:
        the place where they were found: ``"sit.pt (ema)"``.

    Raises:
        UserError: as ``read_weights``; the first key that does not fit, with both shapes; the size that a SiT's file holds.
    """
    weights = read_weights(path_or_state)
    if isinstance(net, Reversed) and isinstance(net.net, nn.Module):
        net, weights = net.net, without_projectors(weights.unwrapped())
    elif isinstance(net, MetaVelocity):
        net = net.model
    if isinstance(net, SiT):
        weights = weights.unwrapped()
        check_sit(weights, size_name(net.pos_embed.shape[-1], len(net.blocks), net.patch))
    if isinstance(net, UNet) and torchcfm.is_torchcfm(unwrapped := weights.unwrapped()):
        torchcfm.load(net, unwrapped)
        return unwrapped.source
    return copy_weights(net, weights, "Build the network that the weights were trained in.")
