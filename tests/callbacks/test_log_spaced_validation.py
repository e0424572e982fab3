"""Validation at logarithmically spaced steps: which steps, with micro-batches, after a kill, and with raw weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from fm_lightning import FlowMatching, FlowTrainer, Schedule
from fm_lightning.callbacks import EMA, KPEDistribution, LogSpacedValidation
from fm_lightning.callbacks.log_spaced_validation import spaced
from fm_lightning.data import Toy2D
from fm_lightning.errors import UserError
from fm_lightning.nets import ResidualMLP
from fm_lightning.training.tracking import AppendingCSVLogger, read_series


class Killed(Exception):
    pass


class Kill(Callback):
    def __init__(self, step, place):
        self.step, self.place = step, place

    def on_train_batch_start(self, trainer, *args):
        if self.place == "training" and trainer.global_step == self.step:
            raise Killed

    def on_validation_batch_start(self, trainer, *args):
        if self.place == "validation" and trainer.global_step == self.step:
            raise Killed


def train(folder, *callbacks, steps=30, accumulate=1, every=4, resume=False, average=True, epochs=None, **options):
    torch.manual_seed(0)
    model = FlowMatching(
        ResidualMLP([2], width=16, depth=1),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
        val_schedules={"base": Schedule(steps=2)},
    )
    data = Toy2D(n=20, batch_size=8, eval_batch_size=8, val_seeds=12, test_seeds=8)
    keep = ModelCheckpoint(folder / "kept", every_n_train_steps=every, save_last=True)
    spacing = LogSpacedValidation(**{"points": 6, "first": 2} | options)
    trainer = FlowTrainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=epochs,
        accumulate_grad_batches=accumulate,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=10,
        default_root_dir=folder,
        logger=AppendingCSVLogger(str(folder)),
        callbacks=[spacing, *([EMA(0.8)] if average else []), KPEDistribution(), *callbacks, keep],
    )
    last = folder / "kept" / "last.ckpt"
    trainer.fit(model, data, ckpt_path=last if resume else None, weights_only=True)
    return model, data


def curve(folder, name="val/loss"):
    return read_series(folder / "metrics.csv")[name]


def steps(folder):
    return [step + 1 for step, _ in curve(folder)]  # logged at the step's own number, counted from 0


def test_steps_are_a_constant_factor_apart():
    assert spaced(2, 30, 6) == [2, 3, 6, 10, 17, 30]  # 2 * 15 ** (k / 5)
    for last in (7, 1234, 100_000):
        found = np.array(spaced(10, last, 20))
        assert found[-1] == last
        assert (np.diff(found) > 0).all()
    ratios = found[1:] / found[:-1]
    assert ratios[5:].max() / ratios[5:].min() < 1.03
    assert spaced(10, 7, 20) == [7], "a training shorter than the first step"


@pytest.fixture(scope="module", params=[pytest.param(1, marks=pytest.mark.slow), 2], ids=["plain", "accumulating"])
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    train(folder, accumulate=request.param)
    return request.param, folder


def test_validates_at_each_point_and_at_the_last_step(whole):
    assert steps(whole[1]) == [2, 3, 6, 10, 17, 30]


@pytest.mark.parametrize(
    ("step", "place", "every"),
    [
        (10, "validation", 4),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((9, "training", 4), (10, "validation", 10), (10, "training", 10), (18, "training", 17))
        ),
    ],
)
def test_a_killed_run_validates_at_the_same_steps(tmp_path, whole, step, place, every):
    accumulate, folder = whole
    with pytest.raises(Killed):
        train(tmp_path, Kill(step, place), accumulate=accumulate, every=every)
    train(tmp_path, accumulate=accumulate, every=every, resume=True)
    assert curve(tmp_path) == curve(folder)
    assert curve(tmp_path, "val/base/kpe_mean") == curve(folder, "val/base/kpe_mean")


def test_more_steps_continue_on_the_longer_spacing(tmp_path):
    train(tmp_path, steps=10)
    train(tmp_path, steps=40, resume=True)
    assert steps(tmp_path)[-3:] == [12, 22, 40]  # 2 * 20 ** (k / 5)


def test_raw_weights_are_measured_next_to_the_average(tmp_path):
    train(tmp_path, raw=True, every=30)
    names = read_series(tmp_path / "metrics.csv")
    raw, averaged = dict(names["val/raw/kpe_mean"]), dict(names["val/base/kpe_mean"])
    assert raw.keys() == averaged.keys()
    assert all(raw[step] != averaged[step] for step in raw)
    # Independently: the checkpoint's raw weights, sampled by hand.
    from fm_lightning.data import noise
    from fm_lightning.flow import integrate

    kept = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)
    for state, logged in ((kept["current_model_state"], raw), (kept["state_dict"], averaged)):
        net = ResidualMLP([2], width=16, depth=1)
        net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        x0 = noise(torch.arange(12), (2,), 0)
        with torch.no_grad():
            found = integrate(net, x0, Schedule(steps=2))
        assert float(found.kpe.mean()) == pytest.approx(logged[29], rel=1e-5)


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="points=1"):
        LogSpacedValidation(points=1)
    with pytest.raises(UserError, match="first=0"):
        LogSpacedValidation(first=0)
    with pytest.raises(UserError, match="validated weights are the raw ones"):
        train(tmp_path, raw=True, average=False)
    with pytest.raises(UserError, match="needs to know when training ends"):
        train(tmp_path, steps=-1, epochs=-1)
