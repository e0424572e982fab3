"""fm_lightning: conditional flow matching in Lightning, and what its samples cost."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Loaded when asked for: the command line answers `--help` before torch is imported.
_HOMES = {
    "FlowMatching": "fm_lightning.module",
    "FlowTrainer": "fm_lightning.training.trainer",
    "Trajectory": "fm_lightning.trajectory",
    "UserError": "fm_lightning.errors",
    "load_network": "fm_lightning.adapters.checkpoints",
    "noise": "fm_lightning.noise",
    **dict.fromkeys(
        (
            "KTS",
            "SSC",
            "Constant",
            "EmpiricalVelocity",
            "Independent",
            "LinearPath",
            "OptimalTransport",
            "Schedule",
            "integrate",
            "integrate_many",
        ),
        "fm_lightning.flow",
    ),
    **dict.fromkeys(
        ("FrechetDistance", "KineticPathEnergy", "MemorizationRate", "nearest"),
        "fm_lightning.metrics",
    ),
}

if TYPE_CHECKING:
    from fm_lightning.adapters.checkpoints import load_network
    from fm_lightning.errors import UserError
    from fm_lightning.flow import (
        KTS,
        SSC,
        Constant,
        EmpiricalVelocity,
        Independent,
        LinearPath,
        OptimalTransport,
        Schedule,
        integrate,
        integrate_many,
    )
    from fm_lightning.metrics import FrechetDistance, KineticPathEnergy, MemorizationRate, nearest
    from fm_lightning.module import FlowMatching
    from fm_lightning.noise import noise
    from fm_lightning.training.trainer import FlowTrainer
    from fm_lightning.trajectory import Trajectory

__all__ = [
    "KTS",
    "SSC",
    "Constant",
    "EmpiricalVelocity",
    "FlowMatching",
    "FlowTrainer",
    "FrechetDistance",
    "Independent",
    "KineticPathEnergy",
    "LinearPath",
    "MemorizationRate",
    "OptimalTransport",
    "Schedule",
    "Trajectory",
    "UserError",
    "integrate",
    "integrate_many",
    "load_network",
    "nearest",
    "noise",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fm_lightning' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
