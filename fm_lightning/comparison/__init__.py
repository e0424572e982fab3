"""Comparison: rows, other velocity fields, sampling of rows, families of trivial manipulations, verdicts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fm_lightning.lazy import lazy

if TYPE_CHECKING:
    from fm_lightning.comparison.families import Family
    from fm_lightning.comparison.fields import Checkpoint, ClosedForm, Field
    from fm_lightning.comparison.other_model import other_models
    from fm_lightning.comparison.rows import BASE, Row

__all__ = ["BASE", "Checkpoint", "ClosedForm", "Family", "Field", "Row", "other_models"]

# Loaded when they are used: the results of a comparison are read without torch.
__getattr__ = lazy(__name__, __file__)
