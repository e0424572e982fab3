"""A progress bar for a comparison without Lightning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.progress import Progress, TaskID

from fm_lightning.comparison.processes import process
from fm_lightning.comparison.rows import Row
from fm_lightning.comparison.sampling import SamplingListener, evaluations
from fm_lightning.data.batches import SeedBatch, SeedBatches


class Bar(SamplingListener):
    """Moves with every evaluation of a velocity; shown by process 0, on a terminal or in a notebook."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._work: list[tuple[str, ...]] = []
        self._batch, self._done, self._whole = 0, 0, 1

    def follow(self, words: str, batches: SeedBatches) -> Iterator[SeedBatch]:
        """The batches; the bar is shown while they last."""
        with Progress(transient=True) as self._bar:
            self._bar.disable = process()[0] > 0 or not (self._bar.console.is_terminal or self._bar.console.is_jupyter)
            self._task = self._bar.add_task(words, total=len(batches))
            for self._batch, batch in enumerate(batches):
                yield batch
                self._bar.update(self._task, completed=self._batch + 1)

    def on_sampling(self, work: Sequence[Mapping[str, Row]], count: int, merge_rows: int) -> None:
        names = [tuple(rows) for rows in work]
        if names != self._work:
            self._work = names
            self._whole = max(1, sum(evaluations(rows, count, merge_rows) for rows in work))
        self._done = 0

    def on_evaluation(self) -> None:
        self._done += 1
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._batch + min(1.0, self._done / self._whole))
