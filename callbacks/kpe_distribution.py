"""KPEDistribution: kinetic path energy of every trajectory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning import Trainer

from fm_lightning.callbacks.monitor import TrajectoryMonitor
from fm_lightning.metrics import KineticPathEnergy
from fm_lightning.metrics.energy import mean_power
from fm_lightning.report.curves import energy_profile
from fm_lightning.training.tracking import figure_image, log_media, wandb_loggers
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.module import FlowMatching


class KPEDistribution(TrajectoryMonitor[KineticPathEnergy]):
    """Energies of the samples, in the sample space's unit, squared; floors took no way and are left out.

    Logs, per schedule, ``kpe_mean``, ``kpe_std``, ``kpe_q05``, ``kpe_q50``, ``kpe_q95``, ``kpe_early_mean``,
    ``kpe_late_mean``, ``excess_mean``, ``displacement_mean`` and ``field_energy_mean``; to W&B also the histogram
    ``{stage}/{schedule}/kpe`` and the figure ``{stage}/energy_profile`` (mean power over time, all schedules).

    Args:
        tau_split: time that separates early from late energy.
    """

    floors = False

    def __init__(self, tau_split: float = 0.6) -> None:
        super().__init__()
        self.tau_split = tau_split
        self.times: dict[str, np.ndarray] = {}
        self.gains: dict[str, np.ndarray] = {}

    def build(self) -> KineticPathEnergy:
        return KineticPathEnergy(self.tau_split)

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        super().update(trainer, pl_module, batch)
        self.times = {name: batch[name].times.numpy() for name in self.metrics}
        self.gains = {name: batch[name].gain.numpy() for name in self.metrics}

    def arrays(self) -> dict[str, np.ndarray]:
        """``kpe/ROW`` ``[N]``, ``power/ROW`` ``[S]``, ``times/ROW`` ``[S + 1]`` and ``gain/ROW`` ``[S]`` for the figures."""
        out = {}
        for name, metric in self.metrics.items():
            lines = metric.per_seed()
            out[f"kpe/{name}"] = lines["kpe"].float().numpy()
            out[f"power/{name}"] = mean_power(lines["energy"], torch.from_numpy(self.times[name])).numpy()
            out[f"times/{name}"], out[f"gain/{name}"] = self.times[name], self.gains[name]
        return out

    def show(self, trainer: Trainer, pl_module: FlowMatching, stage: str) -> None:
        arrays = self.arrays()
        if not any(wandb_loggers(trainer)):
            return
        import wandb

        media: dict[str, Any] = {
            f"{stage}/{name}/kpe": wandb.Histogram(np_histogram=np.histogram(arrays[f"kpe/{name}"], bins=64))
            for name in self.metrics
        }
        rows = [
            {"name": name, "kind": row.kind, "of": row.of, "label": row.label(name)}
            for name, row in pl_module.rows.items()
        ]
        figure = energy_profile({"rows": rows, "tau_split": self.tau_split}, arrays)
        if figure is not None:
            media[f"{stage}/energy_profile"] = figure_image(figure)
        log_media(trainer, media)
