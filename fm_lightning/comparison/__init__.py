"""Comparison: rows, other velocity fields, sampling of rows, families of trivial manipulations, verdicts."""

from fm_lightning.comparison.families import Family, families
from fm_lightning.comparison.fields import Checkpoint, ClosedForm, Field
from fm_lightning.comparison.rows import BASE, Row

__all__ = ["BASE", "Checkpoint", "ClosedForm", "Family", "Field", "Row", "families"]
