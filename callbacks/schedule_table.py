"""ScheduleTable: keeps a test as a table on disk that survives a kill and grows; then its results and report."""

from __future__ import annotations

from typing import Any, Literal

from fm_lightning.callbacks.monitor import monitors, prepared_measures
from fm_lightning.callbacks.validation_table import ValidationTable
from fm_lightning.callbacks.wandb_media import log_comparison
from fm_lightning.comparison.collect import Collector
from fm_lightning.comparison.compare import KEEP, ComparisonLoop
from fm_lightning.comparison.families import Which
from fm_lightning.comparison.other_model import check_places, other_models
from fm_lightning.comparison.rows import BASE
from fm_lightning.data.batches import SeedBatch
from fm_lightning.errors import UserError
from fm_lightning.report.loss_over_time import read_loss_over_time
from fm_lightning.report.save import save
from fm_lightning.table.columns import read_columns
from fm_lightning.table.pictures import read_pictures, write_pictures
from fm_lightning.training.tracking import log_results
from fm_lightning.training.trainer import run_facts
from fm_lightning.verdicts.margins import Margins


class ScheduleTable(ValidationTable):
    """Keeps what a comparison samples and measures in ``evaluation/`` (see ``Evaluation``), block by block.

    The same command resumes after a kill, on any number of processes; with more schedules, more seeds or another monitor it
    samples only what is missing. In the end it writes ``results.json``, ``results.csv`` and ``report.html`` into the run's
    directory, logs ``test/{row}/{number}`` and, to W&B, what ``log_comparison`` says.

    In validation it does what a ``ValidationTable`` does.

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

    # A comparison

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self.loop = pl_module.open_comparison(
            trainer.default_root_dir,
            prepared_measures(trainer),
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
