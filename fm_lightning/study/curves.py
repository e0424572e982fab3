"""The curves of one run over its training steps, as the validations left them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fm_lightning.study.axes import Values

Floats = NDArray[np.float64]
F_MEM = "f_mem"
DISTANCES = ("quality_frechet", "quality_kernel")  # unbiased, in the order of preference
SERIES = {  # name here -> logged name
    **{name: f"val/base/{name}" for name in ("f_mem", "f_mem_lo", "f_mem_hi")},
    **{f"{d}{end}": f"val/base/{d}{end}" for d in DISTANCES for end in ("", "_lo", "_hi")},
    "kpe": "val/base/kpe_mean",
    "kpe_std": "val/base/kpe_std",
    "kpe_early": "val/base/kpe_early_mean",
    "kpe_late": "val/base/kpe_late_mean",
    "loss_train": "val/loss_train",
    "loss_held_out": "val/loss_held_out",
    "loss_gap": "val/loss_gap",
    "loss_gap_lo": "val/loss_gap_lo",
    "loss_gap_hi": "val/loss_gap_hi",
}


@dataclass(frozen=True)
class Curve:
    """A run's numbers at its validations.

    Attributes:
        name: of the run.
        values: its place in the study, axis -> value.
        steps: ``[k]`` optimizer steps done, ascending, at least 1.
        series: name -> ``[k]``, NaN where it was not measured.
    """

    name: str
    values: Values
    steps: Floats
    series: Mapping[str, Floats] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, values: Values, logged: Mapping[str, Sequence[tuple[int, float]]], last: int
    ) -> Curve | None:
        """The curves in a run's ``metrics.csv``; None without validations of copies.

        Args:
            name, values: as above.
            logged: name -> (step, value), steps counted from 0.
            last: the run's last step: what was logged later belongs to a training that was moved aside.
        """
        known = {key: dict(logged[full]) for key, full in SERIES.items() if full in logged}
        steps = sorted({step for step in known.get(F_MEM, {}) if step < max(last, 1)})
        if not steps:
            return None
        series = {key: np.array([found.get(step, np.nan) for step in steps]) for key, found in known.items()}
        return cls(name, values, np.array(steps, dtype=np.float64) + 1, series)

    def get(self, name: str) -> Floats:
        """A series; NaN where it is missing."""
        return self.series.get(name, np.full(len(self.steps), np.nan))

    @property
    def distance(self) -> str | None:
        """The unbiased distance that was measured at every validation."""
        return next((name for name in DISTANCES if np.isfinite(self.get(name)).all()), None)
