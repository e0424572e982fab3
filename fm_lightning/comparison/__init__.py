"""Comparison: rows, other velocity fields, sampling of rows, families of trivial manipulations, verdicts."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fm_lightning.comparison.families import Family, families
    from fm_lightning.comparison.fields import Checkpoint, ClosedForm, Field
    from fm_lightning.comparison.rows import BASE, Row

# Loaded when they are used: the results of a comparison are read without torch.
_HOMES = {
    "Family": "families",
    "families": "families",
    "Checkpoint": "fields",
    "ClosedForm": "fields",
    "Field": "fields",
    "BASE": "rows",
    "Row": "rows",
}

__all__ = ["BASE", "Checkpoint", "ClosedForm", "Family", "Field", "Row", "families"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
