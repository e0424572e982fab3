"""Weights and fields from files, ours and other people's."""

from fm_lightning.adapters.checkpoints import load_network
from fm_lightning.adapters.torchcfm import load_torchcfm

__all__ = ["load_network", "load_torchcfm"]
