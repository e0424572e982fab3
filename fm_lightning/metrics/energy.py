"""Kinetic path energy of a set of samples (arXiv 2602.07928)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from fm_lightning.metrics.per_seed import PerSeedMetric
from fm_lightning.trajectory import Trajectory


class KineticPathEnergy(PerSeedMetric):
    """Mean, spread and composition of the energy ``1/2 int ||dx/dt||^2 dt``, in the sample space's unit, squared.

    ``compute`` returns ``kpe_mean``, ``kpe_std``, ``kpe_q05``, ``kpe_q50``, ``kpe_q95``, the means ``kpe_early_mean``
    and ``kpe_late_mean`` (steps that begin before and after ``tau_split``), ``excess_mean`` (above the straight line),
    ``displacement_mean`` and ``field_energy_mean`` (of the unshaped field along the same path).

    Args:
        tau_split: time that separates early from late.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import integrate
        >>> metric = KineticPathEnergy()
        >>> metric.update(integrate(lambda x, t, y: torch.ones_like(x), torch.zeros(4, 2)))
        >>> round(metric.compute()["kpe_mean"], 4)
        1.0
    """

    columns = ("kpe", "early", "displacement", "field_energy")
    power_sum: Tensor

    def __init__(self, tau_split: float = 0.6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.tau_split = tau_split
        self.add_state("power_sum", default=torch.zeros(0, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, trajectory: Trajectory) -> None:
        """Adds a batch of trajectories of one schedule."""
        self.append(
            trajectory,
            kpe=trajectory.kpe,
            early=trajectory.early(self.tau_split),
            displacement=trajectory.displacement,
            field_energy=trajectory.field_energy,
        )
        power = trajectory.power.sum(1).to(self.device, torch.float64)
        self.power_sum = power if self.power_sum.numel() == 0 else self.power_sum + power

    def compute(self) -> dict[str, float]:
        c = {name: values.double() for name, values in self.local().items()}
        kpe = c["kpe"]
        low, mid, high = torch.quantile(kpe, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
        return {
            "kpe_mean": float(kpe.mean()),
            "kpe_std": float(kpe.std(correction=min(1, len(kpe) - 1))),
            "kpe_q05": low,
            "kpe_q50": mid,
            "kpe_q95": high,
            "kpe_early_mean": float(c["early"].mean()),
            "kpe_late_mean": float((kpe - c["early"]).mean()),
            "excess_mean": float((kpe - c["displacement"]).mean()),
            "displacement_mean": float(c["displacement"].mean()),
            "field_energy_mean": float(c["field_energy"].mean()),
        }

    def profile(self) -> Tensor:
        """``[S]`` mean power (energy per unit of time) in each step, over all processes."""
        with self.sync_context():
            return (self.power_sum / len(dim_zero_cat(self.seeds))).cpu()
