"""Kinetic path energy of a set of samples (arXiv 2602.07928)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fm_lightning.errors import OldError
from fm_lightning.metrics.per_seed import Columns, PerSeedMetric, fingerprint
from fm_lightning.trajectory import Trajectory


class KineticPathEnergy(PerSeedMetric):
    """Mean, spread and composition of the energy ``1/2 int ||dx/dt||^2 dt``, in the sample space's unit, squared.

    ``measure`` gives ``kpe``, ``displacement``, ``field_energy`` ``[B]`` and ``energy`` ``[B, S]``, the energy of each step.

    ``summarize`` returns ``kpe_mean``, ``kpe_std``, ``kpe_q05``, ``kpe_q50``, ``kpe_q95``, ``excess_mean`` (above the
    straight line), ``displacement_mean`` and ``field_energy_mean`` (of the unshaped field along the same path). Where it is
    also given ``times`` ``[S + 1]``, the edges of the steps, as by ``compute``, the means ``kpe_early_mean`` and
    ``kpe_late_mean`` (steps that begin before ``tau_split``, and the others) come with them.

    Args:
        tau_split: time that separates early from late.

    Attributes:
        times: ``[S + 1]`` float64, of the trajectories seen since the last reset; None before.

    Raises:
        UserError: at ``update``, plain samples, which do not tell how they were reached; trajectories of other time steps.

    Example:
        >>> import torch
        >>> from fm_lightning.flow import integrate
        >>> metric = KineticPathEnergy()
        >>> metric.update(integrate(lambda x, t, y: torch.ones_like(x), torch.zeros(4, 2)))
        >>> round(metric.compute()["kpe_mean"], 4)
        1.0
    """

    def __init__(self, tau_split: float = 0.6, **kwargs: Any) -> None:
        super().__init__(("kpe", "displacement", "field_energy", "energy"), **kwargs)
        self.tau_split = tau_split
        self.times: Tensor | None = None

    @property
    def fingerprint(self) -> str:
        return fingerprint("kinetic path energy")

    def measure(self, samples: Tensor | Trajectory) -> dict[str, Tensor]:
        if not isinstance(samples, Trajectory):
            raise OldError(
                f"samples {list(samples.shape)} given to KineticPathEnergy",
                "the Trajectory that led to them",
                "give what `integrate` returns",
            )
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
                raise OldError(
                    f"a trajectory of {len(samples.times) - 1} steps given",
                    f"the {len(before) - 1} steps at the times of those before",
                    "use one metric for each schedule",
                )
            self.times = samples.times
        super().update(samples, seeds)

    def reset(self) -> None:
        super().reset()
        self.times = None

    def compute(self) -> dict[str, float]:
        lines = self._lines()
        return self.summarize(lines if self.times is None else lines | {"times": self.times})

    def summarize(self, columns: Columns) -> dict[str, float]:
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
        return numbers | {
            "excess_mean": float((kpe - displacement).mean()),
            "displacement_mean": float(displacement.mean()),
            "field_energy_mean": float(field.mean()),
        }


def mean_power(energy: Tensor, times: Tensor) -> Tensor:
    """``[S]`` float64 mean energy per unit of time in each step, from energies ``[n, S]`` and the steps' edges ``[S + 1]``."""
    return energy.mean(0, dtype=torch.float64) / times.diff()
