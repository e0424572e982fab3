"""KPEDistribution: kinetic path energy of every trajectory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from lightning import Trainer

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.callbacks.wandb_media import log_energies
from fm_lightning.comparison.results import RowResult
from fm_lightning.metrics.energy import KineticPathEnergy, mean_power
from fm_lightning.metrics.measure import Columns
from fm_lightning.training.module import FlowMatching
from fm_lightning.training.tracking import wandb_loggers


class KPEDistribution(Monitor[KineticPathEnergy]):
    """Energies of the samples, in the sample space's unit, squared; floors have no trajectory and are left out.

    Numbers, per schedule: ``kpe_mean``, ``kpe_std``, ``kpe_q05``, ``kpe_q50``, ``kpe_q95``, ``kpe_early_mean``,
    ``kpe_late_mean``, ``excess_mean``, ``displacement_mean`` and ``field_energy_mean``; to W&B also the histogram
    ``{stage}/{schedule}/kpe`` and the figure ``{stage}/energy_profile`` (mean power over time, all schedules).

    Args:
        tau_split: time that separates early from late energy.
    """

    def __init__(self, tau_split: float = 0.6) -> None:
        super().__init__()
        self.measures = [KineticPathEnergy(tau_split)]

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        """Energies need no reference."""

    def recalled(self, folder: Path, fingerprints: Mapping[str, str]) -> list[KineticPathEnergy]:
        return self.measures

    def show(self, trainer: Trainer, pl_module: FlowMatching, columns: dict[str, Columns]) -> None:
        if not any(wandb_loggers(trainer)):
            return
        arrays: dict[str, np.ndarray] = {}
        for name, mine in columns.items():
            times = mine["times"]
            arrays |= {f"kpe/{name}": mine["kpe"].float().numpy(), f"times/{name}": times.numpy()}
            arrays[f"power/{name}"] = mean_power(mine["energy"], times).numpy()
            arrays[f"gain/{name}"] = pl_module.rows[name].schedule.eta(times[:-1]).numpy()
        rows = [RowResult(name, row.kind, label=row.label(name), of=row.of) for name, row in pl_module.rows.items()]
        log_energies(trainer, rows, arrays, self.measures[0].tau_split, "val")
