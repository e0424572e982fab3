"""ScheduleTable: keeps a test as a table on disk that survives a kill and grows; then its results and report."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning import Trainer
from torchmetrics import MeanMetric

from fm_lightning.callbacks.monitor import ValidationCallback, monitors
from fm_lightning.callbacks.wandb_media import log_comparison, log_table
from fm_lightning.comparison.calibrate import candidates
from fm_lightning.comparison.collect import Collector
from fm_lightning.comparison.compare import KEEP, ComparisonLoop
from fm_lightning.comparison.families import Which
from fm_lightning.comparison.model_families import NO_FURTHER
from fm_lightning.comparison.other_model import check_places, other_models
from fm_lightning.comparison.results import RowResult
from fm_lightning.comparison.rows import BASE, judged_rows
from fm_lightning.data.batches import SeedBatch
from fm_lightning.errors import UserError
from fm_lightning.flow.velocity import guidable
from fm_lightning.report.loss_over_time import read_loss_over_time
from fm_lightning.report.page import save
from fm_lightning.table.columns import read_columns
from fm_lightning.table.pictures import read_pictures, write_pictures
from fm_lightning.training.module import FlowMatching
from fm_lightning.training.tracking import log_results, wandb_loggers
from fm_lightning.training.trainer import run_facts
from fm_lightning.trajectory import Trajectory
from fm_lightning.verdicts.margins import Margins


class ScheduleTable(ValidationCallback):
    """Keeps what a comparison samples and measures in ``evaluation/`` (see ``Evaluation``), block by block.

    The same command resumes after a kill, on any number of processes; with more schedules, more seeds or another monitor it
    samples only what is missing. In the end it writes ``results.json``, ``results.csv`` and ``report.html`` into the run's
    directory, logs ``test/{row}/{number}`` and, to W&B, what ``log_comparison`` says.

    In validation it logs ``val/{row}/rms_to_base``, the root mean square distance per dimension to the base samples of the same
    seeds in the unit of the sample space, and to W&B a table of all rows with the monitors' numbers.

    Args:
        samples: which samples to keep, so that another monitor can be added without sampling again: of all rows, of base
            alone, or none.
        gigabytes: where all samples would take more than this, only base's are kept.
        families: trivial manipulations to judge schedules against: those that cost little compared with base, all (as
            ``fm-lightning falsify``), none, or a list of names, in which "cheap" stands for all cheap ones. "earlier
            checkpoint" and "average" need files that training kept (``CheckpointSeries``, ``PowerAverages``).
        other_models: run directories or checkpoints of other networks, at least two, from the most to the least trained: the
            family "other model" (see ``other_models``).
        margin_copies: the smallest change of F_mem that matters, as a share; 0.01 is one point. At most a tenth of base's.
        margin_quality: the smallest change of the distance that matters, as a share of the baseline's; at least two standard
            errors of the real images, see ``verdicts.margins.resolution``.

    Raises:
        UserError: an unknown ``samples``; at test, a directory that holds another evaluation, or that another command writes.
    """

    def __init__(
        self,
        samples: str = "all",
        gigabytes: float = 4.0,
        families: Literal["none", "cheap", "all"] | list[str] = "cheap",
        margin_copies: float = Margins.memorized,
        margin_quality: float = Margins.quality,
        other_models: list[str] | None = None,
    ) -> None:
        if other_models:
            check_places(other_models)  # now, not after the training
        self.other_models = other_models
        self.families, self.margins = families, Margins(memorized=margin_copies, quality=margin_quality)
        if samples not in KEEP:
            raise UserError(f"samples={samples!r} is not known.", f"Use one of {', '.join(KEEP)}.")
        self.samples, self.gigabytes = samples, gigabytes
        self.loop: ComparisonLoop | None = None

    # Validation

    def begin(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        # Trajectories are finite; to ask again would wait for the device at every row.
        self._squares = {
            name: MeanMetric(nan_strategy="disable").to(pl_module.device) for name in pl_module.rows if name != BASE
        }
        self._nfe: dict[str, int] = {}

    def update(self, trainer: Trainer, pl_module: FlowMatching, batch: dict[str, Trajectory]) -> None:
        self._nfe = {name: trajectory.nfe for name, trajectory in batch.items()}
        for name, metric in self._squares.items():
            square = (batch[name].x1 - batch[BASE].x1).square().flatten(1).mean(1)
            metric.update(square, torch.ones_like(square))

    def finish(self, trainer: Trainer, pl_module: FlowMatching) -> None:
        self._rms = {name: float(metric.compute().sqrt()) for name, metric in self._squares.items()}
        pl_module.log_dict({f"val/{n}/rms_to_base": v for n, v in self._rms.items()}, add_dataloader_idx=False)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.sanity_checking or not any(wandb_loggers(trainer)):
            return
        rows = []
        for name, row in pl_module.rows.items():
            numbers = {k: v for m in monitors(trainer) for k, v in m.values.get(name, {}).items()}
            numbers |= {"rms_to_base": self._rms[name]} if name in self._rms else {}
            nfe = self._nfe.get(name, 0)
            rows.append(RowResult(name, row.kind, label=row.label(name), of=row.of, nfe=nfe, metrics=numbers))
        log_table(trainer, rows, "val")

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and not isinstance(self.families, str):  # a comparison after the training would refuse these
            plan, further = pl_module.plan, NO_FURTHER._replace(guidable=guidable(pl_module.net))
            candidates(judged_rows(plan.test, plan.judge), plan.judge, self.families, further)

    # A comparison

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self.loop = pl_module.open_comparison(
            trainer.default_root_dir,
            [measure for monitor in monitors(trainer) for measure in monitor.measures],
            families=self._which(),
            margins=self.margins,
            keep=self.samples,
            gigabytes=self.gigabytes,
        )

    def _which(self) -> Which:
        if not self.other_models or self.families == "none":
            return self.families
        listed = [self.families] if isinstance(self.families, str) else self.families
        return [*listed, other_models(self.other_models)]

    def on_test_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        def step(batch: SeedBatch) -> None:
            assert self.loop is not None
            trainer.strategy.test_step(batch, 0)  # in its precision, and through its wrappers, as Lightning's own loop
            self.loop.record()

        assert self.loop is not None
        self.loop.choose(step)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        assert self.loop is not None
        self.loop.record()  # here, and not in the step: measures have a precision of their own

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        assert self.loop is not None
        self.results = self.loop.finish(run_facts(trainer, pl_module.data))
        for row in self.results.rows:
            numbers = {f"test/{row.name}/{k}": v for k, v in row.metrics.items() if v is not None}
            log_results(trainer, pl_module, numbers)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        assert self.loop is not None
        if trainer.is_global_zero:
            self._save(trainer, pl_module, self.loop)
        self._close()

    def _save(self, trainer: Any, pl_module: Any, loop: ComparisonLoop) -> None:
        for monitor, name in [(m, measure.name) for m in monitors(trainer) for measure in m.measures]:
            base = read_columns(loop.table, BASE, name)
            if base and (pictures := monitor.pictures(pl_module, base)):
                write_pictures(loop.table.folder, "training", pictures)
        arrays = Collector(loop.table, loop.measures).arrays() | read_pictures(loop.table)
        arrays |= read_loss_over_time(trainer.default_root_dir)
        log_comparison(trainer, self.results, arrays)
        save(trainer.default_root_dir, self.results, arrays)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.loop is not None:
            self.loop.close()
        self.loop = None
