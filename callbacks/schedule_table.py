"""ScheduleTable: a comparison as a table on disk that survives a kill and grows; then its results and report."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_only

from fm_lightning.callbacks.kpe_distribution import KPEDistribution
from fm_lightning.callbacks.memorization_monitor import MemorizationMonitor
from fm_lightning.callbacks.monitor import Monitor, monitors
from fm_lightning.callbacks.validation_table import ValidationTable
from fm_lightning.callbacks.wandb_media import log_comparison
from fm_lightning.comparison.build import build
from fm_lightning.comparison.collect import Collector
from fm_lightning.comparison.judging import NEIGHBOURS, calibration_rows, choose, family_rows, judged, judged_facts
from fm_lightning.comparison.measuring import joined, kept_samples, measured
from fm_lightning.comparison.rows import BASE, Row
from fm_lightning.data.base import FlowData
from fm_lightning.data.batches import SeedBatch, seed_batch
from fm_lightning.data.samples import CALIBRATION_SEED, TEST_SEED
from fm_lightning.errors import OldError, UserError
from fm_lightning.report.build import save
from fm_lightning.report.pictures import read_pictures, write_pictures
from fm_lightning.table.blocks import Block, missing
from fm_lightning.table.columns import read_columns
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.manifest import Manifest
from fm_lightning.table.parts import Part
from fm_lightning.table.writer import BaseSamples, Writer
from fm_lightning.training.facts import run_facts
from fm_lightning.trajectory import Trajectory
from fm_lightning.verdicts.doses import CALIBRATION_SEEDS
from fm_lightning.verdicts.margins import Margins

if TYPE_CHECKING:
    from fm_lightning.training.module import FlowMatching

KEEP = ("all", "base", "none")
M = TypeVar("M", bound=Monitor)


class ScheduleTable(ValidationTable):
    """Keeps what a comparison samples and measures in ``evaluation/`` (see ``Evaluation``), block by block.

    The same command goes on after a kill, on any number of processes; with more schedules, more seeds or another monitor it
    samples only what is missing. In the end it writes ``results.json``, ``results.csv`` and ``report.html`` into the run's
    directory, logs ``test/{row}/{number}`` and, to W&B, what ``log_comparison`` says.

    In validation it does what a ``ValidationTable`` does.

    Args:
        samples: which samples to keep, so that another monitor can be added without sampling again: of all rows, of base
            alone, or none.
        gigabytes: where all samples would take more than this, only base's are kept.
        families: trivial manipulations to judge schedules against: those that cost little beside base, all (as ``fm-lightning
            falsify``), or none.
        margin_copies: the smallest change of F_mem that matters, as a share; 0.01 is one point. At most a tenth of base's.
        margin_quality: the smallest change of the distance that matters, as a share of base's; but no less than two standard
            errors of the distance of as many held-out real samples.

    Raises:
        UserError: an unknown ``samples``; at test, a directory that holds another evaluation, or that another command writes.
    """

    def __init__(
        self,
        samples: str = "all",
        gigabytes: float = 4.0,
        families: Literal["none", "cheap", "all"] = "cheap",
        margin_copies: float = Margins.memorized,
        margin_quality: float = Margins.quality,
    ) -> None:
        self.families, self.margins = families, Margins(memorized=margin_copies, quality=margin_quality)
        if samples not in KEEP:
            raise OldError(f"samples={samples!r} given", f"one of {', '.join(KEEP)}", "type samples: all")
        self.samples, self.gigabytes = samples, gigabytes
        self.writer: Writer | None = None
        self.rounds = 0

    # A comparison: what to sample

    def seed_batches(self, trainer: Any, data: FlowData) -> Iterator[SeedBatch]:
        """The batches of this process, asked for when weights and data are in place; collective.

        Two rounds: calibration seeds, where verdicts need doses, and the comparison itself.
        """
        module: FlowMatching = trainer.lightning_module
        self._began = time.time()
        self._monitors = monitors(trainer)
        self._measures = {m.name: m for m in self._monitors if m.fingerprint}
        self._check_names()
        kpe = next((m for m in self._monitors if isinstance(m, KPEDistribution)), KPEDistribution())
        self.writer = Writer(trainer.default_root_dir, kpe.tau_split)
        self._evaluation = _first_says(trainer, lambda: self._open(module))
        rows = module.plan.comparison(data, module.device)
        asked = (
            judged(rows, module.plan.judge, self.families)
            if NEIGHBOURS in self._measures and self.families != "none"
            else []
        )
        chosen = self._evaluation.manifest.chosen
        calibration = calibration_rows(asked, chosen)
        if calibration:
            seeds = range(CALIBRATION_SEED, CALIBRATION_SEED + CALIBRATION_SEEDS)
            yield from self._round(trainer, rows | calibration, list(calibration), seeds, data, (NEIGHBOURS,))
            # The loader is asked one batch ahead: when it is asked for the next one, all before this one are written.
            self.rounds += 1
            yield seed_batch(0, 0, 1)
            self._evaluation = self._finished(trainer)
            threshold = self._monitor(MemorizationMonitor).threshold
            new = choose(self._evaluation, asked, seeds, threshold, data.test_seeds, chosen, self.margins)
            chosen |= {k: chosen.get(k, {}) | families for k, families in new.items()}
        family = family_rows(asked, chosen, own=self.families == "all")
        manifest = self._evaluation.manifest
        manifest.chosen, manifest.judged = chosen, judged_facts(asked, chosen)
        seeds = range(TEST_SEED, TEST_SEED + data.test_seeds)
        rows = rows | family
        yield from self._round(trainer, rows, list(rows), seeds, data, tuple(self._measures))

    def _monitor(self, kind: type[M]) -> M:
        return next(m for m in self._monitors if isinstance(m, kind))

    def _round(
        self,
        trainer: Any,
        rows: dict[str, Row],
        names: Sequence[str],
        seeds: range,
        data: FlowData,
        measures: tuple[str, ...],
    ) -> Iterator[SeedBatch]:
        """The batches of this process for some rows over some seeds; at least one, without which the loop would skip its end."""
        module: FlowMatching = trainer.lightning_module
        module.rows = rows
        self._keys = {name: row.key for name, row in rows.items()}
        asked = {name: self._keys[name] for name in names}
        found = _first_says(trainer, lambda: self._plan(module, asked, seeds, data.eval_batch_size, measures))
        blocks, self._evaluation.manifest = found
        rank, world = trainer.global_rank, trainer.world_size
        size = min(data.eval_batch_size, len(seeds))
        self.rounds += max(1, -(-len(blocks) // world))
        limit, needed = trainer.limit_test_batches, self.rounds + 2  # an empty batch parts the rounds
        if seeds.start >= CALIBRATION_SEED and isinstance(limit, int) and limit < needed:
            raise OldError(
                f"limit_test_batches={limit} given, which ends while doses are being chosen",
                f"at least {needed}",
                f"type limit_test_batches: {needed}",
            )
        for begin in range(0, len(blocks), world):
            block = blocks[begin + rank] if begin + rank < len(blocks) else None
            yield seed_batch(block.first if block else 0, block.size if block else 0, size, block)
        if not blocks:
            yield seed_batch(0, 0, size)

    def _check_names(self) -> None:
        names = [m.name for m in self._monitors]
        for name in names:
            if names.count(name) > 1:
                raise OldError(f"two monitors of {name!r} given", "one", "leave the other out")

    def _open(self, module: FlowMatching) -> Evaluation:
        assert self.writer is not None
        self.writer.claim()
        return self.writer.open(module.identity(), say)

    def _plan(
        self, module: FlowMatching, asked: dict[str, str], seeds: range, size: int, measures: tuple[str, ...]
    ) -> tuple[list[Block], Manifest]:
        """What is missing, and the manifest, which it writes. On process 0: others might see an older directory."""
        assert self.writer is not None
        manifest = self._evaluation.manifest
        manifest.rows = {name: {"key": self._keys[name], **row.facts(name)} for name, row in module.rows.items()}
        manifest.definitions |= {self._keys[name]: row.definition for name, row in module.rows.items()}
        manifest.measures = {name: m.fingerprint for name, m in self._measures.items()}
        calibrates = seeds.start >= CALIBRATION_SEED
        if not calibrates:
            manifest.seeds = (seeds.start, len(seeds))
        manifest.write(self.writer.folder / "manifest.json")
        folder = self.writer.folder / "measures"
        folder.mkdir(exist_ok=True)
        for monitor in self._measures.values():
            monitor.remember(folder)
        wanted = [f"{name}-{manifest.measures[name]}" for name in measures]
        blocks = missing(self._evaluation.parts, asked, seeds, size, wanted)
        total = len(set(asked.values())) * len(seeds)
        there = total - sum(block.size * len(block.rows) for block in blocks if block.part is None)
        again = sum(block.part is not None for block in blocks)
        elsewhere = f" of {module.weights}, which was not trained here," if module.weights else ""
        said = f"; {there:,} of {total:,} samples are there already" if there else ""
        said += f"; measuring kept samples of {again:,} blocks" if again else ""
        if calibrates:
            say(f"Choosing doses: {len(asked)} rows on {len(seeds):,} calibration seeds{said}")
        else:
            say(f"Comparing {len(asked)} rows{elsewhere} on {len(seeds):,} seeds that training never used{said}")
        return blocks, manifest

    def _kept(self, block: Block, trajectories: dict[str, Trajectory]) -> list[str]:
        rows = block.rows if block.first < CALIBRATION_SEED else ()
        base = [name for name in rows if name == BASE]
        if self.samples != "all":
            return base if self.samples == "base" else []
        size = next((t.x1[0].numel() * 4 for t in trajectories.values() if len(t)), 0)
        total = size * len(set(self._keys.values())) * len(self._evaluation.seeds)
        return list(rows) if total <= self.gigabytes * 2**30 else base

    # A comparison: what was sampled

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *args: Any, **kwargs: Any
    ) -> None:
        if self.writer is None:
            return
        block: Block | None = batch.work
        part = block.part if block else None
        measures: dict[str, dict[str, dict[str, np.ndarray]]] = {}
        for name, monitor in self._measures.items():
            full = f"{name}-{self._evaluation.manifest.measures[name]}"
            wanted = block is not None and full in block.measures and not (part is not None and part.has(full))
            if wanted:
                assert block is not None
                given = kept_samples(part, pl_module.device) if part else ((row, outputs[row]) for row in block.rows)
                measures[full] = measured(monitor, given, pl_module.data.shape, pl_module.device)
            elif monitor.collective:
                # The others have samples, and search with this process's help.
                measured(monitor, (), pl_module.data.shape, pl_module.device)
        if part is not None:
            self.writer.add(part, {full: joined(list(found.values())) for full, found in measures.items()})
        elif block is not None:
            kept = self._kept(block, outputs)
            self.writer.write(block, self._keys, outputs, self._base(block, outputs), kept, measures)

    def _base(self, block: Block, outputs: dict[str, Trajectory]) -> BaseSamples | None:
        if block.first >= CALIBRATION_SEED:
            return None
        if BASE in outputs:
            t = outputs[BASE]
            assert t.seeds is not None
            return BaseSamples(t.seeds.cpu().numpy(), t.x1.float().cpu().numpy())
        seeds = range(block.first, block.last + 1)
        kept = self._evaluation.samples(BASE, seeds)
        return None if kept is None else BaseSamples(self._evaluation.lines(BASE, seeds).seed.to_numpy(), kept)

    # A comparison: what follows

    def on_test_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.writer is None:
            return
        evaluation = self._finished(trainer)
        self._evaluation = evaluation
        evaluation.manifest.about = self._about(trainer, pl_module)
        self._collector = Collector(evaluation, self._monitors)
        names, rank, world = list(evaluation.shown), trainer.global_rank, trainer.world_size
        # Each process solves the eigenproblems of some rows.
        shares = _gathered(self._collector.rows(names[rank::world]), world)
        found = {row["name"]: row for share in shares for row in share}
        self._rows = [found[name] for name in names]
        for row in self._rows:
            numbers = {f"test/{row['name']}/{k}": v for k, v in row["metrics"].items() if v is not None}
            pl_module.log_dict(numbers, add_dataloader_idx=False)

    def _about(self, trainer: Any, module: FlowMatching) -> dict[str, Any]:
        about = run_facts(trainer, module.data) | {"duration_s": time.time() - self._began, "seed": module.base_seed}
        about["weights"] = module.weights  # where they come from, if they were not trained here
        if not module.data.has_training_data:
            about["left_out"] = "memorization, its verdicts and the floors: the training data are not at hand"
        for monitor in reversed(self._monitors):  # of two distances the first is the quality
            about |= monitor.facts()
        return about | {"margins": asdict(self.margins)}

    def _finished(self, trainer: Any) -> Evaluation:
        """The evaluation with what all processes have written, opened by name: a directory's listing may lag behind."""
        assert self.writer is not None
        names = _gathered(self.writer.written, trainer.world_size)
        old = self._evaluation
        there = {part.path.name for part in old.parts}
        new = [Part(self.writer.folder / "parts" / n) for n in sorted({n for some in names for n in some} - there)]
        return Evaluation(old.folder, old.manifest, [*old.parts, *new])

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        if self.writer is None:
            return
        if trainer.is_global_zero:
            self._save(trainer, pl_module)
            self.writer.release()
        self.writer = None

    def _save(self, trainer: Any, module: FlowMatching) -> None:
        assert self.writer is not None
        evaluation = self._evaluation
        evaluation.manifest.write(self.writer.folder / "manifest.json")
        for monitor in self._monitors:
            base = read_columns(evaluation, BASE, monitor.name)
            if base and (pictures := monitor.pictures(module, base)):
                write_pictures(self.writer.folder, "training", pictures)
        results = build(evaluation, self._rows)
        arrays = self._collector.arrays() | read_pictures(evaluation)
        log_comparison(trainer, results, arrays)
        save(trainer.default_root_dir, results, arrays)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self.writer is not None and trainer.is_global_zero:
            self.writer.release()
        self.writer = None


def _gathered(mine: Any, world: int) -> list[Any]:
    """What every process has."""
    found = [mine] * world
    if world > 1:
        dist.all_gather_object(found, mine)
    return found


def _first_says(trainer: Any, call: Any) -> Any:
    """What process 0 finds, on all processes; what it refuses, all refuse."""
    if trainer.world_size == 1:
        return call()
    said: list[Any] = [None, None]
    if trainer.is_global_zero:
        try:
            said = [call(), None]
        except UserError as error:
            said = [None, error]
    dist.broadcast_object_list(said)
    if said[1] is not None:
        raise said[1]
    return said[0]


@rank_zero_only
def say(line: str) -> None:
    """Prints on process 0."""
    print(line, flush=True)
