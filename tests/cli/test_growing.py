"""A comparison through the command: it survives a kill, and takes more rows, seeds and measures."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import says, tiny_config

from fm_lightning.data import Split, Toy2D
from fm_lightning.table.evaluation import Evaluation

RAW = {"class_path": "fm_lightning.callbacks.FIDMonitor", "init_args": {"extractors": "fd_raw"}}
SSC = {"class_path": "fm_lightning.flow.SSC", "init_args": {"scale": 0.05, "power": 1.0}}


def whole(run: Path) -> dict:
    """All that a reader can see of a run's table, and the numbers that follow."""
    table = Evaluation.open(run)
    found = {}
    for row in table.shown:
        lines = table.lines(row)
        found[row] = {c: lines[c].to_numpy() for c in lines.columns if c not in ("row", "label")}
        found[row] |= {"energy": table.energy(row)}
    results = json.loads((run / "results.json").read_text())
    return found | {"metrics": {row["name"]: row["metrics"] for row in results["rows"]}}


def same(one: dict, two: dict, rtol: float = 0.0) -> None:
    assert one.keys() == two.keys()
    for row, columns in one.items():
        if row == "metrics":
            continue
        assert columns.keys() == two[row].keys(), row
        for name, values in columns.items():
            if values.dtype == object or rtol == 0:
                np.testing.assert_array_equal(values, two[row][name], err_msg=f"{row} {name}")
            else:
                np.testing.assert_allclose(values, two[row][name], rtol=rtol, atol=rtol, err_msg=f"{row} {name}")
    for row, metrics in one["metrics"].items():
        for name, value in metrics.items():
            other = two["metrics"][row][name]
            assert other == (
                value if value is None else pytest.approx(value, rel=max(rtol, 1e-12), abs=max(rtol, 1e-12))
            )


@pytest.fixture
def trained(command):
    assert command("run", "-c", "tiny.yaml").status == 0


def test_a_row_seeds_and_a_measure_added_later_give_the_table_of_one_command(command, trained, tmp_path):
    def more(c):
        c["model"]["test_schedules"]["ssc"] = {"steps": 4, "gain": SSC}

    ended = command("test", "-c", tiny_config(tmp_path / "more.yaml", more))
    assert ended.status == 0, ended.err
    assert "65 of 91 samples are there already" in ended.out

    def most(c):
        more(c)
        c["data"]["init_args"]["test_seeds"] = 21
        c["trainer"]["callbacks"].insert(3, RAW)

    file = tiny_config(tmp_path / "most.yaml", most)
    ended = command("test", "-c", file)
    assert ended.status == 0, ended.err
    assert "measuring kept samples of" in ended.out
    grown = whole(tmp_path / "runs/tiny")
    ended = command("test", "-c", file, "--again")
    assert ended.status == 0, ended.err
    assert "there already" not in ended.out
    same(grown, whole(tmp_path / "runs/tiny"))
    assert command("test", "-c", file).status == 2


def test_a_changed_schedule_under_an_old_name_is_another_row(command, trained, tmp_path):
    before = whole(tmp_path / "runs/tiny")
    change = lambda c: c["model"]["test_schedules"]["kts"]["gain"]["init_args"].update(beta=0.01)  # noqa: E731
    ended = command("test", "-c", tiny_config(tmp_path / "other.yaml", change))
    assert ended.status == 0, ended.err
    after = whole(tmp_path / "runs/tiny")
    assert not np.array_equal(before["kts"]["kpe"], after["kts"]["kpe"])
    np.testing.assert_array_equal(before["base"]["kpe"], after["base"]["kpe"])
    ended = command("test", "-c", "tiny.yaml")
    assert "65 of 65 samples are there already" in ended.out, "the old lines have stayed"
    same(before, whole(tmp_path / "runs/tiny"))


def test_what_lines_depend_on_may_not_change(command, refused, trained, tmp_path):
    assert command("fit", "-c", "tiny.yaml", "--name", "longer", "--trainer.max_steps", 6).status == 0
    longer = tmp_path / "runs/longer/checkpoints/last.ckpt"
    with_seeds = ("--data.init_args.test_seeds", 14)
    says(
        refused("test", "-c", "tiny.yaml", "--ckpt_path", longer, *with_seeds),
        "holds an evaluation with other weights",
        "--again",
    )
    says(
        refused("test", "-c", "tiny.yaml", "--trainer.precision", "bf16-mixed", *with_seeds),
        "other precision",
        "32-true",
    )
    says(
        refused("test", "-c", "tiny.yaml", "--model.merge_rows", 16, *with_seeds), "other merge rows (0 there, 16 here)"
    )


def test_report_follows_the_threshold_and_samples_nothing(command, refused, trained, tmp_path):
    run = tmp_path / "runs/tiny"
    parts = sorted((run / "evaluation/parts").rglob("*"))
    kept = [(p, p.stat().st_mtime_ns) for p in parts]
    before = json.loads((run / "results.json").read_text())
    assert command("report", "runs/tiny").status == 0
    assert json.loads((run / "results.json").read_text())["rows"] == before["rows"]
    assert command("report", "runs/tiny", "--trainer.callbacks.MemorizationMonitor.threshold", 0.9).status == 0
    after = json.loads((run / "results.json").read_text())
    assert after["threshold"] == 0.9
    assert after["rows"][0]["metrics"]["f_mem"] > before["rows"][0]["metrics"]["f_mem"]
    assert command("report", "runs/tiny", "--trainer.callbacks.KPEDistribution.tau_split", 0.3).status == 0
    moved = json.loads((run / "results.json").read_text())["rows"][0]["metrics"]
    assert moved["kpe_early_mean"] < before["rows"][0]["metrics"]["kpe_early_mean"]
    assert [(p, p.stat().st_mtime_ns) for p in parts] == kept
    says(refused("report", "runs/tiny", "--trainer.callbacks.MemorizationMonitr.threshold", 1), "MemorizationMonitor")


@pytest.mark.slow
def test_n_is_what_was_measured(command, tmp_path):
    assert command("fit", "-c", "tiny.yaml").status == 0
    ended = command("test", "-c", "tiny.yaml", "--trainer.limit_test_batches", 1)
    assert ended.status == 0, ended.err
    results = json.loads((tmp_path / "runs/tiny/results.json").read_text())
    assert results["samples"] == 8
    assert {row["samples"] for row in results["rows"]} == {8}
    assert command("test", "-c", "tiny.yaml").status == 0  # the rest
    assert json.loads((tmp_path / "runs/tiny/results.json").read_text())["samples"] == 13


@pytest.mark.parametrize("limit", [0, 0.5, 0.999])
def test_a_share_of_the_batches_of_a_comparison_is_refused(refused, limit):
    says(
        refused("run", "-c", "tiny.yaml", "--trainer.limit_test_batches", limit), "limit_test_batches=", "whole number"
    )


def test_no_limit_is_written_in_two_ways(command, refused):
    assert command("run", "-c", "tiny.yaml", "--trainer.limit_test_batches", "null").status == 0
    assert command("fit", "-c", "tiny.yaml", "--trainer.limit_val_batches", "null").status == 2, "finished"
    says(refused("test", "-c", "tiny.yaml", "--trainer.limit_test_batches", "1.0"), "finished comparison")


def test_the_weights_that_were_compared_are_in_the_last_checkpoint(command, tmp_path):

    from fm_lightning import load_network
    from fm_lightning.hashes import weights_hash

    change = lambda c: c["trainer"].update(max_steps=5)  # noqa: E731  (checkpoints are written every 2 steps)
    assert command("run", "-c", tiny_config(tmp_path / "five.yaml", change)).status == 0
    last = tmp_path / "runs/tiny/checkpoints/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 5
    results = json.loads((tmp_path / "runs/tiny/results.json").read_text())
    assert results["identity"]["weights"] == weights_hash(load_network(last))
    assert results["step"] == 5


@pytest.mark.slow
def test_a_run_finished_by_epochs_is_finished(command, refused, tmp_path):
    change = lambda c: c["trainer"].update(max_steps=-1, max_epochs=2, val_check_interval=1)  # noqa: E731
    file = tiny_config(tmp_path / "epochs.yaml", change)
    assert command("run", "-c", file).status == 0
    says(refused("run", "-c", file), "finished comparison")
    says(refused("fit", "-c", file), "finished training")
    assert command("fit", "-c", file, "--trainer.max_epochs", 3).status == 0, "a longer training continues"


COMMAND = "import sys; from fm_lightning.__main__ import main; import fm_lightning.report.page as b; \
b.write_report = lambda folder, *content: folder; sys.argv = ['fm-lightning', *sys.argv[1:]]; main()"


def environment(rank: int | None = None, port: int = 0) -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    found = os.environ | {"PYTHONPATH": os.pathsep.join([root, *sys.path]), "OMP_NUM_THREADS": "1"}
    if rank is not None:
        found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        found |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0"}
    return found


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_random_moments(command, tmp_path, processes):
    """kill -9, then the same command, until it ends: the table of an undisturbed comparison."""

    def change(c):
        c["data"]["init_args"] |= {"test_seeds": 61, "eval_batch_size": 3}
        c["model"]["test_schedules"]["ssc"] = {"steps": 40, "gain": SSC}
        c["trainer"]["callbacks"].insert(3, RAW)
        if processes == 2:
            c["trainer"] |= {"devices": 2, "strategy": "ddp"}

    def by_one(c):
        change(c)
        for key in ("devices", "strategy"):
            c["trainer"].pop(key, None)

    alone = tiny_config(tmp_path / "alone.yaml", by_one)
    assert command("fit", "-c", alone).status == 0
    assert command("test", "-c", alone).status == 0
    undisturbed = whole(tmp_path / "runs/tiny")
    file = tiny_config(tmp_path / "cut.yaml", change)
    assert command("fit", "-c", alone, "--name", "cut").status == 0
    random.seed(0)
    arguments = [sys.executable, "-c", COMMAND, "test", "-c", str(file), "--name", "cut"]
    kills = 0
    for attempt in range(60):
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        some = [
            subprocess.Popen(
                arguments,
                cwd=tmp_path,
                env=environment(r if processes == 2 else None, port),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for r in range(processes)
        ]
        # Killed while it starts, or as soon as it has written more; the eighth is left to its end.
        parts, until = (
            tmp_path / "runs/cut/evaluation/parts",
            time.monotonic() + (120 if attempt % 2 or attempt > 6 else 4),
        )
        there = len(list(parts.glob("[0-9]*")))
        while time.monotonic() < until and any(p.poll() is None for p in some):
            if attempt % 2 and attempt < 7 and len(list(parts.glob("[0-9]*"))) > there:
                time.sleep(random.uniform(0, 0.3))
                break
            time.sleep(0.02)
        killed = [p for p in some if p.poll() is None]
        for p in killed:
            p.send_signal(signal.SIGKILL)
        said = [p.communicate()[1] for p in some]
        if killed:
            kills += 1
            continue
        # The last kill may have come after the last file.
        finished = any("holds a finished comparison" in words for words in said)
        assert finished or all(p.returncode == 0 for p in some), said
        break
    assert kills
    same(undisturbed, whole(tmp_path / "runs/cut"), rtol=0.0 if processes == 1 else 1e-6)


def test_training_data_that_have_changed_are_refused(command, refused, tmp_path):
    """The configuration is the same; the points behind it are not."""
    file = tiny_config(tmp_path / "tiny.yaml", lambda c: c["data"].update(class_path="test_growing.Points"))
    np.save(tmp_path / "points.npy", np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32))
    assert command("fit", "-c", file).status == 0
    assert command("fit", "-c", file, "--trainer.max_steps", 6).status == 0
    np.save(tmp_path / "points.npy", np.random.default_rng(1).normal(size=(60, 2)).astype(np.float32))
    says(refused("fit", "-c", file, "--trainer.max_steps", 8), "other training data", "another --name", "--again")
    says(refused("test", "-c", file), "other training data")


class Points(Toy2D):
    """Points of a file."""

    def load(self):
        x = torch.from_numpy(np.load("points.npy"))
        self.train_split, self.held_out_split, self.real_split = Split(x[:24]), Split(x[24:40]), Split(x[40:])


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_precisions_that_work_with_an_average(command, tmp_path, precision):
    ended = command("run", "-c", "tiny.yaml", "--trainer.precision", precision)
    assert ended.status == 0, ended.err


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_precisions_that_lose_digits_are_refused(refused, precision):
    says(refused("fit", "-c", "tiny.yaml", "--trainer.precision", precision), f"precision={precision}", "bf16-mixed")
