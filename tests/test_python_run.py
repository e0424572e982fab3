"""A run started from Python alone, with Lightning's own Trainer, ends as the command's does."""

from __future__ import annotations

import json

import pytest
from lightning import Trainer

from fm_lightning import KTS, Evaluation, FlowMatching, Schedule
from fm_lightning.callbacks import FIDMonitor, KPEDistribution, MemorizationMonitor, SampleGrid, ScheduleTable
from fm_lightning.data import Toy2D
from fm_lightning.nets import ResidualMLP


def test_the_results_and_the_report_are_there(tmp_path):
    callbacks = [
        KPEDistribution(),
        MemorizationMonitor(),
        FIDMonitor("fd_raw"),
        SampleGrid(4),
        ScheduleTable(families="none"),
    ]
    trainer = Trainer(
        default_root_dir=tmp_path,
        accelerator="cpu",
        max_steps=4,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    schedules = {"base": Schedule(steps=4), "kts": Schedule(KTS(0.02, 0.02), steps=4)}
    model = FlowMatching(ResidualMLP([2], width=16, depth=1), test_schedules=schedules)
    data = Toy2D(n=24, batch_size=16, eval_batch_size=8, val_seeds=8, test_seeds=13)
    trainer.fit(model, datamodule=data)
    trainer.test(model, datamodule=data, verbose=False)
    results = json.loads((tmp_path / "results.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert list(rows) == ["base", "kts", "kts.true_clock", "held_out", "copies"]
    assert rows["kts"]["samples"] == 13
    assert {"f_mem", "fd_raw", "kpe_mean"} <= rows["kts"]["metrics"].keys()
    logged = trainer.callback_metrics["test/kts/f_mem"].item()  # in float32
    assert rows["kts"]["metrics"]["f_mem"] == pytest.approx(logged, rel=1e-6)
    assert (tmp_path / "report.html").stat().st_size > 10_000
    assert len(Evaluation.open(tmp_path).lines("kts")) == 13
