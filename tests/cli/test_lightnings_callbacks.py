"""Callbacks of Lightning that a user adds: each works with our training, resuming and comparing, or is refused in one line."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from lightning import Callback
from tiny_runs import says


def batch_size(batch):
    return len(batch.x if hasattr(batch, "x") else batch.seeds)


def with_callback(kind, **options):
    added = [f"--trainer.callbacks+=lightning.pytorch.callbacks.{kind}"]
    return added + [f"--trainer.callbacks.{kind}.{key}={value}" for key, value in options.items()]


def last():
    return torch.load("runs/tiny/checkpoints/last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("EarlyStopping", {"monitor": "val/loss"}),
        pytest.param("Timer", {"duration": "00:01:00:00"}, marks=pytest.mark.slow),
        pytest.param(
            "ThroughputMonitor", {"batch_size_fn": "test_lightnings_callbacks.batch_size"}, marks=pytest.mark.slow
        ),
        pytest.param("LearningRateMonitor", {"logging_interval": "step"}, marks=pytest.mark.slow),
        pytest.param("LambdaCallback", {}, marks=pytest.mark.slow),
    ],
)
def test_training_resuming_and_comparing_work(command, kind, options):
    more = with_callback(kind, **options)
    ended = command("fit", "-c", "tiny.yaml", *more)
    assert ended.status == 0, ended.err
    ended = command("run", "-c", "tiny.yaml", "--trainer.max_steps", 6, *more)
    assert ended.status == 0, ended.err
    assert last()["global_step"] == 6


def test_device_statistics(command):
    ended = command("fit", "-c", "tiny.yaml", *with_callback("DeviceStatsMonitor", cpu_stats="true"))
    if importlib.util.find_spec("psutil"):
        assert ended.status == 0, ended.err
    else:
        assert ended.status == 2
        says(ended.err, "fm-lightning: Fetching CPU device stats requires psutil to be installed. Run pip install")


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("GradientAccumulationScheduler", {"scheduling": "{0: 2}"}, ["counts epochs", "Use --trainer.accumulate_grad"]),
        ("StochasticWeightAveraging", {"swa_lrs": 0.01}, ["counts epochs", "Use fm_lightning.callbacks.EMA"]),
        ("LearningRateFinder", {}, ["attribute lr", "--model.optimizer.init_args.lr"]),
        ("BatchSizeFinder", {}, ["batch size", "--data.init_args.batch_size"]),
        ("BackboneFinetuning", {}, ["attribute backbone"]),
        ("SpikeDetection", {}, ["cannot resume", "Remove it"]),
        ("EMAWeightAveraging", {}, ["EMA and EMAWeightAveraging both average the weights", "Remove one"]),
        (
            "EarlyStopping",
            {"monitor": "val/loss", "mode": "up"},
            ["mode can be min, max, got up", "Correct this value"],
        ),
    ],
)
def test_what_cannot_work_is_refused_before_training(refused, kind, options, words):
    line = refused("fit", "-c", "tiny.yaml", *with_callback(kind, **options))
    says(line, *words)


def test_early_stopping_ends_the_training(command, refused):
    """A loss below 100 is reached at once; the stopped training is finished, and is compared."""
    more = with_callback("EarlyStopping", monitor="val/loss", stopping_threshold=100)
    assert command("run", "-c", "tiny.yaml", *more).status == 0
    assert last()["global_step"] == 2
    says(refused("fit", "-c", "tiny.yaml", *more), "holds a finished training (2 steps)")


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("EarlyStopping", {"monitor": "val_loss"}),
        ("ModelCheckpoint", {"monitor": "val_loss", "every_n_train_steps": 2}),
    ],
)
def test_a_number_that_is_not_logged(command, kind, options):
    ended = command("fit", "-c", "tiny.yaml", *with_callback(kind, **options))
    assert ended.status == 2, ended.err
    assert len(ended.err.splitlines()) == 1
    says(ended.err, f"{kind} monitors val_loss, which is not logged. Use for example monitor: val/loss")


class Broken(Callback):
    def __init__(self) -> None:
        {}["spectra"]


def test_a_crash_in_ones_own_callback_is_no_wrong_value(command):
    ended = command("fit", "-c", "tiny.yaml", "--trainer.callbacks+=test_lightnings_callbacks.Broken")
    assert ended.status == 1
    says(ended.err.splitlines()[-1], "KeyError in", "spectra", "The whole traceback is in")
