"""ComparisonLoop: a comparison as a table on disk that survives a kill and grows.

    loop = ComparisonLoop(folder, model, rows, measures, ...)
    loop.open()                                          # what the lines depend on, what is there, who writes
    loop.choose()                                        # the families' doses, on calibration seeds
    for batch in comparison_seeds: loop.step(batch)      # samples what is missing, measures it, writes it
    results = loop.finish()                              # numbers and verdicts
    loop.close()

Every process calls these methods, each equally often; process 0 decides what is missing, and all learn it from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from fm_lightning.comparison.build import build
from fm_lightning.comparison.calibrate import Calibration, candidate_facts, candidates, family_rows
from fm_lightning.comparison.collect import Collector
from fm_lightning.comparison.families import Which, asks_all
from fm_lightning.comparison.identity import Probes
from fm_lightning.comparison.judge import NEIGHBOURS
from fm_lightning.comparison.model_families import NO_FURTHER, ModelFamilies
from fm_lightning.comparison.passes import Pass
from fm_lightning.comparison.processes import all_results, first_process_result, process
from fm_lightning.comparison.results import Results
from fm_lightning.comparison.rows import Row, StoredVelocity
from fm_lightning.comparison.sampling import Model
from fm_lightning.data.batches import SeedBatch, SeedBatches, Share
from fm_lightning.data.samples import CALIBRATION_SEED, CALIBRATION_SEEDS, TEST_SEED, say
from fm_lightning.errors import UserError
from fm_lightning.metrics.measure import Measure
from fm_lightning.metrics.memorization import THRESHOLD
from fm_lightning.phrases import counted
from fm_lightning.table.blocks import Block, missing
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.parts import Part
from fm_lightning.table.writer import Writer
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
        rows: name -> row of the comparison; with the rows of families after ``choose``.
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
            if isinstance(value, bool) or not isinstance(value, int):
                raise UserError(f"{name}={value!r} is not a whole number.", f"Pass for example {name}=500")
            if value < 1:
                raise UserError(f"{name}={value} is too few.", f"Pass at least {name}=1.")
        if margins is not None and not isinstance(margins, Margins):
            raise UserError(f"margins={margins!r} is not of type Margins.", "Pass for example Margins(memorized=0.01)")
        if not isinstance(measures, Sequence) or not all(isinstance(m, Measure) for m in measures):
            raise UserError(
                f"measures={measures!r} is not a list of measures.", "Pass for example [KineticPathEnergy()]"
            )
        if keep not in KEEP:
            raise UserError(f"samples={keep!r} is not known.", f"Use one of {', '.join(KEEP)}.")
        for name in (names := [m.name for m in measures]):
            if names.count(name) > 1:
                raise UserError(f"Two measures are called {name!r}.", "Leave one of them out.")
        self.folder, self.model, self.measures = Path(folder), model, list(measures)
        self.rows: dict[str, Row] = dict(rows)
        self._identity, self._batch_size, self._source = identity, batch_size, source
        self._seeds = range(TEST_SEED, TEST_SEED + seeds)
        self._judge, self._families, self._margins = judge, families, margins or Margins()
        self._further = further
        self._keep, self._gigabytes = keep, gigabytes
        self._kept_measures = {m.name: m for m in self.measures if m.fingerprint}
        self._facts: dict[str, Any] = {}
        for measure in reversed(self.measures):  # of two distances the first is the quality
            self._facts |= measure.facts()
        self._began, self._claimed = time.time(), False

    # The steps

    def open(self) -> None:
        """Claims the folder, and agrees on what the lines depend on and which families the schedules are judged against.

        Raises:
            UserError: the folder holds another comparison, or another process writes there.
        """
        self._writer = Writer(self.folder, self._facts.get("tau_split", 0.6))
        try:
            self.table, contents = first_process_result(self._enter)
            for name, content in contents.items():
                self.rows[name] = replace(self.rows[name], content=content)
            which = self._families if NEIGHBOURS in self._kept_measures else "none"
            self._candidates = candidates(self.rows, self._judge, which, self._further)
            for family in {family.name: family for each in self._candidates for family in each.families}.values():
                if family.check is not None:
                    family.check(self.model.samples)
            self._untested = self._further.unavailable(which) if self._candidates else {}
            for name, reason in self._untested.items():
                say(f"Not tested: {name}, because {reason}")
        except BaseException:
            self.close()
            raise

    def choose(self, step: Callable[[SeedBatch], object] | None = None) -> None:
        """Chooses the families' doses by bisection on calibration seeds, and plans the comparison.

        Args:
            step: called for each batch of calibration seeds; by default ``step``.
        """
        seeds = range(CALIBRATION_SEED, CALIBRATION_SEED + CALIBRATION_SEEDS)
        batches = SeedBatches(seeds.start, len(seeds), min(len(seeds), self._batch_size), Share(*process()))
        threshold = self._facts.get("threshold", THRESHOLD)
        calibration = Calibration(self._candidates, seeds, threshold, len(self._seeds), self._margins)
        self.table.manifest.chosen, wanted = first_process_result(lambda: calibration.advance(self.table))
        while wanted:
            self._begin(calibration.rows(wanted), seeds, [NEIGHBOURS], "none")
            for batch in self.model.follow("Choosing doses", batches):
                (step or self.step)(batch)
            self.table = self._read()
            self.table.manifest.chosen, wanted = first_process_result(lambda: calibration.advance(self.table))
        chosen = self.table.manifest.chosen
        self.table.manifest.judged = candidate_facts(self._candidates, chosen)
        self.rows |= family_rows(self._candidates, chosen, asks_all(self._families))
        self._begin(self.rows, self._seeds, list(self._kept_measures), self._affordable())

    def step(self, batch: SeedBatch) -> None:
        """Samples what the table lacks of a batch of seeds, measures it and writes it."""
        self.sample(batch)
        self.record()

    def sample(self, batch: SeedBatch) -> dict[str, Trajectory]:
        """The first half of ``step``: samples what the table lacks of a batch of seeds, and returns it."""
        return self._pass.sample(batch)

    def record(self) -> None:
        """The second half of ``step``: measures and writes what was sampled, and measures what was kept."""
        self._pass.record()

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
        found = {row.name: row for share in shares for row in share}

        def results() -> Results:
            self._write_manifest()
            return build(self.table, [found[name] for name in names])

        return first_process_result(results)

    def close(self) -> None:
        """Lets other commands write; also after a failure."""
        if self._claimed:
            self._writer.claim.release()
        self._claimed = False

    # What is there, and what is missing

    def _enter(self) -> tuple[Evaluation, dict[str, str]]:
        """What is there, and the names of the other fields' values; on process 0."""
        self._writer.claim.take()
        self._claimed = True
        probes = Probes(self._writer.folder, self.model)
        contents = {}
        for name, row in self.rows.items():
            if row.velocity is not None and not isinstance(row.velocity, StoredVelocity):
                contents[name] = f"{row.content}~{probes.name(row.velocity)}"
        table = self._writer.open(self._identity(probes), say)
        probes.keep()
        return table, contents

    def _begin(self, rows: Mapping[str, Row], seeds: range, measures: Sequence[str], keep: str) -> None:
        """Begins a pass over seeds that completes some rows: planned once, for all processes and batches."""
        measured = {name: self._kept_measures[name] for name in measures}

        def find() -> tuple[list[Block], Any]:
            self._describe(rows, seeds)
            keys = {name: row.key for name, row in rows.items()}
            wanted = [f"{name}-{measure.fingerprint}" for name, measure in measured.items()]
            blocks = missing(self.table.parts, keys, seeds, self._batch_size, wanted)
            self._announce(keys, seeds, blocks)
            return blocks, self.table.manifest

        blocks, self.table.manifest = first_process_result(find)
        self._pass = Pass(self.model, self._writer, blocks, rows, seeds, self._batch_size, measured, self.table, keep)

    def _describe(self, rows: Mapping[str, Row], seeds: range) -> None:
        manifest = self.table.manifest
        manifest.rows = {name: {"key": row.key, **row.facts(name)} for name, row in self.rows.items()}
        manifest.definitions |= {row.key: row.definition for row in rows.values()}
        manifest.measures = {name: measure.fingerprint for name, measure in self._kept_measures.items()}
        if seeds == self._seeds:
            manifest.seeds = (seeds.start, len(seeds))
        self._write_manifest()
        folder = self._writer.folder / "measures"
        folder.mkdir(exist_ok=True)
        for measure in self._kept_measures.values():
            measure.remember(folder)

    def _write_manifest(self) -> None:
        self.table.manifest.write(self._writer.folder / "manifest.json")

    def _announce(self, keys: Mapping[str, str], seeds: range, blocks: Sequence[Block]) -> None:
        total = len(set(keys.values())) * len(seeds)
        there = total - sum(block.size * len(block.rows) for block in blocks if block.part is None)
        again = sum(block.part is not None for block in blocks)
        elsewhere = f" of {self._source}, which was not trained here," if self._source else ""
        known = f"; {there:,} of {total:,} samples are there already" if there else ""
        known += f"; measuring kept samples of {again:,} blocks" if again else ""
        if seeds == self._seeds:
            say(
                f"Comparing {counted(len(keys), 'row')}{elsewhere} on {len(seeds):,} seeds that training never used{known}"
            )
        else:
            say(f"Choosing doses: {counted(len(keys), 'row')} on {len(seeds):,} calibration seeds{known}")

    def _affordable(self) -> str:
        """Whose samples are kept: as requested, if they fit."""
        count = len({row.key for row in self.rows.values()}) * len(self._seeds)
        fits = 4 * math.prod(self.model.samples.shape) * count <= self._gigabytes * 2**30
        return self._keep if fits or self._keep == "none" else "base"

    def _read(self) -> Evaluation:
        """The table with what all processes have written, opened by name: a directory's listing may lag behind."""
        old, names = self.table, {name for some in all_results(self._writer.written) for name in some}
        new = [Part(self._writer.folder / "parts" / n) for n in sorted(names - {p.path.name for p in old.parts})]
        return Evaluation(old.folder, old.manifest, [*old.parts, *new])
