"""A disk that is full at some moment: one line says how to continue, and that works.

A limit on the size of files stands for it: writing fails in the middle of a file.
"""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch
from lightning import Callback
from tiny_runs import says, tiny_config

UNLIMITED = resource.getrlimit(resource.RLIMIT_FSIZE)
SAME = "make room, then run the same command again"


def limit(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, UNLIMITED[1]))


class Full(Callback):
    """Files beyond ``size`` bytes cannot be written once the hook has been called so often."""

    def __init__(self, hook: str, count: int, size: int) -> None:
        def fill(*args, **kwargs):
            self.seen += 1
            if self.seen == count:
                limit(size)

        self.seen = 0
        setattr(self, hook, fill)


@pytest.fixture
def cut_off(command):
    """``cut_off(..., size=None)``: a command that a full disk must end, with one line; returns the line."""

    def run(*words: object, size: int | None = None) -> str:
        try:
            if size is not None:
                limit(size)
            ended = command(*words)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, UNLIMITED)
        assert ended.status == 2, ended
        line = ended.err.splitlines()[-1]
        says(line, "fm-lightning: ", "Cannot write", "file too large. Finished work is kept")
        return line

    return run


def full_at(path: Path, hook: str, count: int, size: int) -> Path:
    def change(config):
        config["data"]["init_args"] |= {"predict_seeds": 13}
        fill = {"class_path": "test_full_disk.Full", "init_args": {"hook": hook, "count": count, "size": size}}
        config["trainer"]["callbacks"].append(fill)

    return tiny_config(path, change)


@pytest.mark.parametrize(
    ("verb", "hook", "count", "size"),
    [
        ("fit", "setup", 1, 1000),  # the first files of a run
        ("fit", "on_train_batch_end", 3, 10_000),  # a checkpoint
        pytest.param("run", "on_train_batch_end", 3, 10_000, marks=pytest.mark.slow),
        ("run", "on_test_batch_end", 1, 1000),  # a block of the table
        ("run", "on_test_epoch_end", 1, 4000),  # results
    ],
)
def test_training_and_comparing_resume(command, cut_off, tmp_path, verb, hook, count, size):
    line = cut_off(verb, "-c", full_at(tmp_path / "full.yaml", hook, count, size))
    assert line.endswith(SAME)
    ended = command(verb, "-c", "tiny.yaml")
    assert ended.status == 0, ended.err
    assert torch.load("runs/tiny/checkpoints/last.ckpt", weights_only=True)["global_step"] == 4


def test_the_advice_leaves_out_what_would_start_over(command, cut_off, tmp_path):
    assert command("run", "-c", "tiny.yaml").status == 0
    line = cut_off("test", "-c", full_at(tmp_path / "full.yaml", "on_test_batch_end", 1, 1000), "--again")
    assert line.endswith(f"{SAME} (without --again)")
    ended = command("test", "-c", "tiny.yaml")
    assert ended.status == 0, ended.err
    assert "samples are there already" in ended.out


def test_samples_are_repeated(command, cut_off, tmp_path):
    assert command("fit", "-c", "tiny.yaml").status == 0
    file = full_at(tmp_path / "full.yaml", "on_predict_batch_start", 2, 1000)
    assert cut_off("predict", "-c", file).endswith("make room, then run the same command with --again")
    samples = Path("runs/tiny/samples")
    assert len(list(samples.iterdir())) == 1, "the first batch, and nothing half written"
    assert command("predict", "-c", "tiny.yaml", "--data.init_args.predict_seeds", 13, "--again").status == 0
    assert len(list(samples.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("size", [3000, 30_000])
def test_a_report_is_redrawn(command, drawn, cut_off, tmp_path, size):
    assert command("run", "-c", "tiny.yaml").status == 0
    page = Path("runs/tiny/report.html").read_bytes()
    assert cut_off("report", "runs/tiny", size=size).endswith(SAME)
    assert Path("runs/tiny/report.html").read_bytes() == page
    assert command("report", "runs/tiny").status == 0


@pytest.mark.slow
def test_a_diagnosis_is_repeated(command, cut_off, tmp_path):
    assert command("run", "-c", "tiny.yaml", "--data.init_args.test_seeds", 100).status == 0
    again = ("diagnose", "-c", "tiny.yaml", "--data.init_args.test_seeds", 100, "--probes", 20)
    for size in (4000, 30_000):
        assert cut_off(*again, size=size).endswith(SAME)
    ended = command(*again)
    assert ended.status == 0, ended.err


@pytest.mark.parametrize("out", [pytest.param((), marks=pytest.mark.slow), ("--out", "both")])
def test_a_comparison_of_runs_is_repeated(command, cut_off, refused, tmp_path, out):
    for seed, name in enumerate(("a", "b")):
        assert command("run", "-c", "tiny.yaml", "--name", name, "--seed_everything", seed).status == 0
    words = ("compare", "runs/a", "runs/b", *out)
    assert cut_off(*words, size=10_000).endswith(SAME)
    folder = tmp_path / (out[1] if out else "runs/compare-a-b")
    assert (folder / "compare.json").exists()
    assert not (folder / "compare.html").exists()
    (folder / ".compare.html.1.tmp").write_text("a killed command left it")
    assert command(*words).status == 0
    assert (folder / "compare.html").exists()
    assert not (tmp_path / "runs/compare-a-b-2").exists()
    if out:
        says(refused(*words), "both holds files")
