"""fm_lightning: conditional flow matching in Lightning, and what its samples cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fm_lightning.lazy import lazy

if TYPE_CHECKING:
    from fm_lightning.adapters import load_network, load_sit, load_torchcfm, load_weights
    from fm_lightning.comparison.families import Family, families
    from fm_lightning.comparison.judge import judge
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
    from fm_lightning.metrics import (
        FrechetDistance,
        KernelDistance,
        KineticPathEnergy,
        LocalSupport,
        MemorizationRate,
        nearest,
    )
    from fm_lightning.nets import Guided
    from fm_lightning.notebook import Comparison, compare_schedules, falsify
    from fm_lightning.table.evaluation import Evaluation
    from fm_lightning.training.module import FlowMatching
    from fm_lightning.training.trainer import FlowTrainer
    from fm_lightning.trajectory import Trajectory

__all__ = [
    "KTS",
    "SSC",
    "Comparison",
    "Constant",
    "EmpiricalVelocity",
    "Evaluation",
    "Family",
    "FlowMatching",
    "FlowTrainer",
    "FrechetDistance",
    "Guided",
    "Independent",
    "KernelDistance",
    "KineticPathEnergy",
    "LinearPath",
    "LocalSupport",
    "MemorizationRate",
    "OptimalTransport",
    "Schedule",
    "Trajectory",
    "UserError",
    "compare_schedules",
    "falsify",
    "families",
    "integrate",
    "integrate_many",
    "judge",
    "load_network",
    "load_sit",
    "load_torchcfm",
    "load_weights",
    "nearest",
]

# Loaded at first use: the command line answers `--help` before torch is imported.
__getattr__ = lazy(__name__, __file__)
