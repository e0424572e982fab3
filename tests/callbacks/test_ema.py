"""EMA: every checkpoint and every validation has the right weights, at every moment."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from fm_lightning import FlowMatching, FlowTrainer, Schedule, UserError
from fm_lightning.callbacks import EMA
from fm_lightning.data import Toy2D
from fm_lightning.nets import ResidualMLP

DECAY = 0.8


def weights(module):
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class Watch(Callback):
    """The raw weights after each optimizer step, and what validation and test worked with."""

    def __init__(self, fail_in_validation_at=None):
        self.raw, self.validated, self.tested, self.started = {}, {}, None, None
        self.fail_at = fail_in_validation_at

    def on_train_start(self, trainer, pl_module):
        self.started = weights(pl_module)

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.raw[trainer.global_step] = weights(pl_module)

    def on_validation_batch_start(self, trainer, pl_module, *args):
        self.validated[trainer.global_step] = weights(pl_module)
        if trainer.global_step == self.fail_at:
            raise RuntimeError("lost")

    def on_test_batch_start(self, trainer, pl_module, *args):
        self.tested = weights(pl_module)


def build(tmp_path, *callbacks, steps=6, **kwargs):
    torch.manual_seed(0)
    model = FlowMatching(
        ResidualMLP([2], width=16, depth=1),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.2),
        val_schedules={"base": Schedule(steps=2)},
        floors=False,
    )
    data = Toy2D(n=20, batch_size=8, eval_batch_size=8, val_seeds=8, test_seeds=8)
    settings = {
        "accelerator": "cpu",
        "max_steps": steps,
        "val_check_interval": 2,
        "check_val_every_n_epoch": None,
        "limit_val_batches": 1,
        "num_sanity_val_steps": 0,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
    }
    return model, data, FlowTrainer(callbacks=list(callbacks), **settings | kwargs)


def average(raw, start=0):
    """The recursion in float64, begun with the weights of the first step that counts."""
    out = None
    for step in sorted(raw):
        if step > start:
            now = {name: value.double() for name, value in raw[step].items()}
            out = now if out is None else {n: DECAY * out[n] + (1 - DECAY) * now[n] for n in now}
    return out


def close(a, b):
    return a.keys() == b.keys() and all(torch.allclose(a[n].double(), b[n], rtol=0, atol=3e-7) for n in a)


@pytest.mark.parametrize(("start", "accumulate"), [(0, 1), (2, 1), (0, 2)])
def test_the_average_is_the_recursion(tmp_path, start, accumulate):
    watch, ema = Watch(), EMA(DECAY, start)
    model, data, trainer = build(tmp_path, watch, ema, accumulate_grad_batches=accumulate, val_check_interval=100)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    kept = torch.load(tmp_path / "end.ckpt", weights_only=True)
    expected = average(watch.raw, start)
    assert sorted(watch.raw) == list(range(0 if accumulate > 1 else 1, 7))
    assert close(kept["state_dict"], expected)
    assert close(weights(model), expected), "after training the module holds the average"
    assert equal(kept["current_model_state"], watch.raw[6])
    assert not equal(kept["state_dict"], kept["current_model_state"])


def test_validation_sees_the_average_and_training_continues_from_the_raw_weights(tmp_path):
    plain, with_ema = Watch(), Watch()
    for watch, extra in ((plain, []), (with_ema, [EMA(DECAY)])):
        model, data, trainer = build(tmp_path, watch, *extra)
        trainer.fit(model, data)
    assert all(equal(plain.raw[step], with_ema.raw[step]) for step in plain.raw)
    for step in (2, 4, 6):
        assert close(with_ema.validated[step], average({s: r for s, r in with_ema.raw.items() if s <= step}))


def test_a_delayed_start_shows_current_weights_until_then(tmp_path):
    watch = Watch()
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=2, save_top_k=-1)
    model, data, trainer = build(tmp_path, watch, EMA(DECAY, start_step=4), keep)
    trainer.fit(model, data)
    for step in (2, 4):
        assert equal(watch.validated[step], watch.raw[step])
        kept = torch.load(tmp_path / "kept" / f"step={step}.ckpt", weights_only=True)
        assert equal(kept["state_dict"], watch.raw[step])
        assert equal(kept["current_model_state"], watch.raw[step])
    assert close(watch.validated[6], average(watch.raw, start=4))


def test_test_after_fit_on_the_same_trainer_tests_the_average(tmp_path):
    watch = Watch()
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=2, save_top_k=-1)
    model, data, trainer = build(tmp_path, watch, EMA(DECAY), keep)
    trainer.fit(model, data)
    trainer.test(model, data, ckpt_path=tmp_path / "kept" / "step=4.ckpt", verbose=False, weights_only=True)
    assert close(watch.tested, average({s: r for s, r in watch.raw.items() if s <= 4}))
    assert not equal(watch.tested, watch.raw[4])


def test_test_after_fit_without_a_checkpoint_tests_the_average(tmp_path):
    watch = Watch()
    model, data, trainer = build(tmp_path, watch, EMA(DECAY))
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    assert close(watch.tested, average(watch.raw))


def test_a_checkpoint_saved_after_a_test_still_has_both(tmp_path):
    watch = Watch()
    model, data, trainer = build(tmp_path, watch, EMA(DECAY))
    trainer.fit(model, data)
    trainer.test(model, data, verbose=False)
    trainer.save_checkpoint(tmp_path / "late.ckpt")
    kept = torch.load(tmp_path / "late.ckpt", weights_only=True)
    assert close(kept["state_dict"], average(watch.raw))
    assert equal(kept["current_model_state"], watch.raw[6])


@pytest.mark.parametrize("when", [{"every_n_train_steps": 3}, {"every_n_epochs": 1, "save_on_train_epoch_end": True}])
def test_the_last_checkpoint_of_training_has_both(tmp_path, when):
    watch = Watch()
    keep = ModelCheckpoint(tmp_path / "kept", save_last=True, **when)
    model, data, trainer = build(tmp_path, watch, EMA(DECAY), keep)
    trainer.fit(model, data)
    kept = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=True)
    assert kept["global_step"] == 6
    assert close(kept["state_dict"], average(watch.raw))
    assert equal(kept["current_model_state"], watch.raw[6])


def test_an_exception_in_validation_keeps_raw_and_average_apart(tmp_path):
    watch = Watch(fail_in_validation_at=4)
    keep = ModelCheckpoint(tmp_path / "kept", "{step}", every_n_train_steps=100, save_on_exception=True)
    model, data, trainer = build(tmp_path, watch, EMA(DECAY), keep)
    with pytest.raises(RuntimeError, match="lost"):
        trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "kept" / "by_hand.ckpt")
    paths = sorted((tmp_path / "kept").glob("*.ckpt"))
    assert len(paths) == 2
    for path in paths:
        kept = torch.load(path, weights_only=True)
        assert equal(kept["current_model_state"], watch.raw[4])
        assert close(kept["state_dict"], average({s: r for s, r in watch.raw.items() if s <= 4}))


def test_resuming_without_the_callback_is_refused(tmp_path):
    model, data, trainer = build(tmp_path, EMA(DECAY))
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    model, data, trainer = build(tmp_path, steps=8)
    with pytest.raises(UserError, match=r"no EMA callback .* Add fm_lightning.callbacks.EMA"):
        trainer.fit(model, data, ckpt_path=tmp_path / "end.ckpt", weights_only=True)


def test_testing_without_the_callback_is_fine(tmp_path):
    first = Watch()
    model, data, trainer = build(tmp_path, first, EMA(DECAY))
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    watch = Watch()
    model, data, trainer = build(tmp_path, watch)
    trainer.test(model, data, ckpt_path=tmp_path / "end.ckpt", verbose=False, weights_only=True)
    assert close(watch.tested, average(first.raw))


def test_a_second_fit_continues_from_the_raw_weights(tmp_path):
    watch, ema = Watch(), EMA(DECAY)
    model, data, trainer = build(tmp_path, watch, ema)
    trainer.fit(model, data)
    last = watch.raw[6]
    assert not equal(weights(model), last)
    trainer.fit_loop.epoch_loop.max_steps = 9
    trainer.fit(model, data)
    assert equal(watch.started, last)
    assert sorted(watch.raw)[-1] == 9


def test_a_second_fit_with_another_trainer_averages_again(tmp_path):
    ema = EMA(DECAY)
    model, data, trainer = build(tmp_path, ema)
    trainer.fit(model, data)
    watch = Watch()
    _, data, trainer = build(tmp_path, watch, ema, steps=3, val_check_interval=100)
    trainer.fit(model, data)
    assert close(weights(model), average(watch.raw))


def test_an_exception_in_validation_does_not_leave_the_average_for_the_next_fit(tmp_path):
    watch, ema = Watch(fail_in_validation_at=4), EMA(DECAY)
    model, data, trainer = build(tmp_path, watch, ema)
    with pytest.raises(RuntimeError, match="lost"):
        trainer.fit(model, data)
    again = Watch()
    _, data, trainer = build(tmp_path, again, ema)
    trainer.fit(model, data)
    assert equal(again.started, watch.raw[4])


def test_the_average_copies_neither_optimizer_recipe_nor_what_it_refers_to(tmp_path):
    # The command line's recipes refer to the trainer, and on several devices to its processes: these cannot be copied.
    class Recipe:
        lock = threading.Lock()

        def __init__(self):
            self.held = self.lock

        def __call__(self, *args):
            return torch.optim.SGD(args[0], lr=0.1)

    model = FlowMatching(ResidualMLP([2], width=16, depth=1), optimizer=Recipe(), scheduler=Recipe())
    twin = copy.deepcopy(model)
    assert twin.optimizer is model.optimizer
    assert twin.scheduler is model.scheduler
    assert twin.net is not model.net


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_out_of_range_is_refused(decay):
    with pytest.raises(UserError, match=r"`decay=.*` must be at least 0 and below 1"):
        EMA(decay)
