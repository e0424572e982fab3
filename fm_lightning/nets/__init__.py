"""Velocity networks ``v(x, t, y)``."""

from fm_lightning.guidance import Guidance
from fm_lightning.nets.conditions import drop_labels
from fm_lightning.nets.mlp import ResidualMLP
from fm_lightning.nets.sit import SiT
from fm_lightning.nets.unet import UNet
from fm_lightning.nets.velocity import Guided, Velocity

__all__ = ["Guidance", "Guided", "ResidualMLP", "SiT", "UNet", "Velocity", "drop_labels"]
