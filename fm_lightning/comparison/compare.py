"""ComparisonLoop: a comparison as a table on disk that survives a kill and grows.

    loop = ComparisonLoop(folder, model, rows, measures, ...)
    loop.open()                                          # what the lines depend on, what is there, who writes
    for batch in calibration_seeds: loop.step(batch)     # samples what is missing, measures it, writes it
    loop.choose()                                        # the families' doses, on seeds of their own
    for batch in comparison_seeds: loop.step(batch)
    results = loop.finish()                              # numbers and verdicts
    loop.close()

Every process calls these methods, each equally often; process 0 decides what is missing, and all learn it from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fm_lightning.comparison.build import build
from fm_lightning.comparison.calibrate import Which, calibration_rows, candidate_facts, candidates, choose, family_rows
from fm_lightning.comparison.collect import Collector
from fm_lightning.comparison.identity import Probes
from fm_lightning.comparison.judge import NEIGHBOURS
from fm_lightning.comparison.measurement import concatenated, kept_samples, measure_rows, measure_together
from fm_lightning.comparison.model_families import NO_FURTHER, ModelFamilies
from fm_lightning.comparison.processes import all_results, first_process_result, print_once, process
from fm_lightning.comparison.results import Results
from fm_lightning.comparison.rows import BASE, Row, StoredVelocity
from fm_lightning.comparison.sampling import Model
from fm_lightning.data.batches import SeedBatch, seed_batch
from fm_lightning.data.samples import CALIBRATION_SEED, CALIBRATION_SEEDS, TEST_SEED
from fm_lightning.errors import UserError
from fm_lightning.metrics.measure import Measure
from fm_lightning.metrics.memorization import THRESHOLD
from fm_lightning.table.blocks import Block, missing
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.parts import Part
from fm_lightning.table.writer import BaseSamples, Writer
from fm_lightning.trajectory import Trajectory
from fm_lightning.verdicts.margins import Margins

KEEP = ("all", "base", "none")


class ComparisonLoop:
    """Samples rows from the same seeds, measures them, and judges schedules.

    Args:
        folder: the run's directory; the table lies in its ``evaluation/``.
        model: what is sampled.
        rows: name -> row, base first; rows of families are added.
        measures: of the samples; each has a name of its own.
        identity: says what every line depends on besides its row and seed; called on process 0, with what names a velocity
            field by its values.
        seeds: samples per row.
        batch_size: seeds of a batch, on each process.
        judge: names of the schedules to judge.
        families: to judge them against, see ``candidates``.
        further: families of this model, in addition to those of any sampler.
        margins: the smallest effects that matter.
        keep: whose samples to keep: of "all" rows, of "base", or "none". With kept samples another measure can be added
            without sampling again.
        gigabytes: where the samples of all rows would take more than this, only those of base are kept.
        source: where the weights come from, if they were not trained here.

    Attributes:
        rows: name -> row of the current plan; with the rows of families after ``choose``.
        table: what is on disk, as last read.
    """

    def __init__(
        self,
        folder: str | Path,
        model: Model,
        rows: Mapping[str, Row],
        measures: Sequence[Measure],
        identity: Callable[[Probes], Mapping[str, Any]],
        *,
        seeds: int,
        batch_size: int,
        judge: Sequence[str] = (),
        families: Which = "cheap",
        further: ModelFamilies = NO_FURTHER,
        margins: Margins | None = None,
        keep: str = "all",
        gigabytes: float = 4.0,
        source: str | None = None,
    ) -> None:
        for name, value in {"seeds": seeds, "batch_size": batch_size}.items():
            if value < 1:
                raise UserError(f"{name}={value} is too few.", f"Pass at least {name}=1.")
        if keep not in KEEP:
            raise UserError(f"samples={keep!r} is not known.", f"Use one of {', '.join(KEEP)}.")
        self.folder, self.model, self.measures = Path(folder), model, list(measures)
        self.rows: dict[str, Row] = dict(rows)
        self._identity, self._batch_size, self._source = identity, batch_size, source
        self._seeds = range(TEST_SEED, TEST_SEED + seeds)
        self._calibration = range(CALIBRATION_SEED, CALIBRATION_SEED + CALIBRATION_SEEDS)
        self._judge, self._families, self._margins = judge, families, margins or Margins()
        self._further = further
        self._keep, self._gigabytes = keep, gigabytes
        self._fingerprints = {m.name: m.fingerprint for m in self.measures if m.fingerprint}
        self._kept_measures = {m.name: m for m in self.measures if m.name in self._fingerprints}
        self._facts: dict[str, Any] = {}
        for measure in reversed(self.measures):  # of two distances the first is the quality
            self._facts |= measure.facts()
        for name in (names := [m.name for m in self.measures]):
            if names.count(name) > 1:
                raise UserError(f"Two measures are called {name!r}.", "Leave one of them out.")
        self._began, self._claimed = time.time(), False

    # The five steps

    def open(self) -> None:
        """Claims the folder, agrees on what the lines depend on, and plans the calibration.

        Raises:
            UserError: the folder holds another comparison, or another process writes there.
        """
        self._writer = Writer(self.folder, self._facts.get("tau_split", 0.6))
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        self.table, contents = first_process_result(self._enter)
        for name, content in contents.items():
            self.rows[name] = replace(self.rows[name], content=content)
        which = self._families if NEIGHBOURS in self._kept_measures else "none"
        self._candidates = candidates(self.rows, self._judge, which, self._further.families)
        self._untested = {
            name: reason
            for name, reason in self._further.missing.items()
            if self._candidates and (which == "all" or name in which)
        }
        for name, reason in self._untested.items():
            print_once(f"Not tested: {name}, because {reason}")
        calibration = calibration_rows(self._candidates, self.table.manifest.chosen)
        self.calibrates = bool(calibration)
        self._comparison_rows, self.rows = self.rows, self.rows | calibration
        self._plan(calibration, self._calibration, [NEIGHBOURS])

    def step(self, batch: SeedBatch) -> None:
        """Samples what the table lacks of a batch of seeds, measures it and writes it."""
        self.sample(batch)
        self.record()

    def sample(self, batch: SeedBatch) -> dict[str, Trajectory]:
        """The first half of ``step``: samples what the table lacks of a batch of seeds, and returns it."""
        # A block belongs to the batch that holds its first seed.
        self._now = self._blocks.pop(int(batch.seeds[0]), []) if batch.valid else []
        fresh = [block for block in self._now if block.part is None]
        self.model.announce([self._rows_of(block) for block in fresh], len(batch.seeds))
        self._sampled = {block: self._sample(block, len(batch.seeds)) for block in fresh}
        return _merged(self._sampled.values())

    def record(self) -> None:
        """The second half of ``step``: measures and writes what was sampled, and measures what was kept."""
        blocks, sampled = self._now, self._sampled
        self._now, self._sampled = [], {}
        measured = self._measure(blocks, sampled)
        base = [trajectories[BASE] for trajectories in sampled.values() if BASE in trajectories]
        for block, columns in zip(blocks, measured):
            if block.part is not None:
                self._writer.add(block.part, {m: concatenated(list(rows.values())) for m, rows in columns.items()})
            else:
                mine = sampled[block]
                self._writer.write(block, self._keys, mine, self._base(block, base), self._kept(block, mine), columns)

    def choose(self) -> None:
        """Chooses the families' doses from the calibration seeds, and plans the comparison."""
        if self.calibrates:
            self.table = self._read()
        manifest = self.table.manifest

        def chosen() -> dict[str, Any]:
            return choose(
                self.table,
                self._candidates,
                self._calibration,
                self._facts.get("threshold", THRESHOLD),
                len(self._seeds),
                manifest.chosen,
                self._margins,
            )

        manifest.chosen = first_process_result(chosen)
        manifest.judged = candidate_facts(self._candidates, manifest.chosen)
        self.rows = self._comparison_rows | family_rows(self._candidates, manifest.chosen, self._families == "all")
        self._plan(self.rows, self._seeds, list(self._kept_measures))

    def finish(self, about: Mapping[str, Any] | None = None) -> Results:
        """The results of what is there: each row's numbers, and the verdicts.

        Args:
            about: what the results say of the run besides: hardware, versions, ...
        """
        self.table = self._read()
        duration = {"duration_s": time.time() - self._began, "seed": self.model.base_seed, "weights": self._source}
        self.table.manifest.about = {**(about or {}), **duration, **self._facts, "margins": asdict(self._margins)}
        self.table.manifest.about["untested"] = self._untested
        rank, world = process()
        names = list(self.table.shown)
        # Each process solves the eigenproblems of some rows.
        shares = all_results(Collector(self.table, self.measures).rows(names[rank::world]))
        found = {row["name"]: row for share in shares for row in share}

        def results() -> Results:
            self._write_manifest()
            return build(self.table, [found[name] for name in names])

        return first_process_result(results)

    def close(self) -> None:
        """Lets other commands write; also after a failure."""
        if self._claimed:
            self._writer.release()
        self._claimed = False

    # What is missing

    def _enter(self) -> tuple[Evaluation, dict[str, str]]:
        """What is there, and the names of the other fields' values; on process 0."""
        self._writer.claim()
        self._claimed = True
        probes = Probes(self._writer.folder, self.model)
        contents = {}
        for name, row in self.rows.items():
            if row.velocity is not None and not isinstance(row.velocity, StoredVelocity):
                contents[name] = f"{row.content}~{probes.name(row.velocity)}"
        table = self._writer.open(self._identity(probes), print_once)
        probes.keep()
        return table, contents

    def _plan(self, rows: Mapping[str, Row], seeds: range, measures: Sequence[str]) -> None:
        """Finds the blocks that complete some rows: once, for all processes and batches."""
        self._blocks: dict[int, list[Block]] = {}
        self._together: set[str] = set()
        if not rows:
            return
        self._keys = {name: row.key for name, row in self.rows.items()}
        names = {name: self._keys[name] for name in rows}

        def find() -> tuple[list[Block], Any]:
            self._describe(seeds)
            wanted = [f"{name}-{self._fingerprints[name]}" for name in measures]
            blocks = missing(self.table.parts, names, seeds, self._batch_size, wanted)
            self._announce(names, seeds, blocks)
            return blocks, self.table.manifest

        blocks, self.table.manifest = first_process_result(find)
        for block in blocks:
            first = block.first - (block.first - seeds.start) % self._batch_size
            self._blocks.setdefault(first, []).append(block)
        # Where any process has something to measure, all take part in every batch.
        self._together = {n for n in measures if blocks and self._kept_measures[n].collective}

    def _describe(self, seeds: range) -> None:
        manifest = self.table.manifest
        manifest.rows = {name: {"key": self._keys[name], **row.facts(name)} for name, row in self.rows.items()}
        manifest.definitions |= {self._keys[name]: row.definition for name, row in self.rows.items()}
        manifest.measures = dict(self._fingerprints)
        if seeds == self._seeds:
            manifest.seeds = (seeds.start, len(seeds))
        self._write_manifest()
        folder = self._writer.folder / "measures"
        folder.mkdir(exist_ok=True)
        for measure in self._kept_measures.values():
            measure.remember(folder)

    def _write_manifest(self) -> None:
        self.table.manifest.write(self._writer.folder / "manifest.json")

    def _announce(self, names: Mapping[str, str], seeds: range, blocks: Sequence[Block]) -> None:
        total = len(set(names.values())) * len(seeds)
        there = total - sum(block.size * len(block.rows) for block in blocks if block.part is None)
        again = sum(block.part is not None for block in blocks)
        elsewhere = f" of {self._source}, which was not trained here," if self._source else ""
        known = f"; {there:,} of {total:,} samples are there already" if there else ""
        known += f"; measuring kept samples of {again:,} blocks" if again else ""
        if seeds == self._seeds:
            print_once(
                f"Comparing {len(names)} rows{elsewhere} on {len(seeds):,} seeds that training never used{known}"
            )
        else:
            print_once(f"Choosing doses: {len(names)} rows on {len(seeds):,} calibration seeds{known}")

    def _read(self) -> Evaluation:
        """The table with what all processes have written, opened by name: a directory's listing may lag behind."""
        old, names = self.table, {name for some in all_results(self._writer.written) for name in some}
        new = [Part(self._writer.folder / "parts" / n) for n in sorted(names - {p.path.name for p in old.parts})]
        return Evaluation(old.folder, old.manifest, [*old.parts, *new])

    # One batch

    def _rows_of(self, block: Block) -> dict[str, Row]:
        return {name: self.rows[name] for name in block.rows}

    def _sample(self, block: Block, size: int) -> dict[str, Trajectory]:
        # Padded to full size, so that the values are those of an undisturbed comparison.
        seeds = seed_batch(block.first, block.size, size).seeds
        return self.model.sample(self._rows_of(block), seeds, block.size)

    def _measure(
        self, blocks: Sequence[Block], sampled: Mapping[Block, dict[str, Trajectory]]
    ) -> list[dict[str, dict[str, dict[str, np.ndarray]]]]:
        """For each block: ``NAME-FINGERPRINT`` -> row -> columns, of what it lacks."""
        found: list[dict[str, dict[str, dict[str, np.ndarray]]]] = [{} for _ in blocks]
        for name, measure in self._kept_measures.items():
            full = f"{name}-{self._fingerprints[name]}"
            lacking = [i for i, block in enumerate(blocks) if full in block.measures and not _has(block, full)]
            samples = [self._samples(blocks[i], sampled) for i in lacking]
            if name in self._together:
                columns = measure_together(measure, samples, self.model.samples.shape, self.model.device)
            else:
                columns = [measure_rows(measure, rows) for rows in samples]
            for i, rows in zip(lacking, columns):
                found[i][full] = rows
        return found

    def _samples(
        self, block: Block, sampled: Mapping[Block, dict[str, Trajectory]]
    ) -> Iterable[tuple[str, Trajectory]]:
        if block.part is not None:
            return kept_samples(block.part, self.model.device)
        return sampled[block].items()

    def _base(self, block: Block, sampled: Sequence[Trajectory]) -> BaseSamples | None:
        """The samples of base next to a block's: those on disk, and those of this batch."""
        if block.first >= CALIBRATION_SEED:
            return None
        seeds = range(block.first, block.last + 1)
        found = {int(s): x for t in sampled for s, x in zip(_seeds(t), t.x1.float().cpu().numpy()) if s in seeds}
        if len(found) < len(seeds):
            kept = self.table.samples(BASE, seeds)
            if kept is not None:
                found |= dict(zip(self.table.lines(BASE, seeds).seed.tolist(), kept))
        ascending = sorted(found)
        return BaseSamples(np.array(ascending), np.stack([found[s] for s in ascending])) if found else None

    def _kept(self, block: Block, trajectories: Mapping[str, Trajectory]) -> list[str]:
        rows = block.rows if block.first < CALIBRATION_SEED else ()
        base = [name for name in rows if name == BASE]
        if self._keep != "all":
            return base if self._keep == "base" else []
        size = next((t.x1[0].numel() * 4 for t in trajectories.values() if len(t)), 0)
        total = size * len(set(self._keys.values())) * len(self._seeds)
        return list(rows) if total <= self._gigabytes * 2**30 else base


def _has(block: Block, measure: str) -> bool:
    return block.part is not None and block.part.has(measure)


def _seeds(trajectory: Trajectory) -> list[int]:
    assert trajectory.seeds is not None
    return trajectory.seeds.tolist()


def _merged(sampled: Iterable[Mapping[str, Trajectory]]) -> dict[str, Trajectory]:
    """The trajectories of each row, of all blocks."""
    found: dict[str, list[Trajectory]] = {}
    for trajectories in sampled:
        for name, trajectory in trajectories.items():
            found.setdefault(name, []).append(trajectory)
    return {name: some[0] if len(some) == 1 else _joined(some) for name, some in found.items()}


def _joined(some: Sequence[Trajectory]) -> Trajectory:
    def together(name: str, dim: int = 0) -> Any:  # None where no trajectory has it
        values = [getattr(t, name) for t in some]
        return None if values[0] is None else torch.cat(values, dim)

    along = {"x1": 0, "energy": 1, "field_energy": 0, "displacement": 0, "labels": 0, "seeds": 0}
    along |= {"guidance_energy": 0, "guidance_gap": 1}
    return replace(some[0], **{name: together(name, dim) for name, dim in along.items()})
