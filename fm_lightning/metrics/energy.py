"""Kinetic path energy of a set of samples (arXiv 2602.07928)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.metrics.measure import Columns
from fm_lightning.metrics.per_seed import PerSeedMetric
from fm_lightning.trajectory import Trajectory


class KineticPathEnergy(PerSeedMetric):
    """Mean, spread and composition of the energy ``1/2 int ||dx/dt||^2 dt``, in the sample space's unit, squared.

    ``measure`` gives ``kpe``, ``displacement``, ``field_energy`` ``[B]`` and ``energy`` ``[B, S]``, the energy of each step.

    ``summarize`` returns ``kpe_mean``, ``kpe_std``, ``kpe_q05``, ``kpe_q50``, ``kpe_q95``, ``excess_mean`` (above the
    straight line; neither exists for an SDE), ``displacement_mean`` and ``field_energy_mean`` (of the unshaped field). If the
    columns contain ``times`` ``[S + 1]``, the edges of the steps, as those of ``per_seed`` do, it adds ``kpe_early_mean``
    and ``kpe_late_mean``: the means over the steps that begin before ``tau_split``, and over the other steps.

    Args:
        tau_split: time that separates early from late.

    Attributes:
        times: ``[S + 1]`` float64, of the trajectories seen since the last reset; None before.

    Raises:
        UserError: at ``update``, samples without their trajectories, or trajectories with other time steps.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import integrate
        >>> metric = KineticPathEnergy()
        >>> metric.update(integrate(lambda x, t, y: torch.ones_like(x), torch.zeros(4, 2)))
        >>> round(metric.compute()["kpe_mean"], 4)
        1.0
    """

    name = "energy"
    floors = False  # real images have no trajectory

    def __init__(self, tau_split: float = 0.6, **kwargs: Any) -> None:
        if isinstance(tau_split, bool) or not isinstance(tau_split, int | float) or not 0 <= tau_split <= 1:
            raise UserError(f"tau_split={tau_split!r} is not a time from 0 to 1.", "Set for example tau_split=0.6")
        super().__init__(("kpe", "displacement", "field_energy", "energy"), **kwargs)
        self.tau_split = tau_split
        self.times: Tensor | None = None

    @property
    def fingerprint(self) -> str:
        return ""  # every line of a table has its energies

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        if not isinstance(samples, Trajectory):
            raise UserError("Samples alone have no energy.", "Pass the trajectory that `integrate` returns.")
        return {
            "kpe": samples.kpe,
            "displacement": samples.displacement,
            "field_energy": samples.field_energy,
            "energy": samples.energy.T,
        }

    def update(self, samples: Tensor | Trajectory, seeds: Tensor | None = None) -> None:
        """Adds a batch of trajectories of one schedule."""
        if isinstance(samples, Trajectory):
            before = samples.times if self.times is None else self.times
            if before is not samples.times and not torch.equal(before, samples.times):
                raise UserError(
                    f"A trajectory of {len(samples.times) - 1} steps follows trajectories of {len(before) - 1} steps, or at "
                    "other times.",
                    "Use one metric per schedule.",
                )
            self.times = samples.times
        super().update(samples, seeds)

    def reset(self) -> None:
        super().reset()
        self.times = None

    def _lines(self) -> dict[str, Tensor]:
        lines = super()._lines()
        return lines if self.times is None else lines | {"times": self.times}

    def facts(self) -> dict[str, Any]:
        return {"tau_split": self.tau_split}

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        kpe, displacement, field = (columns[name].double() for name in ("kpe", "displacement", "field_energy"))
        low, mid, high = torch.quantile(kpe, torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64)).tolist()
        numbers = {
            "kpe_mean": float(kpe.mean()),
            "kpe_std": float(kpe.std(correction=min(1, len(kpe) - 1))),
            "kpe_q05": low,
            "kpe_q50": mid,
            "kpe_q95": high,
        }
        if "times" in columns:
            before = int((columns["times"][:-1] < self.tau_split).sum())
            early = columns["energy"][:, :before].sum(1, dtype=torch.float64)
            numbers |= {"kpe_early_mean": float(early.mean()), "kpe_late_mean": float((kpe - early).mean())}
        numbers["field_energy_mean"] = float(field.mean())
        if not bool(displacement.isnan().all()):
            numbers["excess_mean"] = float((kpe - displacement).mean())
            numbers["displacement_mean"] = float(displacement.mean())
        return numbers


def mean_power(energy: Tensor, times: Tensor) -> Tensor:
    """``[S]`` float64 mean energy per unit of time in each step, from energies ``[n, S]`` and the steps' edges ``[S + 1]``."""
    return energy.mean(0, dtype=torch.float64) / times.diff()
