"""Commands that would change, repeat or lose a training: what is refused before anything runs, and what keeps working."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import says, tiny_config

CKPT = "lightning.pytorch.callbacks.ModelCheckpoint"


def step(run="runs/tiny"):
    return torch.load(Path(run) / "checkpoints/last.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.callbacks.EMA.decay", "0.5"], ["trainer.EMA.decay is 0.9 there and 0.5 here"]),
        (["--trainer.gradient_clip_val", "1"], ["trainer.gradient_clip_val is not set there and 1"]),
        (["--trainer.accumulate_grad_batches", "2"], ["trainer.accumulate_grad_batches is 1 there and 2 here"]),
        (["--trainer.precision", "bf16-mixed"], ["trainer.precision is not set there and bf16-mixed here"]),
        (["--model.label_dropout", "0.1"], ["label_dropout"]),
        (["--model.optimizer.init_args.lr", "0.1"], ["model.optimizer.init_args.lr is 0.004 there and 0.1 here"]),
        (["--model.coupling", "fm_lightning.flow.OptimalTransport"], ["model.coupling is not set there"]),
        (["--model.times", "fm_lightning.flow.Stratified"], ["model.times is not set there"]),
        (["--data.init_args.batch_size", "8"], ["data.init_args.batch_size is 16 there and 8 here"]),
        (["--data.init_args.base_seed", "5"], ["base_seed follows from --seed_everything"]),
        (["--seed_everything", "1"], ["model.base_seed is 0 there and 1 here"]),
        (["--trainer.sync_batchnorm", "true"], ["trainer.sync_batchnorm"]),
    ],
)
def test_what_shapes_a_training_may_not_change(command, refused, options, words, half):
    says(refused("fit", "-c", "tiny.yaml", "--trainer.max_steps", 8, *options), *words)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from fm_lightning.cli import command as cli

    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        cli.main(["fit", "-c", str(tiny_config(folder / "tiny.yaml"))])
    return folder / "runs" / "tiny"


@pytest.fixture
def half(trained, tmp_path):
    """A training of 4 steps, to be continued."""
    shutil.copytree(trained, tmp_path / "runs" / "tiny")


def test_learning_rates_that_follow_another_length_are_announced(command, tmp_path):
    warmup = {"class_path": "fm_lightning.training.Warmup", "init_args": {"warmup_steps": 2, "decay": "cosine"}}
    config = tiny_config(tmp_path / "decay.yaml", lambda c: c["model"].update(scheduler=warmup))
    assert "max_steps=" not in command("fit", "-c", config).out
    ended = command("fit", "-c", config, "--trainer.max_steps", 8)
    assert ended.status == 0, ended.err
    says(ended.out, "Learning rates so far followed max_steps=4, and follow max_steps=8 now")


@pytest.mark.parametrize("share", ["1", "1.5", "-0.1"])
def test_a_share_of_labels_that_is_none_is_refused(refused, share):
    says(refused("fit", "-c", "tiny.yaml", "--model.label_dropout", share), "must be at least 0 and below 1")


def test_the_comparison_alone_is_set_aside_and_the_training_continues(command, refused):
    """4 steps, compared; then 6: refused before training, and the advice keeps the training."""
    assert command("run", "-c", "tiny.yaml").status == 0
    more = ("run", "-c", "tiny.yaml", "--trainer.max_steps", 6)
    says(refused(*more), "holds a comparison of step 4", "more training changes the weights", "--again evaluation")
    ended = command(*more, "--again", "evaluation")
    assert ended.status == 0, ended.err
    says(ended.out, "Moved what was there to runs/tiny/earlier-1")
    assert step() == 6
    steps = [
        int(line.split(",")[0])
        for line in Path("runs/tiny/metrics.csv").read_text().splitlines()
        if "train/loss" in line
    ]
    assert steps == [0, 1, 2, 3, 4, 5], "no step is repeated"
    assert json.loads(Path("runs/tiny/results.json").read_text())["step"] == 6
    assert json.loads(Path("runs/tiny/earlier-1/results.json").read_text())["step"] == 4


def test_again_evaluation_is_refused_where_it_has_no_meaning(refused):
    for verb in ("predict", "validate"):
        says(refused(verb, "-c", "tiny.yaml", "--again", "evaluation"), f"{verb} has no --again evaluation.")


def test_guidance_without_a_trained_null_class_is_announced(command, tmp_path):
    def change(c, **model):
        c["data"]["init_args"]["conditional"] = True
        c["model"]["net"]["init_args"] |= {"num_classes": 2, "null_class": True}
        c["model"] |= {"guidance": 2.0, **model}

    ended = command("fit", "-c", tiny_config(tmp_path / "guided.yaml", change), "--trainer.max_steps", 2)
    assert ended.status == 0, ended.err
    says(ended.out, "guidance=2 evaluates the null class, which label_dropout=0 never trains")
    trained = tiny_config(tmp_path / "dropped.yaml", lambda c: change(c, label_dropout=0.1))
    ended = command("fit", "-c", trained, "--trainer.max_steps", 2, "--name", "dropped")
    assert ended.status == 0, ended.err
    assert "null class" not in ended.out


def checkpoints(**arguments):
    def change(c):
        c["trainer"]["callbacks"][-1] = {"class_path": CKPT, "init_args": arguments}

    return change


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"save_last": False},
        pytest.param({"every_n_train_steps": 2, "save_top_k": -1}, marks=pytest.mark.slow),
        pytest.param({"save_top_k": 0}, marks=pytest.mark.slow),
    ],
)
def test_a_run_can_be_resumed_and_compared_whatever_checkpoints_are_configured(command, tmp_path, arguments):
    file = tiny_config(tmp_path / "kept.yaml", checkpoints(**arguments))
    assert command("fit", "-c", file).status == 0
    assert step() == 4
    assert command("test", "-c", file).status == 0
    assert command("fit", "-c", file, "--trainer.max_steps", 6, "--name", "longer").status == 0
    assert step("runs/longer") == 6


def test_a_deleted_checkpoint_is_not_trained_over(command, refused):
    assert command("run", "-c", "tiny.yaml").status == 0
    Path("runs/tiny/checkpoints/last.ckpt").unlink()
    for verb in ("fit", "run"):
        line = refused(verb, "-c", "tiny.yaml", "--trainer.max_steps", 6)
        says(
            line,
            "runs/tiny/checkpoints/last.ckpt is missing",
            "--ckpt_path runs/tiny/checkpoints/step-4.ckpt",
            "--again",
        )
    for file in Path("runs/tiny/checkpoints").iterdir():
        file.unlink()
    says(
        refused("fit", "-c", "tiny.yaml", "--trainer.max_steps", 6), "last.ckpt is missing", "Restore it, or start over"
    )


@pytest.mark.parametrize("words", [("report", "runs/a"), ("compare", "runs/a", "runs/b")])
def test_ctrl_c_while_a_run_is_read(command, words):
    """The run's table is a pipe, so that the signal arrives while the command waits for it."""
    for name in ("a", "b"):
        Path(f"runs/{name}/evaluation").mkdir(parents=True)
        os.mkfifo(f"runs/{name}/evaluation/manifest.json")
    importlib.import_module(f"fm_lightning.cli.{words[0]}")  # while libraries load, a signal ends the process at once

    def interrupt():
        with open("runs/a/evaluation/manifest.json", "w"):  # waits for the reader
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)

    thread = threading.Thread(target=interrupt)
    thread.start()
    ended = command(*words)
    thread.join()
    assert (ended.status, ended.err) == (130, f"fm-lightning: {words[0]} was interrupted.\n")
