"""Callbacks of Lightning in a training from Python: each works with our module and data, or is refused before the first step."""

from __future__ import annotations

import importlib.util

import pytest
from lightning import Callback, Trainer
from lightning.pytorch import callbacks
from lightning.pytorch.loggers import CSVLogger

from fm_lightning import FlowMatching
from fm_lightning.data import Toy2D
from fm_lightning.errors import UserError
from fm_lightning.nets import ResidualMLP

STEPS = 8


def trained(folder, callback, **length) -> int:
    """Optimizer steps of a training with a callback."""
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(str(folder)),
        callbacks=[callback],
        enable_progress_bar=isinstance(callback, callbacks.ProgressBar),
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=0,
        limit_val_batches=2,
        log_every_n_steps=1,
        **length or {"max_steps": STEPS, "val_check_interval": 2, "check_val_every_n_epoch": None},
    )
    data = Toy2D(n=24, batch_size=16, eval_batch_size=8, val_seeds=8, test_seeds=8)
    trainer.fit(FlowMatching(ResidualMLP([2], width=16, depth=1)), data)
    return trainer.global_step


def size(batch) -> int:
    return len(batch.x if hasattr(batch, "x") else batch.seeds)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: callbacks.Timer("00:00:01:00"),
        lambda folder: callbacks.EarlyStopping("val/loss", patience=99),
        lambda folder: callbacks.LearningRateMonitor("step"),
        lambda folder: callbacks.ThroughputMonitor(batch_size_fn=size),
        lambda folder: callbacks.RichProgressBar(),
        lambda folder: callbacks.OnExceptionCheckpoint(folder),
        lambda folder: callbacks.EMAWeightAveraging(),
        lambda folder: callbacks.ModelPruning("l1_unstructured", amount=0.5),
        pytest.param(
            lambda folder: callbacks.DeviceStatsMonitor(cpu_stats=True),
            marks=pytest.mark.skipif(not importlib.util.find_spec("psutil"), reason="needs psutil"),
        ),
    ],
)
def test_works(tmp_path, make):
    assert trained(tmp_path, make(tmp_path)) == STEPS


def test_weights_are_averaged_over_epochs(tmp_path):
    swa = callbacks.StochasticWeightAveraging(swa_lrs=0.01, swa_epoch_start=2)
    assert trained(tmp_path, swa, max_epochs=6) == 6


@pytest.mark.parametrize("scheduling", [{0: 2}, {4: 2}])
def test_accumulation_that_changes_is_refused(tmp_path, scheduling):
    with pytest.raises(UserError, match=r"counts epochs.*accumulate_grad_batches"):
        trained(tmp_path, callbacks.GradientAccumulationScheduler(scheduling))


class Accumulates(Callback):
    """Does the same by hand."""

    def on_train_start(self, trainer, pl_module):
        trainer.accumulate_grad_batches = 2


def test_accumulation_that_is_changed_by_hand_does_not_hang(tmp_path):
    with pytest.raises(UserError, match="changed from 1 to 2"):
        trained(tmp_path, Accumulates())
