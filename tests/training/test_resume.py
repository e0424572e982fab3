"""Stop and resume: the same weights, to the bit, as the run that was never stopped."""

from __future__ import annotations

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from fm_lightning import FlowMatching, FlowTrainer, Schedule
from fm_lightning.callbacks import EMA
from fm_lightning.data import Toy2D
from fm_lightning.flow import OptimalTransport, Stratified
from fm_lightning.nets import ResidualMLP
from fm_lightning.training.optim import Warmup
from fm_lightning.training.tracking import AppendingCSVLogger, read_series

STEPS = 10


class Dropout(nn.Module):
    """A network whose training draws from the global generator."""

    def __init__(self):
        super().__init__()
        self.inner, self.drop = ResidualMLP([2], width=16, depth=1), nn.Dropout(0.3)

    def forward(self, x, t, y=None):
        return self.inner(self.drop(x), t, y)


class Killed(Exception):
    pass


class Kill(Callback):
    def __init__(self, at, in_validation=False):
        self.at, self.in_validation, self.seen = at, in_validation, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if not self.in_validation and self.seen == self.at:
            raise Killed
        self.seen += 1

    def on_validation_batch_start(self, trainer, pl_module, *args):
        if self.in_validation and trainer.global_step >= self.at:
            raise Killed


def state(model, trainer):
    """Everything that training resumes from."""
    trainer.strategy.barrier()
    checkpoint = trainer._checkpoint_connector.dump_checkpoint()
    return {
        name: checkpoint[name]
        for name in (
            "global_step",
            "state_dict",
            "current_model_state",
            "averaging_state",
            "optimizer_states",
            "lr_schedulers",
        )
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    return a == b


def train(folder, *callbacks, steps=STEPS, accumulate=1, ckpt_path=None, seed=1, every=4, n=20, **kwargs):
    torch.manual_seed(0 if ckpt_path is None else seed)  # a resumed process has another random state
    model = FlowMatching(
        Dropout(),
        coupling=OptimalTransport(),
        times=Stratified(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        scheduler=lambda optimizer: Warmup(optimizer, warmup_steps=3, decay="cosine", total_steps=STEPS),
        val_schedules={"base": Schedule(steps=2)},
        base_seed=3,
    )
    data = Toy2D(n=n, batch_size=8, eval_batch_size=8, val_seeds=8, test_seeds=8, base_seed=3)
    keep = ModelCheckpoint(folder / "kept", every_n_train_steps=every, save_last=True, save_on_exception=False)
    settings = {
        "accelerator": "cpu",
        "val_check_interval": 3 * accumulate,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 2,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    trainer = FlowTrainer(
        max_steps=steps,
        accumulate_grad_batches=accumulate,
        logger=AppendingCSVLogger(str(folder)),
        callbacks=[EMA(0.8), *callbacks, keep],
        **settings | kwargs,
    )
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return state(model, trainer)


@pytest.fixture(scope="module", params=[1, 2], ids=["plain", "accumulating"])
def uninterrupted(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return request.param, folder, train(folder, accumulate=request.param)


def curves_agree(folder, whole):
    here, there = (read_series(f / "metrics.csv") for f in (folder, whole))
    assert here["train/loss"] == there["train/loss"]
    assert here["val/loss"] == there["val/loss"]


@pytest.mark.parametrize("stop", [4, 5, 6])
def test_stopped_by_max_steps(tmp_path, uninterrupted, stop):
    accumulate, whole, expected = uninterrupted
    train(tmp_path, accumulate=accumulate, steps=stop, every=stop)
    resumed = train(tmp_path, accumulate=accumulate, ckpt_path=tmp_path / "kept" / "last.ckpt")
    assert same(resumed, expected)
    curves_agree(tmp_path, whole)


@pytest.mark.parametrize("at", [7, 8])
def test_killed_in_training(tmp_path, uninterrupted, at):
    accumulate, whole, expected = uninterrupted
    with pytest.raises(Killed):
        train(tmp_path, Kill(at * accumulate + accumulate - 1), accumulate=accumulate)
    earlier = (tmp_path / "metrics.csv").read_text()
    resumed = train(tmp_path, accumulate=accumulate, ckpt_path=tmp_path / "kept" / "last.ckpt")
    assert same(resumed, expected)
    assert (tmp_path / "metrics.csv").read_text().startswith(earlier), "earlier rows stay"
    curves_agree(tmp_path, whole)


def test_killed_in_validation(tmp_path, uninterrupted):
    accumulate, whole, expected = uninterrupted
    with pytest.raises(Killed):
        train(tmp_path, Kill(6, in_validation=True), accumulate=accumulate)
    resumed = train(tmp_path, accumulate=accumulate, ckpt_path=tmp_path / "kept" / "last.ckpt")
    assert same(resumed, expected)
    curves_agree(tmp_path, whole)


@pytest.mark.parametrize("in_validation", [False, True])
def test_a_checkpoint_made_by_the_exception_itself(tmp_path, uninterrupted, in_validation):
    accumulate, _, expected = uninterrupted
    # Between two micro-batches, where gradients are half accumulated.
    kill = Kill(6 if in_validation else 7 * accumulate + accumulate - 1, in_validation)
    keep = ModelCheckpoint(tmp_path / "lost", "lost", every_n_train_steps=100, save_on_exception=True)
    with pytest.raises(Killed):
        train(tmp_path, kill, keep, accumulate=accumulate)
    (lost,) = (tmp_path / "lost").glob("*.ckpt")
    resumed = train(tmp_path, accumulate=accumulate, ckpt_path=lost)
    assert same(resumed, expected)


def test_resumed_twice(tmp_path, uninterrupted):
    accumulate, whole, expected = uninterrupted
    last = tmp_path / "kept" / "last.ckpt"
    for at, done in ((3, None), (3, last)):
        with pytest.raises(Killed):
            train(tmp_path, Kill(at * accumulate), accumulate=accumulate, every=2, ckpt_path=done)
    assert same(train(tmp_path, accumulate=accumulate, ckpt_path=last), expected)
    curves_agree(tmp_path, whole)


def test_epochs_of_a_known_length(tmp_path):
    # Without max_steps an epoch is a pass over the data: 5 batches of 4 steps here, stopped in the middle of one.
    settings = {"steps": -1, "max_epochs": 5, "n": 32, "every": 3}
    expected = train(tmp_path / "whole", **settings)
    with pytest.raises(Killed):
        train(tmp_path / "cut", Kill(11), **settings)
    resumed = train(tmp_path / "cut", ckpt_path=tmp_path / "cut" / "kept" / "last.ckpt", **settings)
    assert expected["global_step"] == 20
    assert same(resumed, expected)


def test_the_command_resumes_by_itself(command, tmp_path):
    """``fit`` on an unfinished run resumes; its metrics.csv and its end are those of the run that was not stopped."""
    assert command("fit", "-c", "tiny.yaml", "--name", "whole", "--trainer.max_steps", 6).status == 0
    assert command("fit", "-c", "tiny.yaml", "--name", "cut", "--trainer.max_steps", 4).status == 0
    earlier = (tmp_path / "runs/cut/metrics.csv").read_text()
    assert command("fit", "-c", "tiny.yaml", "--name", "cut", "--trainer.max_steps", 6).status == 0
    assert (tmp_path / "runs/cut/metrics.csv").read_text().startswith(earlier)
    a, b = (torch.load(tmp_path / f"runs/{n}/checkpoints/last.ckpt", weights_only=True) for n in ("whole", "cut"))
    assert a["global_step"] == b["global_step"] == 6
    for name in ("state_dict", "current_model_state", "averaging_state", "optimizer_states"):
        assert same(a[name], b[name]), name
    whole, cut = (read_series(tmp_path / f"runs/{n}/metrics.csv") for n in ("whole", "cut"))
    assert whole == cut
