"""Weights and fields from files, ours and other people's."""

from fm_lightning.adapters.checkpoints import load_network
from fm_lightning.adapters.meta import MetaVelocity
from fm_lightning.adapters.reversed import Reversed
from fm_lightning.adapters.sit import load_repa, load_sit
from fm_lightning.adapters.torchcfm import load_torchcfm
from fm_lightning.adapters.weights import load_weights

__all__ = ["MetaVelocity", "Reversed", "load_network", "load_repa", "load_sit", "load_torchcfm", "load_weights"]
