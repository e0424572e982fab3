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
