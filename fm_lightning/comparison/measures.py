"""What a comparison asks of a measure: columns for its table, and numbers from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fm_lightning.metrics import Change
from fm_lightning.table.columns import Columns
from fm_lightning.trajectory import Trajectory
from fm_lightning.verdicts.residual import Measure as Distance
from fm_lightning.verdicts.residual import Quality


class Measure(Protocol):
    """See ``callbacks.monitor.Monitor``, which is one."""

    floors: bool
    collective: bool

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str | None: ...
    @property
    def fingerprint(self) -> str: ...
    def measure(self, trajectory: Trajectory) -> dict[str, Tensor]: ...
    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]: ...
    def change(self, here: Columns, there: Columns) -> Change | None: ...
    def qualities(self, columns: Columns) -> dict[Distance, Quality]: ...
    def facts(self) -> dict[str, Any]: ...
    def remember(self, folder: Path) -> None: ...
    def recall(self, folder: Path, fingerprint: str) -> None: ...
