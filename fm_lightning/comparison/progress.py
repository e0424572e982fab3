"""How far a comparison is: the evaluations of velocities in a batch of seeds, counted; and a bar for use without Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from rich.progress import Progress, TaskID

from fm_lightning.comparison.processes import process
from fm_lightning.comparison.rows import Row, StoredVelocity
from fm_lightning.comparison.sampling import SamplingListener, sample
from fm_lightning.data.batches import SeedBatch, SeedBatches
from fm_lightning.flow.velocity import Plain, Velocity, declared
from fm_lightning.guidance import Guidance


class Counter(SamplingListener):
    """Counts the evaluations of a batch of seeds, which may be many: a bar moves with them."""

    _work: Sequence[tuple[str, ...]] = ()
    _evaluations, _whole = 0, 1

    def on_sampling(self, work: Sequence[Mapping[str, Row]], count: int, merge_rows: int) -> None:
        names = [tuple(rows) for rows in work]
        if names != self._work:
            self._work = names
            self._whole = max(1, sum(evaluations(rows, count, merge_rows) for rows in work))
        self._evaluations = 0

    def on_evaluation(self) -> None:
        self._evaluations += 1

    @property
    def done(self) -> float:
        """The share of the batch that is done, 0 to 1."""
        return min(1.0, self._evaluations / self._whole)


class Bar(Counter):
    """Moves with every evaluation of a velocity; shown by process 0, on a terminal or in a notebook."""

    _bar: Progress | None = None
    _task: TaskID | None = None

    def follow(self, words: str, batches: SeedBatches) -> Iterator[SeedBatch]:
        """The batches; the bar is shown while they last."""
        with Progress(transient=True) as self._bar:
            self._bar.disable = process()[0] > 0 or not (self._bar.console.is_terminal or self._bar.console.is_jupyter)
            self._task = self._bar.add_task(words, total=len(batches))
            for self._batch, batch in enumerate(batches):
                yield batch
                self._bar.update(self._task, completed=self._batch + 1)

    def on_evaluation(self) -> None:
        super().on_evaluation()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._batch + self.done)


def evaluations(rows: Mapping[str, Row], count: int, merge_rows: int = 0) -> int:
    """How often ``sample`` calls velocities for a batch of so many seeds; found by doing it with one that is zero.

    Of adaptive solvers it counts a few only: how often they call depends on the field. Nor does it know the model's
    guidance interval, at whose ends merged batches part.
    """
    total = 0

    def count_one() -> None:
        nonlocal total
        total += 1

    zeros: dict[object, _Zero] = {}  # one per field, as in `sample`

    def zero(velocity: Velocity | StoredVelocity) -> _Zero:
        same = velocity.content if isinstance(velocity, StoredVelocity) else id(velocity)
        return zeros.setdefault(same, _Zero(velocity))

    nothing = {name: replace(row, velocity=zero(row.velocity) if row.velocity else None) for name, row in rows.items()}
    x0, seeds = torch.zeros(count, 1), torch.arange(count)
    sampled = {name: row for name, row in nothing.items() if row.images is None}
    sample(sampled, _Zero(None), x0, None, seeds, 0, count, merge_rows, count_one)
    return total


class _Zero(Plain):
    """No velocity at all in the place of another, or of the model; under any guidance another one."""

    def __init__(self, instead_of: Velocity | StoredVelocity | None) -> None:
        super().__init__(lambda x, t, y: torch.zeros_like(x))
        self.singular_end = False
        if instead_of is not None and not isinstance(instead_of, StoredVelocity):
            self.singular_end = declared(instead_of).singular_end

    def guided(self, guidance: Guidance) -> _Zero:
        return _Zero(None)
