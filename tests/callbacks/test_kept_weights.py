"""CheckpointSeries and PowerAverages: the files hold the right weights, also after an interruption."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from fm_lightning import FlowMatching, FlowTrainer, Schedule, UserError, load_network
from fm_lightning.adapters.kept_weights import SharedNetwork, averaged_weights, earlier_weights, rates_decay
from fm_lightning.adapters.power_average import exponent, keeps
from fm_lightning.callbacks import EMA, CheckpointSeries, PowerAverages
from fm_lightning.data import Toy2D
from fm_lightning.nets import ResidualMLP

STEPS = 20
NET = ResidualMLP([2], width=8, depth=1)


class Watch(Callback):
    """The raw weights of the network after each step."""

    def __init__(self):
        self.raw = {}

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.raw[trainer.global_step] = {k: v.clone() for k, v in pl_module.net.state_dict().items()}


def fit(folder, *callbacks, steps=STEPS, ckpt_path=None, scheduler=None, **settings):
    torch.manual_seed(0)
    net = ResidualMLP([2], width=8, depth=1)
    model = FlowMatching(net, scheduler=scheduler, val_schedules={"base": Schedule(steps=2)}, floors=False)
    data = Toy2D(n=20, batch_size=8, eval_batch_size=8, val_seeds=8, test_seeds=8)
    trainer = FlowTrainer(
        accelerator="cpu",
        max_steps=steps,
        default_root_dir=folder,
        callbacks=list(callbacks),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **settings,
    )
    trainer.fit(model, data, ckpt_path=ckpt_path)
    return trainer


def read(folder, kind, step):
    return torch.load(folder / "checkpoints" / kind / f"step-{step}.ckpt", weights_only=True)


def test_the_default_steps_reach_back_to_a_quarter():
    steps = CheckpointSeries().steps(5000)
    assert len(steps) == 12
    assert steps[0] == 1154
    assert steps[-1] == 4425
    assert CheckpointSeries().steps(3) == [1, 2]


@pytest.mark.parametrize("order", [0, 1])
def test_an_earlier_checkpoint_holds_the_average_at_its_step(tmp_path, order):
    watch, series = Watch(), CheckpointSeries(count=4, ratio=1.5)
    callbacks = [EMA(decay=0.8), watch, series] if order else [series, watch, EMA(decay=0.8)]
    fit(tmp_path, *callbacks)
    average = None
    for step in range(1, STEPS + 1):
        raw = watch.raw[step]
        average = raw if average is None else {k: 0.8 * average[k] + 0.2 * raw[k] for k in raw}
        if step in series.steps(STEPS):
            kept = read(tmp_path, "earlier", step)
            assert kept["global_step"] == step
            for name, value in average.items():
                torch.testing.assert_close(kept["state_dict"][f"net.{name}"], value, rtol=1e-5, atol=1e-6)
    assert len(list((tmp_path / "checkpoints/earlier").iterdir())) == len(series.steps(STEPS)) == 4


def test_without_an_average_the_raw_weights_are_kept(tmp_path):
    watch = Watch()
    fit(tmp_path, CheckpointSeries(count=3, ratio=2), watch, accumulate_grad_batches=2)
    kept = read(tmp_path, "earlier", 10)["state_dict"]
    assert all(torch.equal(kept[f"net.{name}"], value) for name, value in watch.raw[10].items())


def test_snapshots_follow_the_recursion(tmp_path):
    watch = Watch()
    fit(tmp_path, watch, PowerAverages(snapshots=4))
    kept = read(tmp_path, "averages", 15)
    for length, state in zip(kept["sigma_rel"], kept["averages"], strict=True):
        average = {name: value.double() for name, value in watch.raw[1].items()}
        for step in range(2, 16):
            share = keeps(step, exponent(length))
            average = {k: share * v + (1 - share) * watch.raw[step][k].double() for k, v in average.items()}
        for name, value in average.items():
            torch.testing.assert_close(state[f"net.{name}"].double(), value, rtol=1e-5, atol=1e-6)


def test_a_resumed_training_keeps_the_same_files(tmp_path):
    def callbacks():
        return [EMA(decay=0.8), CheckpointSeries(count=4, ratio=1.5), PowerAverages(snapshots=4)]

    fit(tmp_path / "whole", *callbacks())
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("step-*.ckpt"))
    cut = fit(tmp_path / "cut", *callbacks(), steps=7)
    cut.save_checkpoint(tmp_path / "cut.ckpt")
    fit(tmp_path / "resumed", *callbacks(), ckpt_path=tmp_path / "cut.ckpt")
    for file in files:
        if int(file.stem.split("-")[1]) > 7:
            one, other = (torch.load(tmp_path / name / file, weights_only=True) for name in ("whole", "resumed"))
            states = [found.get("averages") or [found["state_dict"]] for found in (one, other)]
            for a, b in zip(*states, strict=True):
                assert all(torch.equal(a[name], b[name]) for name in a)


def test_stored_weights_take_turns_in_one_network(tmp_path):
    watch = Watch()
    fit(tmp_path, watch, CheckpointSeries(count=3, ratio=1.5), PowerAverages(snapshots=10))
    net = ResidualMLP([2], width=8, depth=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    shared, stored = SharedNetwork(net), earlier_weights(tmp_path, STEPS, NET)
    assert list(stored) == [6, 9, 13]
    for step in (9, 6, 9, 13):
        held = shared.holding(stored[step]).state_dict()
        assert all(torch.equal(held[name], value) for name, value in watch.raw[step].items())
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    average = averaged_weights(tmp_path, STEPS, NET)
    lengths = [average(length) for length in (0.05, 0.1)]
    kept = read(tmp_path, "averages", STEPS)["averages"]
    for weights, exact in zip(lengths, kept, strict=True):
        for name, value in shared.holding(weights).state_dict().items():
            torch.testing.assert_close(value, exact[f"net.{name}"], rtol=1e-5, atol=1e-6)
    assert len({weights.content for weights in (*stored.values(), *lengths)}) == 5


def test_kept_weights_that_cannot_be_used_are_named(tmp_path):
    fit(tmp_path, CheckpointSeries(count=3, ratio=1.5), PowerAverages(snapshots=4))
    stored = earlier_weights(tmp_path, STEPS, NET)
    (tmp_path / "checkpoints/earlier/step-9.ckpt").unlink()
    with pytest.raises(UserError, match="has disappeared since"):
        SharedNetwork(ResidualMLP([2], width=8, depth=1)).holding(stored[9])
    shutil.copy(tmp_path / "checkpoints/earlier/step-13.ckpt", tmp_path / "checkpoints/earlier/step-6.ckpt")
    with pytest.raises(UserError, match=r"step-6\.ckpt has changed since"):
        SharedNetwork(ResidualMLP([2], width=8, depth=1)).holding(stored[6])
    assert averaged_weights(tmp_path, STEPS + 5, NET) is None
    assert earlier_weights(tmp_path / "elsewhere", STEPS, NET) == {}


@pytest.mark.parametrize("kind", ["earlier", "averages"])
def test_files_that_are_not_of_this_training_are_refused_before_sampling(tmp_path, kind):
    fit(tmp_path, CheckpointSeries(count=3, ratio=1.5), PowerAverages(snapshots=4))
    read = earlier_weights if kind == "earlier" else averaged_weights
    with pytest.raises(UserError, match="does not fit the configured network: net"):
        read(tmp_path, STEPS, ResidualMLP([2], width=16, depth=1))
    with pytest.raises(UserError, match="was trained on other data than are compared here"):
        read(tmp_path, STEPS, NET, "other data")
    data = Toy2D(n=20)
    data.prepare()
    assert read(tmp_path, STEPS, NET, data.fingerprint)
    folder = tmp_path / "checkpoints" / kind
    first = sorted(folder.iterdir(), key=lambda file: int(file.stem[5:]))[0]
    first.rename(folder / "step-19.ckpt")
    with pytest.raises(UserError, match=rf"step-19\.ckpt holds the weights of step {first.stem[5:]}\."):
        read(tmp_path, STEPS, NET)


@pytest.mark.parametrize("decays", [True, False])
def test_a_decaying_rate_is_known_afterwards(tmp_path, decays):
    scheduler = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=STEPS) if decays else None
    fit(tmp_path, CheckpointSeries(count=3, ratio=1.5), scheduler=scheduler)
    assert rates_decay(earlier_weights(tmp_path, STEPS, NET)) == decays


@pytest.mark.parametrize(
    ("callbacks", "words"),
    [
        ([CheckpointSeries(), CheckpointSeries(count=5)], "Only one CheckpointSeries is allowed"),
        ([PowerAverages(), PowerAverages(snapshots=5)], "Two PowerAverages callbacks save at the same steps"),
        ([ModelCheckpoint(), ModelCheckpoint(save_last=True)], "Two ModelCheckpoint callbacks save at the same steps"),
        ([ModelCheckpoint(every_n_train_steps=5), ModelCheckpoint(every_n_train_steps=6)], None),
    ],
)
def test_two_callbacks_of_a_kind(tmp_path, callbacks, words):
    if words is None:
        fit(tmp_path, *callbacks, steps=2)
        return
    with pytest.raises(UserError, match=words):
        fit(tmp_path, *callbacks, steps=2)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", None])
def test_a_damaged_file_is_named(tmp_path, content):
    fit(tmp_path, CheckpointSeries(count=3, ratio=1.5))
    file = tmp_path / "checkpoints/earlier/step-9.ckpt"
    if content is None:
        torch.save({"state_dict": {}}, file)
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"step-9\.ckpt is damaged"):
        earlier_weights(tmp_path, STEPS, NET)


def test_averages_of_other_lengths_are_refused_in_a_resume(tmp_path):
    fit(tmp_path, PowerAverages(), steps=4).save_checkpoint(tmp_path / "cut.ckpt")
    with pytest.raises(UserError, match="other lengths"):
        fit(tmp_path, PowerAverages(sigma_rel=(0.05, 0.2)), ckpt_path=tmp_path / "cut.ckpt")


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: CheckpointSeries(count=2), "too few"),
        (lambda: CheckpointSeries(ratio=1.0), "above 1"),
        (lambda: PowerAverages(sigma_rel=(0.1, 0.1)), "two lengths"),
        (lambda: PowerAverages(sigma_rel=(0.1, 0.3)), "0.288 is the mean over the whole training"),
        (lambda: PowerAverages(snapshots=1), "too few"),
    ],
)
def test_what_cannot_be_kept_is_refused(build, problem):
    with pytest.raises(UserError, match=problem):
        build()


def test_a_training_without_an_end_is_refused(tmp_path):
    for callback in (CheckpointSeries(), PowerAverages()):
        with pytest.raises(UserError, match="when training ends"):
            fit(tmp_path, callback, steps=-1, max_epochs=-1)


def test_the_command_keeps_files_that_load_network_opens(command, tmp_path):
    series = "--trainer.callbacks+=fm_lightning.callbacks.CheckpointSeries"
    ended = command(
        "fit", "-c", "tiny.yaml", "--trainer.max_steps", 8, series, "--trainer.callbacks.CheckpointSeries.ratio", 2
    )
    assert ended.status == 0, ended
    assert "Keeps 3 earlier checkpoints" in ended.out
    net = load_network(tmp_path / "runs/tiny/checkpoints/earlier/step-4.ckpt")
    assert net(torch.zeros(3, 2), torch.zeros(3)).shape == (3, 2)
