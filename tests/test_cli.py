"""The command line: what is refused, in one line and without a trace; what wins; what a checkpoint holds."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import TINY, says, tiny_config

from fm_lightning import Schedule, load_network
from fm_lightning.tracking import read_series

pytestmark = pytest.mark.usefixtures("undrawn")


def in_model(key, value):
    return lambda config: config["model"].update({key: value})


def kts(**changes):
    return lambda config: config["model"]["test_schedules"]["kts"].update(changes)


def gain(kind="KTS", **arguments):
    return kts(gain={"class_path": f"fm_lightning.flow.{kind}", "init_args": arguments})


def also(*values):
    """A case that takes the same way as another one, for `make test-all`."""
    return pytest.param(*values, marks=pytest.mark.slow)


# Misspelled keys, classes and verbs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modle.net", "x"], ["--modle.net given", "expected", "model", "type --model.net"]),
        (["--model.nett", "3"], ["--model.nett given", "expected", "net", "type --model.net"]),
        (["--trainer.max_stps", "3"], ["--trainer.max_stps given", "type --trainer.max_steps"]),
        also(["--trainer.max_stps=3"], ["--trainer.max_stps given", "type --trainer.max_steps"]),
        (["--model.net.init_args.widht", "3"], ["model.net", "'widht'", "expected", "width, depth", "type width"]),
        (["--data.init_args.bach_size", "3"], ["data", "Toy2D", "'bach_size'", "expected", "type batch_size"]),
        also(["--data.class_path", "Toy3D"], ["data", "Toy3D given", "type e.g. fm_lightning.data.Toy2D"]),
        (["--trainer.max_steps", "many"], ["trainer.max_steps", "many given", "expected int"]),
        also(["--model.base_seed", "3"], ["--model.base_seed given", "type --seed_everything"]),
        (["oops"], ["'oops' given", "type fm-lightning fit --help"]),
    ],
)
def test_misspelled_on_the_command_line(refused, arguments, words):
    says(refused("fit", "-c", "tiny.yaml", *arguments), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(modle={"x": 3}), ["unknown key modle", "type model"]),
        (in_model("nett", 3), ["unknown key model.nett", "type model.net"]),
        also(lambda c: c["trainer"].update(max_stps=3), ["trainer.max_stps", "type trainer.max_steps"]),
        (kts(stepz=3), ["model.test_schedules", "Schedule", "'stepz'", "expected", "type steps"]),
        also(kts(steps="many"), ["model.test_schedules > steps", "many given", "expected int"]),
        (
            kts(gain={"class_path": "fm_lightning.flow.KST"}),
            ["gain", "fm_lightning.flow.KST", "type e.g. fm_lightning.flow.KTS"],
        ),
        (gain(betta=1), ["gain", "KTS", "'betta'", "expected", "alpha, beta", "type beta"]),
        also(gain("SSC"), ["gain", "SSC without scale and power"]),
        (
            lambda c: c["trainer"]["callbacks"].append({"class_path": "fm_lightning.callbacks.FIDMonitr"}),
            ["trainer.callbacks", "FIDMonitr", "type e.g. fm_lightning.callbacks.FIDMonitor"],
        ),
        also(
            lambda c: c["trainer"]["callbacks"].append(
                {"class_path": "fm_lightning.callbacks.EMA", "init_args": {"x": 1}}
            ),
            ["trainer.callbacks", "EMA", "'x'", "expected", "decay, start_step"],
        ),
        also(
            lambda c: c["trainer"]["logger"][0].update(class_path="fm_lightning.tracking.CSVLogger"),
            ["trainer.logger", "type e.g. fm_lightning.tracking.AppendingCSVLogger"],
        ),
        (
            in_model("optimizer", {"class_path": "torch.optim.AdamX", "init_args": {"lr": 1.0}}),
            ["model.optimizer", "torch.optim.AdamX", "type e.g. torch.optim.Adam"],
        ),
        also(
            in_model("scheduler", {"class_path": "fm_lightning.optim.Warmup", "init_args": {"warmup": 3}}),
            ["model.scheduler", "Warmup", "'warmup'", "type warmup_steps"],
        ),
        also(
            in_model("net", {"class_path": "fm_lightning.data.Toy2D"}),
            ["model.net", "fm_lightning.data.Toy2D given", "type e.g.", "fm_lightning.nets.ResidualMLP"],
        ),
        (lambda c: c["model"].pop("net"), ["model.net", "type -c"]),
        (lambda c: c["model"]["net"]["init_args"].pop("shape"), ["model.net", "ResidualMLP without shape"]),
        (
            lambda c: c["trainer"].update(accelerator="gpuu"),
            ["gpuu", "Available", "type e.g. --trainer.accelerator auto"],
        ),
    ],
)
def test_misspelled_in_the_file(refused, tmp_path, change, words):
    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), *words)


def test_verbs_and_files(refused, tmp_path):
    says(refused("fitt", "-c", "tiny.yaml"), "'fitt' given", "expected", "run, fit, test", "type fm-lightning fit")
    says(refused("-c", "tiny.yaml", "fit"), "before the verb", "type fm-lightning fit -c")
    says(refused("fit"), "nothing given for model.net and data", "type -c configs/digits.yaml")
    says(refused("fit", "-c", "nope.yaml"), "nope.yaml given", "expected an existing file", "type -c")
    (tmp_path / "folder").mkdir()
    says(
        refused("fit", "-c", "folder"), "directory folder given", "expected a file", "type e.g. -c configs/digits.yaml"
    )
    (tmp_path / "folder/config.yaml").touch()
    says(refused("fit", "-c", "folder"), "expected a file", "type e.g. -c folder/config.yaml")
    (tmp_path / "broken.yaml").write_text("name: [unclosed\nmodel: {")
    says(refused("fit", "-c", "broken.yaml"), "broken.yaml (line 2)", "expected YAML")
    (tmp_path / "text.yaml").write_text("just a string")
    says(refused("fit", "-c", "text.yaml"), "text.yaml", "expected YAML")


# Values out of range


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (kts(steps=0), ["steps=0 given", "expected a whole number of at least 1", "type e.g. steps=100"]),
        also(kts(steps=-3), ["steps=-3 given"]),
        also(kts(solver="eulr"), ["'eulr' given", "expected one of euler", "type"]),
        (gain(tau_split=1.2), ["tau_split=1.2 given", "between 0 and 1", "type e.g. 0.6"]),
        also(gain(tau_split=0.0), ["tau_split=0 given"]),
        (gain("SSC", scale=-2.0, power=1.0), ["is -1 at t = 0", "expected above 0", "type a weaker gain"]),
        (in_model("controls_for", ["ktz"]), ["controls_for", "'ktz'", "expected", "kts", "type controls_for: [kts]"]),
        also(in_model("controls_for", ["base"]), ["controls_for", "'base'", "no gain", "kts"]),
        (in_model("test_schedules", {"a.b": {}}), ["'a.b' given", "expected one without '.'"]),
        (
            lambda c: c["data"]["init_args"].update(n=1),
            ["1 training images", "expected at least the 2 nearest", "type"],
        ),
        (
            lambda c: c["data"]["init_args"].update(val_seeds=-3),
            ["val_seeds=-3 given", "type --data.init_args.val_seeds"],
        ),
        also(lambda c: c["data"]["init_args"].update(test_seeds=0), ["test_seeds=0 given"]),
        also(lambda c: c["data"]["init_args"].update(name="mons"), ["'mons' given", "moons"]),
        (lambda c: c["trainer"]["callbacks"][0]["init_args"].update(decay=2), ["decay=2 given", "type e.g. 0.9999"]),
    ],
)
def test_out_of_range(refused, tmp_path, change, words):
    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"scheduler": "linear"},
            ["total_steps=4", "more than warmup_steps=9", "lower it", "type --trainer.max_steps"],
        ),
        ({"optimizer": {"lr": -1.0}}, ["Invalid learning rate: -1.0", "expected", "type e.g. --model.optimizer"]),
        ({"optimizer": {"lr": 0.1, "betas": [0.9, 2.0]}}, ["Invalid beta", "expected", "type"]),
    ],
)
def test_an_optimizer_that_cannot_be_built(refused, tmp_path, settings, words):
    def change(c):
        if "optimizer" in settings:
            c["model"]["optimizer"]["init_args"] = settings["optimizer"]
        else:
            warmup = {"warmup_steps": 9, "decay": settings["scheduler"]}
            c["model"]["scheduler"] = {"class_path": "fm_lightning.optim.Warmup", "init_args": warmup}

    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), *words)


def test_too_few_images_for_the_sample_grid(refused, tmp_path):
    def change(c):
        c["data"]["init_args"]["n"] = 1
        c["trainer"]["callbacks"] = [{"class_path": "fm_lightning.callbacks.SampleGrid"}]

    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), "expected at least the 2 nearest")


def test_a_gain_that_reaches_zero_names_the_largest_beta_that_works(command, refused, tmp_path):
    line = refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", gain(alpha=0.02, beta=3.0)))
    says(line, "β=3 is -", "at t = 0.75", "euler with 4 steps", "expected above 0", "type beta at most")
    largest = float(re.search(r"beta at most ([\d.]+)", line)[1])
    config = tiny_config(tmp_path / "right.yaml", gain(alpha=0.02, beta=largest))
    assert command("fit", "-c", config, "--trainer.max_steps", 2).status == 0


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", ""])
def test_names_that_are_no_directory_names(refused, name):
    says(refused("fit", "-c", "tiny.yaml", "--name", name), f"name {name!r} given", "expected", "type e.g. --name")


# Run directories


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """runs/tiny after ``run``: trained and compared."""
    from fm_lightning import cli

    folder = tmp_path_factory.mktemp("finished")
    config = tiny_config(folder / "tiny.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        patch.setattr("fm_lightning.report.page.write_report", lambda folder: folder)
        cli.main(["run", "-c", str(config)])
    return folder / "runs" / "tiny"


@pytest.fixture
def here(finished, tmp_path):
    """A copy of the finished run where commands run."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "tiny"))


def test_a_finished_run_is_left_alone(refused, here):
    says(refused("run", "-c", "tiny.yaml"), "runs/tiny holds a finished comparison", "type --again")
    says(
        refused("fit", "-c", "tiny.yaml"), "runs/tiny holds a finished training (4 steps)", "--again", "another --name"
    )
    says(refused("test", "-c", "tiny.yaml"), "runs/tiny holds a finished comparison", "type --again")


def test_again_moves_what_was_there(command, here):
    weights = (here / "checkpoints/last.ckpt").read_bytes()
    results = (here / "results.json").read_bytes()
    ended = command("test", "-c", "tiny.yaml", "--again")
    assert ended.status == 0
    assert "Moved what was there to runs/tiny/earlier-1" in ended.out
    assert (here / "earlier-1/results.json").read_bytes() == results
    assert (here / "results.json").exists()
    ended = command("fit", "-c", "tiny.yaml", "--again")
    assert ended.status == 0
    assert "Moved what was there to runs/tiny.old-1" in ended.out
    assert (here.with_name("tiny.old-1") / "checkpoints/last.ckpt").read_bytes() == weights
    assert not (here / "results.json").exists()


@pytest.mark.parametrize("verb", ["fit", "test", "run"])
def test_again_moves_nothing_where_the_command_is_refused(refused, here, tmp_path, verb):
    wrong = tiny_config(tmp_path / "wrong.yaml", kts(steps=0))
    says(refused(verb, "-c", wrong, "--again"), "steps=0 given")
    says(refused(verb, "-c", "tiny.yaml", "--again", "--ckpt_path", "nope.ckpt"), "nope.ckpt")


def test_another_runs_directory(refused, here):
    line = refused("fit", "-c", "tiny.yaml", "--model.net.init_args.width", 32)
    says(line, "runs/tiny holds another run", "width is 16 there and 32 here", "type another --name")
    says(refused("test", "-c", "tiny.yaml", "--data.init_args.n", 30), "holds another run", "n is 24 there and 30 here")


def test_a_directory_of_something_else(refused, tmp_path):
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/thesis.tex").write_text("years of work")
    says(refused("fit", "-c", "tiny.yaml"), "runs/tiny holds files but no run", "type another --name")


@pytest.mark.parametrize("record", ["", "[1]", '{"step": 3}', "{"])
def test_a_run_record_that_cannot_be_read(refused, tmp_path, record):
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/run.json").write_text(record)
    says(refused("fit", "-c", "tiny.yaml"), "runs/tiny/run.json cannot be read", "type another --name")


def test_verbs_that_need_a_trained_run(refused):
    for verb in ("test", "validate", "predict"):
        says(refused(verb, "-c", "tiny.yaml"), f"no checkpoint in runs/tiny to {verb}", "type `fm-lightning fit`")


def test_predict_writes_samples_and_does_not_overwrite_them(command, refused, here):
    assert command("predict", "-c", "tiny.yaml").status == 0
    files = sorted((here / "samples").glob("*.npz"))
    samples = np.load(files[0])
    assert samples["x1"].shape == (5, 2)
    assert samples["kpe"].shape == (5,)
    np.testing.assert_allclose(samples["energy"].sum(0), samples["kpe"], rtol=1e-6)
    # Refused before anything is sampled, whatever is in the way.
    (here / "samples" / files[0].name).rename(here / "samples/base-other.npz")
    says(refused("predict", "-c", "tiny.yaml"), "base-other.npz exists", "type --again", "another --name")
    ended = command("predict", "-c", "tiny.yaml", "--again")
    assert ended.status == 0
    assert "Moved what was there to runs/tiny/earlier-1" in ended.out
    assert (here / "earlier-1/samples/base-other.npz").exists()
    assert [path.name for path in (here / "samples").iterdir()] == [files[0].name]


# Checkpoints


class Evil:
    def __reduce__(self):
        return (print, ("code from a checkpoint was run",))


def test_checkpoints_that_cannot_be_used(refused, command, here, tmp_path):
    good = (here / "checkpoints/last.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(good[: len(good) // 2])
    (tmp_path / "empty.ckpt").write_bytes(b"")
    (tmp_path / "text.ckpt").write_text("no checkpoint at all")
    torch.save({"state_dict": {"net.w": torch.ones(2)}}, tmp_path / "foreign.ckpt")
    torch.save([1, 2], tmp_path / "list.ckpt")
    torch.save({"state_dict": {}, "evil": Evil()}, tmp_path / "evil.ckpt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"a": Evil()}))
    for verb in ("test", "fit"):
        base = (verb, "-c", "tiny.yaml", "--name", "new", "--ckpt_path")
        says(refused(*base, "missing.ckpt"), "missing.ckpt given", "expected an existing file", "type --ckpt_path")
        says(refused(*base, tmp_path), "given", "expected an existing file")
    base = ("test", "-c", "tiny.yaml", "--name", "new", "--ckpt_path")
    for name in ("cut.ckpt", "empty.ckpt", "text.ckpt"):
        says(refused(*base, name), name, "(truncated or foreign)", "expected a whole checkpoint", "type --ckpt_path")
    for name in ("foreign.ckpt", "list.ckpt"):
        says(refused(*base, name), name, "was not written by fm-lightning", "type --ckpt_path")
    for name in ("evil.ckpt", "evil.pkl"):
        assert "code from a checkpoint was run" not in command(*base, name).out
        says(refused(*base, name), name, "type --ckpt_path")


def test_a_run_whose_own_checkpoint_was_cut_off(refused, here):
    last = here / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    says(refused("fit", "-c", "tiny.yaml", "--trainer.max_steps", 8), "last.ckpt", "(truncated or foreign)")


def test_a_checkpoint_of_another_network(refused, here):
    base = ("--name", "new", "--ckpt_path", here / "checkpoints/last.ckpt")
    line = refused("test", "-c", "tiny.yaml", *base, "--model.net.init_args.width", 32)
    says(
        line,
        "does not fit",
        "net.time.layers.0.weight is [16, 64] in the checkpoint and [32, 64] in the network",
        "type",
    )
    line = refused("test", "-c", "tiny.yaml", *base, "--model.net.init_args.depth", 2)
    says(line, "net.blocks.1.modulation.weight is missing in the checkpoint and [32, 16] in the network")


def test_checkpoints_hold_plain_data_and_no_metric(finished):
    checkpoint = torch.load(finished / "checkpoints/last.ckpt", weights_only=True)
    for part in ("state_dict", "current_model_state"):
        assert checkpoint[part]
        assert all(name.startswith("net.") for name in checkpoint[part])
    assert set(checkpoint["averaging_state"]) == {"n_averaged"}
    assert "hyper_parameters" not in checkpoint
    config = checkpoint["fm_lightning_config"]
    assert config["model"]["net"]["init_args"]["width"] == 16
    assert config == yaml.safe_load((finished / "config.yaml").read_text())


def test_a_checkpoint_describes_its_own_network(finished):
    net = load_network(finished / "checkpoints/last.ckpt")
    state = torch.load(finished / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[f"net.{name}"]) for name, value in net.state_dict().items())


def test_the_run_directory(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "config.yaml",
        "run.json",
        "checkpoints",
        "metrics.csv",
        "results.json",
        "results.csv",
        "arrays.npz",
    } <= names
    assert {path.name for path in (finished / "checkpoints").iterdir()} == {"last.ckpt", "step-2.ckpt", "step-4.ckpt"}
    assert not list(finished.rglob("*.tmp"))
    # What a run was told is enough to do it again.
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["model"]["test_schedules"]["kts"]["steps"] == 4
    assert config["trainer"]["max_steps"] == TINY["trainer"]["max_steps"]


def test_the_kept_configuration_repeats_the_run(command, here):
    assert command("fit", "-c", "runs/tiny/config.yaml", "--name", "twin").status == 0
    one, two = (read_series(here.with_name(name) / "metrics.csv")["train/loss"] for name in ("tiny", "twin"))
    assert one == two


# What wins


def test_the_command_line_beats_configuration_and_checkpoint(command, here, tmp_path):
    base = ("test", "-c", "tiny.yaml", "--ckpt_path", here / "checkpoints/step-2.ckpt", "--name")
    assert command(*base, "new", "--model.test_schedules.base.steps", 7).status == 0
    results = json.loads((tmp_path / "runs/new/results.json").read_text())
    rows = {row["name"]: row for row in results["rows"]}
    assert rows["base"]["steps"] == rows["base"]["nfe"] == 7, "steps really used"
    assert rows["kts"]["nfe"] == 4
    assert len(np.load(tmp_path / "runs/new/arrays.npz")["power/base"]) == 7
    assert results["step"] == 2

    assert command(*base, "all", "--model.test_schedules", '{"base": {"steps": 3, "solver": "heun"}}').status == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "runs/all/results.json").read_text())["rows"]}
    assert rows["base"]["nfe"] == 6
    assert "kts" not in rows

    other = tiny_config(tmp_path / "other.yaml", lambda c: c["model"]["test_schedules"]["base"].update(steps=9))
    ended = command("test", "-c", other, "--ckpt_path", here / "checkpoints/last.ckpt", "--name", "file")
    assert ended.status == 0
    rows = {row["name"]: row for row in json.loads((tmp_path / "runs/file/results.json").read_text())["rows"]}
    assert rows["base"]["nfe"] == 9, "the configuration beats the checkpoint, too"


def test_resuming_without_ema_is_refused(refused, here, tmp_path):
    config = tiny_config(tmp_path / "raw.yaml", lambda c: c["trainer"]["callbacks"].pop(0))
    line = refused("fit", "-c", config, "--trainer.max_steps", 8)
    says(line, "averaged weights but no EMA", "add fm_lightning.callbacks.EMA")


# Numbers that are not finite


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(command, tmp_path):
    assert command("fit", "-c", "tiny.yaml", "--trainer.max_steps", 2).status == 0
    good = (tmp_path / "runs/tiny/checkpoints/last.ckpt").read_bytes()
    config = tiny_config(tmp_path / "wild.yaml", lambda c: c["model"]["optimizer"]["init_args"].update(lr=1e30))
    ended = command("fit", "-c", config, "--name", "wild", "--trainer.max_steps", 40)
    assert ended.status == 2
    says(
        ended.err, "not finite", "step", "expected", "checkpoints before it are kept", "--model.optimizer.init_args.lr"
    )
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 1
    # The same in the middle of a run: what was good stays.
    kept = torch.load(tmp_path / "runs/tiny/checkpoints/last.ckpt", weights_only=True)
    for group in kept["optimizer_states"][0]["param_groups"]:
        group["lr"] = 1e30
    torch.save(kept, tmp_path / "runs/tiny/checkpoints/last.ckpt")
    ended = command("fit", "-c", "tiny.yaml", "--trainer.max_steps", 40)
    assert ended.status == 2
    says(ended.err, "not finite")
    left = torch.load(tmp_path / "runs/tiny/checkpoints/last.ckpt", weights_only=True)
    assert left["global_step"] == 2
    assert len(good) > 1000
    assert all(value.isfinite().all() for value in left["state_dict"].values())
    net = load_network(tmp_path / "runs/tiny/checkpoints/last.ckpt")
    assert net(torch.zeros(1, 2), torch.zeros(1)).isfinite().all()


def test_a_trajectory_that_is_not_finite_names_schedule_step_and_time(command, here):
    from fm_lightning.errors import NotFiniteError
    from fm_lightning.flow import integrate

    with pytest.raises(NotFiniteError, match=r"t = 0\.5"):
        integrate(lambda x, t, y=None: x / (t[0] < 0.5), torch.ones(2, 2), Schedule(steps=4))


# --help


def test_help_is_fast_and_needs_no_torch(tmp_path):
    code = (
        "import sys; sys.argv = ['fm-lightning', *sys.argv[1:]]\n"
        "from fm_lightning.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as e: print('status', e.code, file=sys.stderr)\n"
        "print(sorted({'torch', 'lightning', 'matplotlib', 'wandb'} & set(sys.modules)), file=sys.stderr)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    for arguments, status in ((["--help"], None), ([], None), (["report", "--help"], None), (["fitt"], 2)):
        ended = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=True, timeout=60
        )
        assert ended.stderr.splitlines()[-1] == "[]", (arguments, ended.stderr)
        if status is None:
            assert "usage: fm-lightning VERB" in ended.stdout
            assert "status" not in ended.stderr
        else:
            assert f"status {status}" in ended.stderr


def test_the_help_of_a_verb(command):
    ended = command("fit", "--help")
    assert ended.status == 0
    assert "--model.net" in ended.out
    assert "--again" in ended.out


# End to end, as a newcomer types it


def test_end_to_end_in_a_process_of_its_own(tmp_path):
    tiny_config(tmp_path / "tiny.yaml")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "fm_lightning", "run", "-c", "tiny.yaml"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Report: runs/tiny/report.html" in ended.stdout
    assert (tmp_path / "runs/tiny/report.html").stat().st_size > 10_000
    assert "Warning" not in ended.stderr, ended.stderr
