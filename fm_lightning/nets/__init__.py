"""Velocity networks ``v(x, t, y)``."""

from fm_lightning.nets.guidance import Guidance, Guided, drop_labels
from fm_lightning.nets.mlp import ResidualMLP
from fm_lightning.nets.sit import SiT
from fm_lightning.nets.unet import UNet
from fm_lightning.nets.velocity import Velocity

__all__ = ["Guidance", "Guided", "ResidualMLP", "SiT", "UNet", "Velocity", "drop_labels"]
