"""MemorizationMonitor: which samples are copies of training images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fm_lightning.callbacks.monitor import Monitor, visible
from fm_lightning.errors import OldError
from fm_lightning.metrics import Change, Groups, MemorizationRate, Reference, find_groups, paired_share_change
from fm_lightning.metrics.memorization import copied, copy_shares, escaped_same_nearest, most_copied, ratio
from fm_lightning.metrics.neighbours.sharded import ShardedReference
from fm_lightning.metrics.per_seed import Columns, check_same_seeds
from fm_lightning.trajectory import Trajectory

if TYPE_CHECKING:
    from fm_lightning.data import FlowData
    from fm_lightning.training.module import FlowMatching


class MemorizationMonitor(Monitor[MemorizationRate]):
    """F_mem against exactly the training subset, in the model's own space (see ``MemorizationRate``).

    Numbers, per row: ``f_mem`` with its Wilson interval ``f_mem_lo`` and ``f_mem_hi``, ``f_mem_at_0.1`` ... ``f_mem_at_0.5``,
    ``nn_ratio_median``; except for base and floors also the paired change from base (``f_mem_change``, ``_lo``, ``_hi``)
    and ``escaped_same_nn``: of the copies that base makes and this row does not, the share whose nearest training image
    is still the same.

    Args:
        threshold: a sample is a copy below this ratio of the two nearest distances.
        mirrored: count copies of mirrored training images; None: if training mirrors them.
        leave_out_duplicates: count training images as one that lie nearer to each other than this share of the median
            nearest-neighbour distance. Their number is printed and logged as ``near_duplicates``.
        k: above 2, log ``f_mem_k`` and ``nn_ratio_k_median`` with the k-th nearest image instead of the second.
        divided: each process holds a part of the training images, which all of them search together: for those that do not
            fit beside the network.

    Where the training data are not at hand (``has_training_data``) it says so and measures nothing.
    """

    name = "neighbours"
    key = "f_mem"

    def __init__(
        self,
        threshold: float = 1 / 3,
        mirrored: bool | None = None,
        leave_out_duplicates: float | None = None,
        k: int = 2,
        divided: bool = False,
    ) -> None:
        super().__init__()
        if divided and leave_out_duplicates is not None:
            raise OldError(
                f"leave_out_duplicates={leave_out_duplicates:g} given with divided=True",
                "one of the two: near-duplicates are found where one process reads all images",
                "leave one out",
            )
        self.collective = divided
        self.threshold, self.mirrored, self.leave_out_duplicates, self.k = threshold, mirrored, leave_out_duplicates, k
        self._groups: Groups | None = None
        self._metric: MemorizationRate | None = None
        self._left_out = False  # there is nothing to compare with
        self._facts: dict[str, float] = {}  # numbers of the reference, the same in every row

    def prepare(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        data = pl_module.data
        if sum(isinstance(callback, MemorizationMonitor) for callback in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            # Of two numbers by one name Lightning would log the mean, and the table show the last.
            raise OldError("two MemorizationMonitors given", "one", "leave the other out")
        if not data.has_training_data:
            self._left_out = True
            _say("Memorization, its verdicts and the floors are left out: the training data are not at hand")
            return
        self.mirror = data.flip if self.mirrored is None else self.mirrored
        stored, self._views = data.memorization_reference()
        self.reference = self._prepared(stored, trainer, data)
        if self.leave_out_duplicates is not None and self._groups is None:
            assert isinstance(self.reference, Reference)
            self._groups = find_groups(self.reference, self.leave_out_duplicates, mirrored=self.mirror, say=_say)
        self._metric = self._made()  # too few images are refused before training, not at its first validation
        if (near := self._metric.near_duplicates) is not None and self._groups is not None:
            _say(
                f"{near:,} of {self._metric.images:,} training images are near-duplicates of others "
                f"(nearer than {self._groups.distance:.4g}) and count as one with them"
            )
            self._facts["near_duplicates"] = float(near)
        if equal := self._metric.exact_duplicates:
            twins = " or mirror images of others" if self.mirror else ""
            _say(f"{equal:,} of {self._metric.images:,} training images equal others{twins} and count as one with them")
            self._facts["exact_duplicates"] = float(equal)

    def _prepared(self, stored: Any, trainer: Trainer, data: FlowData) -> Reference | ShardedReference:
        """As stored and on the device: 50 000 CIFAR images are 150 MB so, encoded as they are read. Latents stay on disk."""
        device = trainer.strategy.root_device
        if self.collective:
            part = stored[trainer.global_rank :: trainer.world_size].to(device)
            return ShardedReference(part, strided=True, device=device, encode=data.encode)
        stored = stored.to(device) if isinstance(stored, Tensor) else stored
        return Reference(stored, device=device, encode=data.encode)

    def _made(self) -> MemorizationRate:
        return MemorizationRate(self.reference, self.threshold, self.mirror, self._groups, self.k, views=self._views)

    def build(self) -> MemorizationRate:
        return self._made()

    @property
    def fingerprint(self) -> str:
        return self._metric.fingerprint if self._metric else ""

    def begin(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self.metrics = {}
        if self.measures:
            super().begin(trainer, pl_module)

    def measure(self, trajectory: Trajectory) -> dict[str, Tensor]:
        assert self._metric is not None
        return self._metric.measure(trajectory)

    def summarize(self, columns: Columns, base: Columns | None = None) -> dict[str, float]:
        numbers = copy_shares(columns, self.threshold, self.k) | self._facts
        if base is not None:
            numbers["escaped_same_nn"] = escaped_same_nearest(columns, base, self.threshold)
        return self.with_change(numbers, columns, base)

    def change(self, here: Columns, there: Columns) -> Change:
        check_same_seeds(here, there)
        return paired_share_change(copied(here, self.threshold), copied(there, self.threshold))

    @property
    def measures(self) -> bool:
        """Whether there are training data to compare with."""
        return not self._left_out

    def look(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """For samples ``[B, ...]``: the ratio of the two nearest distances, and the index of the nearest image.

        With a ``divided`` reference all processes call it together, with no samples where they have none.
        """
        assert self._metric is not None
        columns = self._metric.measure(x)
        return ratio(columns), columns["nearest"]

    def facts(self) -> dict[str, Any]:
        return {} if self._left_out else {"threshold": self.threshold}

    def pictures(self, pl_module: FlowMatching, base: Columns, count: int = 10) -> dict[str, np.ndarray]:
        data = pl_module.data
        if not data.has_pixels:
            return {"points": visible(pl_module, data.reference())} if len(data.shape) == 1 else {}
        index, counts = most_copied(base, self.threshold, count)
        return {"images": visible(pl_module, data.reference(index)), "counts": counts.numpy()}

    def remember(self, folder: Path) -> None:
        (folder / f"{self.name}-{self.fingerprint}.json").write_text(json.dumps(self._facts))

    def recall(self, folder: Path, fingerprint: str) -> None:
        file = folder / f"{self.name}-{fingerprint}.json"
        self._facts = json.loads(file.read_text()) if file.exists() else {}


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)
