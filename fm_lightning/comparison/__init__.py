"""Comparison: rows, other velocity fields, sampling of rows, verdicts."""

from fm_lightning.comparison.fields import Checkpoint, ClosedForm, Field
from fm_lightning.comparison.rows import BASE, Row

__all__ = ["BASE", "Checkpoint", "ClosedForm", "Field", "Row"]
