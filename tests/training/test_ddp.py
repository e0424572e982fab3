"""Two processes (DDP, gloo, CPU) give what one gives: losses, metrics, counts; also where a rank has padding only."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import tiny_config

from fm_lightning.table.evaluation import Evaluation
from fm_lightning.training.tracking import read_series

SEEDS = 65  # batches of 32: the second round gives one seed to rank 0 and none to rank 1

CASES = {
    "independent": {},
    "transport": {"coupling": {"class_path": "fm_lightning.flow.OptimalTransport"}},  # and accumulated batches
    "guided": {"label_dropout": 0.3, "guidance": {"scale": 1.5}},  # by class, and a divided memorization reference
}

RANK = """
import json, sys
from fm_lightning.cli import command as cli
from fm_lightning.report import page
page.write_report = lambda folder, *content: folder  # drawing takes longer than all the rest, and other tests check it
cli.main(json.loads(sys.argv.pop()))
"""


def config(path: Path, case: str) -> Path:
    def change(c):
        c["name"] = case
        c["data"] = {
            "class_path": "fm_lightning.data.Digits",
            "init_args": {"n": 40, "batch_size": 16, "eval_batch_size": 32, "val_seeds": SEEDS, "test_seeds": SEEDS},
        }
        c["model"]["net"]["init_args"]["shape"] = [1, 8, 8]
        c["model"] |= CASES[case]
        c["model"]["fields"] = {"empirical": {"class_path": "fm_lightning.comparison.ClosedForm"}}
        c["trainer"] |= {"limit_val_batches": None, "val_check_interval": 4}
        if case == "transport":
            c["trainer"] |= {"accumulate_grad_batches": 2, "val_check_interval": 8}
        if case == "guided":
            c["data"]["init_args"]["conditional"] = True
            sizes = {"shape": [1, 8, 8], "width": 16, "depth": 1, "heads": 2, "patch": 4, "num_classes": 10}
            c["model"]["net"] = {"class_path": "fm_lightning.nets.SiT", "init_args": sizes}
            c["trainer"]["callbacks"][2]["init_args"] = {"divided": True}
        c["trainer"]["callbacks"].insert(
            3,
            {
                "class_path": "fm_lightning.callbacks.FIDMonitor",
                "init_args": {"extractors": {"class_path": "fm_lightning.metrics.DigitsFeatures"}},
            },
        )

    return tiny_config(path / f"{case}.yaml", change)


def environment() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def two_ranks(folder: Path, command: list[str]) -> list[subprocess.Popen]:
    """The command in two processes that meet as torchrun's would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    ranks = []
    for rank in range(2):
        env = environment() | {
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "GROUP_RANK": "0",
            "TORCHELASTIC_RUN_ID": "test",
        }
        arguments = [sys.executable, "-c", RANK, json.dumps(command)]
        ranks.append(subprocess.Popen(arguments, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
    return ranks


def finish(ranks: list[subprocess.Popen]) -> None:
    try:
        said = [rank.communicate(timeout=150)[0].decode() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], "\n".join(said)


@pytest.fixture(
    scope="module",
    params=["independent", *(pytest.param(case, marks=pytest.mark.slow) for case in ("transport", "guided"))],
)
def pair(request, tmp_path_factory):
    """The run's directories of one process and of two."""
    return compared(tmp_path_factory.mktemp("ddp"), request.param)


def compared(folder: Path, case: str) -> tuple[Path, Path]:
    from fm_lightning.cli import command as cli

    command = ["run", "-c", str(config(folder, case))]
    two = ["--root", "two", "--trainer.strategy", "ddp", "--trainer.devices", "2"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        patch.setattr("fm_lightning.report.page.write_report", lambda folder, *content: folder)
        ranks = two_ranks(folder, [*command, *two])
        cli.main([*command, "--root", "one"])
        finish(ranks)
    return folder / "one" / case, folder / "two" / case


def test_training_has_the_same_losses(pair):
    one, two = (read_series(path / "metrics.csv")["train/loss"] for path in pair)
    assert [step for step, _ in one] == [step for step, _ in two] == [0, 1, 2, 3]
    np.testing.assert_allclose([v for _, v in two], [v for _, v in one], rtol=2e-6)


def test_training_ends_with_the_same_weights_and_average(pair):
    one, two = (torch.load(path / "checkpoints" / "last.ckpt", weights_only=True) for path in pair)
    for part in ("state_dict", "current_model_state"):
        assert one[part].keys() == two[part].keys()
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=0, atol=2e-5, msg=f"{part} {name}")


def test_validation_has_the_same_losses_and_metrics(pair):
    one, two = (read_series(path / "metrics.csv") for path in pair)
    assert one.keys() == two.keys()
    names = [name for name in one if name.startswith("val/")]
    assert {"val/loss", "val/base/kpe_mean", "val/base/f_mem", "val/base/fd_digits"} <= set(names)
    for name in names:
        assert [step for step, _ in one[name]] == [step for step, _ in two[name]]
        a, b = ([v for _, v in series[name]] for series in (one, two))
        np.testing.assert_allclose(b, a, rtol=1e-3 if "fd_digits" in name else 2e-5, atol=1e-6, err_msg=name)


def test_the_comparison_is_the_same(pair):
    one, two = (json.loads((path / "results.json").read_text()) for path in pair)
    assert [row["name"] for row in one["rows"]] == [row["name"] for row in two["rows"]]
    assert {"base", "kts", "kts.true_clock", "empirical", "held_out", "copies"} <= {r["name"] for r in one["rows"]}
    for a, b in zip(one["rows"], two["rows"]):
        assert a["metrics"].keys() == b["metrics"].keys()
        assert a["nfe"] == b["nfe"]
        for name, value in a["metrics"].items():
            if name in ("f_mem", "f_mem_lo", "f_mem_hi"):  # counts of samples
                assert value == b["metrics"][name], (a["name"], name)
            elif value is None:
                assert b["metrics"][name] is None
            else:
                loose = 1e-3 if name.startswith("fd_digits") else 1e-4
                assert b["metrics"][name] == pytest.approx(value, rel=loose, abs=2e-4), (a["name"], name)


def test_each_seed_is_counted_once(pair):
    one, two = (Evaluation.open(path) for path in pair)
    assert list(one.rows) == list(two.rows)
    for name, about in one.rows.items():
        here, there = one.lines(name), two.lines(name)
        assert here.seed.tolist() == there.seed.tolist()
        if about["kind"] != "floor":
            assert len(here) == SEEDS
            np.testing.assert_allclose(there.kpe, here.kpe, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_the_command_launches_its_own_processes(tmp_path, tmp_path_factory):
    alone, _ = compared(tmp_path_factory.mktemp("ddp"), "independent")
    path = config(tmp_path, "independent")
    command = [sys.executable, "-m", "fm_lightning", "run", "-c", str(path)]
    ended = subprocess.run(
        [*command, "--trainer.strategy", "ddp", "--trainer.devices", "2"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    one, two = (read_series(p / "metrics.csv") for p in (alone, tmp_path / "runs" / "independent"))
    np.testing.assert_allclose([v for _, v in two["train/loss"]], [v for _, v in one["train/loss"]], rtol=2e-6)
    assert ended.stdout.count("Report:") == 1
