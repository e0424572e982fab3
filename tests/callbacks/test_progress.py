"""The bar counts the steps of the whole run, also where it was resumed."""

from __future__ import annotations

import pytest
from tiny_runs import tiny_config

from fm_lightning.callbacks import Progress


class Watched(Progress):
    """Remembers what the training bar showed last."""

    shown: tuple[float, float | None]

    def __init__(self):
        super().__init__(per_second=1e-9)  # nothing is drawn but the end

    def on_train_epoch_end(self, trainer, pl_module):
        super().on_train_epoch_end(trainer, pl_module)
        Watched.shown = (self.train_progress_bar.completed, self.train_progress_bar.total)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_resumed_bar_ends_at_its_total(command, tmp_path, accumulate):
    def change(c):
        c["trainer"] |= {"enable_progress_bar": True, "accumulate_grad_batches": accumulate}
        c["trainer"]["callbacks"].insert(0, {"class_path": "test_progress.Watched"})

    file = tiny_config(tmp_path / "bar.yaml", change)
    assert command("fit", "-c", file, "--trainer.max_steps", 4).status == 0
    assert Watched.shown == (4, 4)
    assert command("fit", "-c", file, "--trainer.max_steps", 6).status == 0
    assert Watched.shown == (6, 6)


class Moving(Progress):
    """Remembers how the bar of the comparison moved, and what was counted."""

    def __init__(self):
        super().__init__(per_second=1e9)
        Moving.seen, Moving.counted = [], []

    def on_evaluation(self):
        super().on_evaluation()
        Moving.seen.append(self.test_progress_bar.completed)

    def on_test_batch_end(self, *args):
        Moving.counted.append((self._evaluations, self._whole))
        super().on_test_batch_end(*args)


@pytest.mark.parametrize("merge_rows", [0, 32])
def test_the_bar_moves_within_a_batch_of_seeds(command, tmp_path, merge_rows):
    def change(c):
        c["model"]["fields"] = {"empirical": {"class_path": "fm_lightning.comparison.ClosedForm"}}
        c["model"]["merge_rows"] = merge_rows

    file = tiny_config(tmp_path / "bar.yaml", change)
    assert command("fit", "-c", file).status == 0
    change_bar = ("--trainer.enable_progress_bar", "true", "--trainer.callbacks+=test_progress.Moving")
    ended = command("test", "-c", file, *change_bar)
    assert ended.status == 0, ended.err
    assert len(Moving.counted) == 2
    assert all(done == whole > 4 for done, whole in Moving.counted), "the count beforehand is that of the sampling"
    assert Moving.seen == sorted(Moving.seen)
    assert len(set(Moving.seen)) == len(Moving.seen)
    assert (min(Moving.seen), max(Moving.seen)) == (pytest.approx(1 / Moving.counted[0][1]), 2)


class Counting(Progress):
    """Remembers the bars of calibration and comparison as they ended."""

    def __init__(self):
        super().__init__(per_second=1e9)
        Counting.shown = []

    def follow(self, words, batches):
        yield from super().follow(words, batches)
        bar = self.progress.tasks[-1]
        Counting.shown.append((bar.description.strip(), bar.completed, bar.total))

    def on_test_batch_end(self, *args):
        super().on_test_batch_end(*args)
        bar = self.test_progress_bar
        Counting.shown.append((bar.description.strip(), bar.completed, bar.total))


@pytest.mark.parametrize("families", ["cheap", "none"])
def test_each_bar_ends_at_its_total_and_none_is_shown_for_nothing(command, tmp_path, families):
    def change(c):
        c["data"]["init_args"] |= {"eval_batch_size": 300, "test_seeds": 600}
        c["trainer"]["callbacks"][4]["init_args"]["families"] = families

    file = tiny_config(tmp_path / "bar.yaml", change)
    assert command("fit", "-c", file).status == 0
    change_bar = ("--trainer.enable_progress_bar", "true", "--trainer.callbacks+=test_progress.Counting")
    ended = command("test", "-c", file, *change_bar)
    assert ended.status == 0, ended.err
    choosing = [shown for shown in Counting.shown if "Choosing doses" in shown[0]]
    assert all((done, total) == (2, 2) for _, done, total in choosing)
    assert bool(choosing) == (families == "cheap")
    assert Counting.shown[-1][1:] == (2, 2)
