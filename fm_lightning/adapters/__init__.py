"""Weights and fields from files, ours and other people's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fm_lightning.lazy import lazy

if TYPE_CHECKING:
    from fm_lightning.adapters.data_space import DataSpace
    from fm_lightning.adapters.denoisers import FromDenoiser, FromNoise, FromScore
    from fm_lightning.adapters.diffusers import FromDiffusers
    from fm_lightning.adapters.hub import push_to_hub
    from fm_lightning.adapters.kts_scheduler import KTSFlowMatchEulerScheduler
    from fm_lightning.adapters.meta import MetaVelocity
    from fm_lightning.adapters.network import load_network
    from fm_lightning.adapters.sit import Reversed, load_repa, load_sit
    from fm_lightning.adapters.torchcfm import load_torchcfm
    from fm_lightning.adapters.weights import load_weights

__all__ = [
    "DataSpace",
    "FromDenoiser",
    "FromDiffusers",
    "FromNoise",
    "FromScore",
    "KTSFlowMatchEulerScheduler",
    "MetaVelocity",
    "Reversed",
    "load_network",
    "load_repa",
    "load_sit",
    "load_torchcfm",
    "load_weights",
    "push_to_hub",
]

# Loaded when used: one adapter does not import what another one adapts.
__getattr__ = lazy(__name__, __file__)
