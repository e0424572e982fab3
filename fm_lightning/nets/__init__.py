"""Velocity networks ``v(x, t, y)``."""

from fm_lightning.nets.mlp import ResidualMLP

__all__ = ["ResidualMLP"]
