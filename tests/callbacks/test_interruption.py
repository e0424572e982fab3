"""Ctrl-C and SIGTERM: nothing is lost, one line says how to resume, and the status says which signal it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning import Callback
from tiny_runs import says, tiny_config

from fm_lightning.training.tracking import read_series


class Strike(Callback):
    """Sends this process a signal (or several) when the hook has been called so often."""

    def __init__(
        self, hook: str, count: int, number: int = int(signal.SIGINT), times: int = 1, only_on: int = 0, pause: int = 0
    ) -> None:
        def strike(*args, **kwargs):
            self.seen += 1
            if self.seen == count and int(os.environ.get("LOCAL_RANK", 0)) == only_on:
                for _ in range(times):
                    os.kill(os.getpid(), number)
                    time.sleep(pause)

        self.seen = 0
        setattr(self, hook, strike)


def config(path, *strikes, steps=12, accumulate=1, every=100, **trainer):
    def change(c):
        c["trainer"] |= {"max_steps": steps, "accumulate_grad_batches": accumulate}
        c["trainer"] |= {"val_check_interval": 3 * accumulate, **trainer}
        c["trainer"]["callbacks"][-1]["init_args"]["every_n_train_steps"] = every
        for hook, count, *more in strikes:
            arguments = {
                "hook": hook,
                "count": count,
                **dict(zip(("number", "times", "only_on", "pause"), map(int, more))),
            }
            strike = {"class_path": "test_interruption.Strike", "init_args": arguments}
            c["trainer"]["callbacks"].insert(0, strike)

    return tiny_config(path, change)


def same(folder, whole):
    """The same weights, average and optimizer state to the bit, and the same curves."""
    a, b = (torch.load(f / "checkpoints/last.ckpt", weights_only=True) for f in (folder, whole))
    assert a["global_step"] == b["global_step"]
    for part in ("state_dict", "current_model_state"):
        assert all(torch.equal(value, b[part][name]) for name, value in a[part].items()), part
    states = [c["optimizer_states"][0]["state"] for c in (a, b)]
    assert all(torch.equal(v, states[1][i][k]) for i, s in states[0].items() for k, v in s.items())
    assert a["lr_schedulers"] == b["lr_schedulers"]
    assert read_series(folder / "metrics.csv") == read_series(whole / "metrics.csv")


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2], ids=["plain", "accumulating"])
def whole(request, tmp_path_factory):
    """A run that was never interrupted, and in how many micro-batches it accumulates."""
    from fm_lightning.cli import command as cli

    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        cli.main(["fit", "-c", str(config(folder / "tiny.yaml", accumulate=request.param))])
    return request.param, folder / "runs/tiny"


@pytest.mark.parametrize(
    ("hook", "step", "stopped"),
    [
        ("on_before_backward", 5, 5),  # within a step: it is finished
        # within a step that a validation follows: the signal ends the validation
        pytest.param("on_before_backward", 6, 6, marks=pytest.mark.slow),
        pytest.param("on_before_backward", 1, 1, marks=pytest.mark.slow),
        pytest.param("on_train_batch_end", 7, 7, marks=pytest.mark.slow),
        ("on_train_batch_start", 7, 6),  # before the place where training stops
        ("on_validation_batch_start", 1, 3),  # the first batch, and one of seeds
        pytest.param("on_validation_batch_start", 5, 3, marks=pytest.mark.slow),
        pytest.param(
            "on_validation_batch_end", 6, 6, marks=pytest.mark.slow
        ),  # the last batch: the validation is finished
        pytest.param("on_validation_epoch_end", 2, 6, marks=pytest.mark.slow),
        pytest.param("on_validation_epoch_start", 2, 6, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_training_resumes_exactly(command, tmp_path, whole, hook, step, stopped):
    accumulate, expected = whole
    count = step if "validation" in hook else (step - 1) * accumulate + 1
    file = config(tmp_path / "cut.yaml", (hook, count), accumulate=accumulate)
    ended = command("fit", "-c", file)
    assert ended.status == 130, ended
    line = ended.err.splitlines()[-1]
    says(line, "fm-lightning: Interrupted at step", ". Run the same command to resume from there")
    at = torch.load(tmp_path / "runs/tiny/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert f"at step {at:,}. Run" in line
    assert at == stopped
    assert command("fit", "-c", config(tmp_path / "cut.yaml", accumulate=accumulate)).status == 0
    same(tmp_path / "runs/tiny", expected)
    assert [p.name for p in (tmp_path / "runs/tiny/checkpoints").glob("last*")] == ["last.ckpt"]


def test_each_signal_has_its_status_and_a_run_can_be_interrupted_again_and_again(command, tmp_path, whole):
    accumulate, expected = whole
    for number, status, step in ((signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 4), (signal.SIGTERM, 143, 5)):
        done = 0 if step == 2 else 2 if step == 4 else 6  # counted from there
        strike = ("on_train_batch_end", step * accumulate, number)
        ended = command("fit", "-c", config(tmp_path / "cut.yaml", strike, accumulate=accumulate, every=5))
        assert ended.status == status
        says(ended.err.splitlines()[-1], f"Interrupted at step {done + step}. Run")
    assert command("fit", "-c", config(tmp_path / "cut.yaml", accumulate=accumulate, every=5)).status == 0
    same(tmp_path / "runs/tiny", expected)


@pytest.mark.parametrize("step", [pytest.param(step, marks=pytest.mark.slow) for step in (3, 4, 5)])
def test_epochs_of_a_known_length(command, tmp_path, step):
    # Without max_steps an epoch is a pass over the data: 4 steps here.
    settings = {"steps": -1, "max_epochs": 3, "val_check_interval": 1.0, "check_val_every_n_epoch": 1}
    data = ("--data.init_args.n", 64)
    assert command("fit", "-c", config(tmp_path / "a.yaml", **settings), *data, "--name", "whole").status == 0
    strike = ("on_before_backward", step)
    ended = command("fit", "-c", config(tmp_path / "b.yaml", strike, **settings), *data)
    assert ended.status == 130
    assert command("fit", "-c", config(tmp_path / "b.yaml", **settings), *data).status == 0
    same(tmp_path / "runs/tiny", tmp_path / "runs/whole")


def test_a_second_signal_stops_at_once(command, tmp_path):
    file = config(tmp_path / "cut.yaml", ("on_before_backward", 8, signal.SIGINT, 2, 0, 2), every=5)
    ended = command("fit", "-c", file)
    assert ended.status == 130
    says(ended.err.splitlines()[-1], "Stopped at once. Run the same command to resume from the latest checkpoint")
    left = torch.load(tmp_path / "runs/tiny/checkpoints/last.ckpt", weights_only=True)
    assert left["global_step"] == 5


def test_a_signal_that_arrives_twice_is_one(command, tmp_path):
    """A wrapper repeats the signal of the terminal."""
    ended = command("fit", "-c", config(tmp_path / "cut.yaml", ("on_before_backward", 8, signal.SIGINT, 2), every=5))
    assert ended.status == 130
    says(ended.err.splitlines()[-1], "Interrupted at step 8. Run the same command to resume from there")


def test_before_training_begins_nothing_is_made_up(command, tmp_path):
    ended = command("fit", "-c", config(tmp_path / "cut.yaml", ("on_fit_start", 1)))
    assert ended.status == 130
    says(ended.err.splitlines()[-1], "Interrupted before training. Run the same command to start")
    assert not (tmp_path / "runs/tiny/checkpoints").exists()
    assert command("fit", "-c", config(tmp_path / "cut.yaml", steps=1)).status == 0


def test_options_that_would_start_over_are_to_be_left_out(command, tmp_path):
    file = config(tmp_path / "cut.yaml", ("on_before_backward", 2))
    ended = command("fit", "-c", file, "--again")
    says(ended.err.splitlines()[-1], "at step 2. Run the same command (without --again) to resume from there")


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_while_comparing(command, tmp_path, number, status):
    ended = command("run", "-c", config(tmp_path / "cut.yaml", ("on_test_batch_start", 2, number), steps=2))
    assert ended.status == status
    says(
        ended.err.splitlines()[-1],
        "Interrupted while comparing schedules; finished samples are kept. Run the same command to resume",
    )
    assert not (tmp_path / "runs/tiny/results.json").exists()
    assert command("run", "-c", config(tmp_path / "cut.yaml", steps=2)).status == 0
    assert (tmp_path / "runs/tiny/results.json").exists()


def test_while_sampling_the_advice_is_one_that_works(command, tmp_path):
    assert command("fit", "-c", config(tmp_path / "cut.yaml", steps=2)).status == 0
    file = config(tmp_path / "cut.yaml", ("on_predict_batch_end", 1), steps=2)
    ended = command("predict", "-c", file)
    assert ended.status == 130
    says(ended.err.splitlines()[-1], "Interrupted while sampling. Run the same command with --again to repeat it")
    assert command("predict", "-c", config(tmp_path / "cut.yaml", steps=2), "--again").status == 0


def test_with_the_last_step_of_a_run_the_training_ends_and_nothing_is_compared(command, tmp_path):
    ended = command("run", "-c", config(tmp_path / "cut.yaml", ("on_before_backward", 2), steps=2))
    assert ended.status == 130
    assert not (tmp_path / "runs/tiny/results.json").exists()
    assert command("run", "-c", config(tmp_path / "cut.yaml", steps=2)).status == 0
    assert (tmp_path / "runs/tiny/results.json").exists()


@pytest.mark.slow
def test_processes_stop_before_the_same_step(tmp_path):
    """One of two processes gets the signal; the resumed training equals that of one process."""
    here = Path(__file__).parent
    path = ":".join(map(str, (here.parents[1], here.parent, here)))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}

    def fit(name, file, *more):
        ended = subprocess.run(
            [sys.executable, "-m", "fm_lightning", "fit", "-c", file, "--name", name, *more],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        return ended.returncode, ended.stderr

    strike = ("on_before_backward", 3, signal.SIGTERM, 1, 1)
    file = config(tmp_path / "cut.yaml", strike, steps=24, val_check_interval=100)
    status, err = fit("cut", file, "--trainer.devices", "2", "--trainer.strategy", "ddp")
    assert status == 143, err
    assert err.count("Interrupted at step 10. Run the same command to resume from there") == 1
    file = config(tmp_path / "whole.yaml", steps=24, val_check_interval=100)
    assert fit("cut", file)[0] == fit("whole", file)[0] == 0
    a, b = (read_series(tmp_path / "runs" / name / "metrics.csv")["train/loss"] for name in ("cut", "whole"))
    assert [step for step, _ in a] == [step for step, _ in b]
    assert [loss for _, loss in a] == pytest.approx([loss for _, loss in b], rel=1e-5)


def test_handlers_are_as_before(command, tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    command("fit", "-c", config(tmp_path / "cut.yaml", ("on_before_backward", 2)))
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
