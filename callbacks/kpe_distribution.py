"""KPEDistribution: kinetic path energy of every trajectory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from lightning import Trainer

from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.callbacks.wandb_media import log_energies
from fm_lightning.comparison.results import RowResult
from fm_lightning.metrics import KineticPathEnergy
from fm_lightning.metrics.energy import mean_power
from fm_lightning.metrics.per_seed import Columns
from fm_lightning.training.tracking import wandb_loggers

if TYPE_CHECKING:
    from fm_lightning.training.module import FlowMatching


class KPEDistribution(Monitor[KineticPathEnergy]):
    """Energies of the samples, in the sample space's unit, squared; floors took no way and are left out.

    Numbers, per schedule: ``kpe_mean``, ``kpe_std``, ``kpe_q05``, ``kpe_q50``, ``kpe_q95``, ``kpe_early_mean``,
    ``kpe_late_mean``, ``excess_mean``, ``displacement_mean`` and ``field_energy_mean``; to W&B also the histogram
    ``{stage}/{schedule}/kpe`` and the figure ``{stage}/energy_profile`` (mean power over time, all schedules).

    Args:
        tau_split: time that separates early from late energy.
    """

    name = "energy"
    floors = False

    def __init__(self, tau_split: float = 0.6) -> None:
        super().__init__()
        self.tau_split = tau_split

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        """Energies need no reference."""

    @property
    def fingerprint(self) -> str:
        return ""  # every line of a comparison has its energies

    def build(self) -> KineticPathEnergy:
        return KineticPathEnergy(self.tau_split)

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        return self.build().summarize(columns)

    def lines(self, metric: KineticPathEnergy) -> Columns:
        assert metric.times is not None
        return {**metric.per_seed(), "times": metric.times}

    def facts(self) -> dict[str, Any]:
        return {"tau_split": self.tau_split}

    def show(self, trainer: Trainer, pl_module: FlowMatching, columns: dict[str, Columns]) -> None:
        if not any(wandb_loggers(trainer)):
            return
        arrays: dict[str, np.ndarray] = {}
        for name, mine in columns.items():
            times = self.metrics[name].times
            assert times is not None
            arrays |= {f"kpe/{name}": mine["kpe"].float().numpy(), f"times/{name}": times.numpy()}
            arrays[f"power/{name}"] = mean_power(mine["energy"], times).numpy()
            arrays[f"gain/{name}"] = pl_module.rows[name].schedule.eta(times[:-1]).numpy()
        rows = [RowResult(name, row.kind, label=row.label(name), of=row.of) for name, row in pl_module.rows.items()]
        log_energies(trainer, rows, arrays, self.tau_split, "val")
