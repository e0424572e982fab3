"""Pass: completes some rows over some seeds, batch by batch: samples what the table lacks, measures it and writes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch

from fm_lightning.comparison.rows import BASE, Row
from fm_lightning.comparison.sampling import Model
from fm_lightning.data.batches import SeedBatch, seed_batch
from fm_lightning.data.samples import CALIBRATION_SEED
from fm_lightning.metrics.measure import Measure
from fm_lightning.table.blocks import Block
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.parts import Part
from fm_lightning.table.writer import BaseSamples, Writer
from fm_lightning.trajectory import Trajectory

Named = Iterable[tuple[str, Trajectory]]  # a row's name or key, and its samples
Arrays = dict[str, np.ndarray]  # a measure's columns


class Pass:
    """The blocks that complete some rows, found once for all processes, and what is done with them.

    Args:
        blocks: what is missing.
        rows: name -> row.
        seeds: of all blocks.
        batch_size: seeds of a batch, on each process.
        measures: name -> measure of the samples, with a fingerprint each.
        table: what is on disk.
        keep: whose samples to keep: of "all" rows, of "base", or "none".
    """

    def __init__(
        self,
        model: Model,
        writer: Writer,
        blocks: Sequence[Block],
        rows: Mapping[str, Row],
        seeds: range,
        batch_size: int,
        measures: Mapping[str, Measure],
        table: Evaluation,
        keep: str,
    ) -> None:
        self.model, self.rows, self.keep = model, rows, keep
        self._writer, self._table, self._measures = writer, table, measures
        self._keys = {name: row.key for name, row in rows.items()}
        self._blocks: dict[int, list[Block]] = {}
        for block in blocks:  # a block belongs to the batch that holds its first seed
            first = block.first - (block.first - seeds.start) % batch_size
            self._blocks.setdefault(first, []).append(block)
        # Where any process has something to measure, all take part in every batch.
        self._together = {name for name, measure in measures.items() if blocks and measure.collective}
        self._now: list[Block] = []
        self._sampled: dict[Block, dict[str, Trajectory]] = {}

    def sample(self, batch: SeedBatch) -> dict[str, Trajectory]:
        """Samples what the table lacks of a batch of seeds, and returns it."""
        self._now = self._blocks.pop(int(batch.seeds[0]), []) if batch.valid else []
        lacking = [block for block in self._now if block.part is None]
        self.model.announce([self._rows_of(block) for block in lacking], len(batch.seeds))
        self._sampled = {block: self._sample(block, len(batch.seeds)) for block in lacking}
        return _merged(self._sampled.values())

    def record(self) -> None:
        """Measures and writes what was sampled, and measures what was kept."""
        blocks, sampled = self._now, self._sampled
        self._now, self._sampled = [], {}
        measured = self._measure(blocks, sampled)
        base = [trajectories[BASE] for trajectories in sampled.values() if BASE in trajectories]
        for block, columns in zip(blocks, measured):
            if block.part is not None:
                self._writer.add(block.part, columns)
            else:
                kept = [name for name in block.rows if self.keep == "all" or (self.keep == "base" and name == BASE)]
                self._writer.write(block, self._keys, sampled[block], self._base(block, base), kept, columns)

    def _rows_of(self, block: Block) -> dict[str, Row]:
        return {name: self.rows[name] for name in block.rows}

    def _sample(self, block: Block, size: int) -> dict[str, Trajectory]:
        # Padded to full size, so that the values are those of an undisturbed comparison.
        seeds = seed_batch(block.first, block.size, size).seeds
        return self.model.sample(self._rows_of(block), seeds, block.size)

    def _measure(
        self, blocks: Sequence[Block], sampled: Mapping[Block, dict[str, Trajectory]]
    ) -> list[dict[str, dict[str, Arrays]]]:
        """For each block: ``NAME-FINGERPRINT`` -> row -> columns, of what it lacks."""
        found: list[dict[str, dict[str, Arrays]]] = [{} for _ in blocks]
        for name, measure in self._measures.items():
            full = f"{name}-{measure.fingerprint}"
            wanting = [i for i, block in enumerate(blocks) if full in block.measures]
            lacking = [i for i in wanting if (part := blocks[i].part) is None or not part.has(full)]
            samples = [self._samples(blocks[i], sampled) for i in lacking]
            if name in self._together:
                columns = _measure_together(measure, samples, self.model)
            else:  # one row's samples are in memory at a time
                columns = [{row: _columns(measure, trajectory) for row, trajectory in rows} for rows in samples]
            for i, rows in zip(lacking, columns):
                found[i][full] = rows
        return found

    def _samples(self, block: Block, sampled: Mapping[Block, dict[str, Trajectory]]) -> Named:
        return sampled[block].items() if block.part is None else _kept_samples(block.part, self.model.device)

    def _base(self, block: Block, sampled: Sequence[Trajectory]) -> BaseSamples | None:
        """The samples of base next to a block's: those on disk, and those of this batch; none in a calibration."""
        if block.first >= CALIBRATION_SEED:
            return None
        seeds = range(block.first, block.last + 1)
        found: dict[int, np.ndarray] = {}
        for t in sampled:
            assert t.seeds is not None
            found |= {s: x for s, x in zip(t.seeds.tolist(), t.x1.float().cpu().numpy()) if s in seeds}
        if len(found) < len(seeds):
            kept = self._table.samples(BASE, seeds)
            if kept is not None:
                found |= dict(zip(self._table.lines(BASE, seeds, measured=False).seed.tolist(), kept))
        ascending = sorted(found)
        return BaseSamples(np.array(ascending), np.stack([found[s] for s in ascending])) if found else None


def _columns(measure: Measure, trajectory: Trajectory) -> Arrays:
    return {name: values.detach().cpu().numpy() for name, values in measure.measure(trajectory).items()}


def _measure_together(measure: Measure, blocks: Sequence[Named], model: Model) -> list[dict[str, Arrays]]:
    """The columns of each row of each block, from one call: all processes search together, those without samples too."""
    rows = [{row: trajectory.x1 for row, trajectory in block} for block in blocks]
    none = torch.zeros(0, *model.samples.shape, device=model.device)
    columns = _columns(measure, Trajectory.still(torch.cat([none, *(x for block in rows for x in block.values())])))
    begin, found = 0, []
    for block in rows:
        mine = {}
        for row, x in block.items():
            mine[row] = {name: values[begin : begin + len(x)] for name, values in columns.items()}
            begin += len(x)
        found.append(mine)
    return found


def _kept_samples(part: Part, device: torch.device) -> Iterator[tuple[str, Trajectory]]:
    """(key, its samples as a trajectory of no steps) of each row whose samples a part keeps."""
    labels = part.lines().column("label").to_numpy()
    for key in part.keys:
        kept, mine = part.samples(key), labels[part.place(key)]
        assert kept is not None
        y = None if np.isnan(mine).any() else torch.tensor(mine, dtype=torch.int64, device=device)
        yield key, Trajectory.still(torch.tensor(kept, device=device), y)


def _merged(sampled: Iterable[Mapping[str, Trajectory]]) -> dict[str, Trajectory]:
    """The trajectories of each row, of all blocks."""
    found: dict[str, list[Trajectory]] = {}
    for trajectories in sampled:
        for name, trajectory in trajectories.items():
            found.setdefault(name, []).append(trajectory)
    return {name: some[0] if len(some) == 1 else Trajectory.joined(some) for name, some in found.items()}
