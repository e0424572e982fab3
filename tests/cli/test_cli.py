"""The command line: what is refused, in one line and without a trace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import says, tiny_config

from fm_lightning import load_network

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
            lambda c: c["trainer"]["logger"][0].update(class_path="fm_lightning.training.CSVLogger"),
            ["trainer.logger", "type e.g. fm_lightning.training.AppendingCSVLogger"],
        ),
        (
            in_model("optimizer", {"class_path": "torch.optim.AdamX", "init_args": {"lr": 1.0}}),
            ["model.optimizer", "torch.optim.AdamX", "type e.g. torch.optim.Adam"],
        ),
        also(
            in_model("scheduler", {"class_path": "fm_lightning.training.Warmup", "init_args": {"warmup": 3}}),
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
        (kts(steps=0), ["steps=0 must be a whole number of at least 1", "Use for example steps=100"]),
        also(kts(steps=-3), ["steps=-3 must"]),
        also(kts(solver="eulr"), ["solver='eulr' is unknown", "Choose among euler"]),
        (gain(tau_split=1.2), ["tau_split=1.2 must be between 0 and 1", "Use for example tau_split=0.6"]),
        also(gain(tau_split=0.0), ["tau_split=0 must"]),
        (gain("SSC", scale=-2.0, power=1.0), ["is not above 0 but -1 at t = 0", "Use a weaker gain"]),
        (in_model("judge", ["ktz"]), ["judge", "'ktz'", "no schedule", "expected", "kts", "type judge: [kts]"]),
        also(in_model("judge", ["base"]), ["judge", "'base'", "the base", "kts"]),
        (in_model("test_schedules", {"a.b": {}}), ["'a.b' given", "expected one without '.'"]),
        (
            lambda c: c["data"]["init_args"].update(n=1),
            ["1 training images", "expected at least 2", "give"],
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
            c["model"]["scheduler"] = {"class_path": "fm_lightning.training.Warmup", "init_args": warmup}

    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), *words)


@pytest.mark.parametrize("threads", ["0", "-1", "two"])
def test_threads(refused, threads):
    says(refused("run", "-c", "tiny.yaml", "--threads", threads), "threads", threads, "given, expected")


def test_a_network_for_other_data_is_refused_before_anything_is_made(refused):
    line = refused("run", "-c", "tiny.yaml", "--model.net.init_args.shape", "[3]")
    says(line, "ResidualMLP takes samples of shape [3], not [2]", "shape=[2]")


def test_too_few_images_for_the_sample_grid(refused, tmp_path):
    def change(c):
        c["data"]["init_args"]["n"] = 1
        c["trainer"]["callbacks"] = [{"class_path": "fm_lightning.callbacks.SampleGrid"}]

    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), "expected at least 2")


def test_a_gain_that_reaches_zero_names_the_largest_beta_that_works(command, refused, tmp_path):
    line = refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", gain(alpha=0.02, beta=3.0)))
    says(line, "β=3 is -", "at t = 0.75", "euler with 4 steps", "expected above 0", "type beta at most")
    largest = float(re.search(r"beta at most ([\d.]+)", line)[1])
    config = tiny_config(tmp_path / "right.yaml", gain(alpha=0.02, beta=largest))
    assert command("fit", "-c", config, "--trainer.max_steps", 2).status == 0


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", ""])
def test_names_that_are_no_directory_names(refused, name):
    says(refused("fit", "-c", "tiny.yaml", "--name", name), f"name {name!r} given", "expected", "type e.g. --name")


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


# --help


def test_help_is_fast_and_needs_no_torch(tmp_path):
    code = (
        "import sys; sys.argv = ['fm-lightning', *sys.argv[1:]]\n"
        "from fm_lightning.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as e: print('status', e.code, file=sys.stderr)\n"
        "print(sorted({'torch', 'lightning', 'matplotlib', 'wandb'} & set(sys.modules)), file=sys.stderr)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
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


@pytest.mark.slow
def test_end_to_end_in_a_process_of_its_own(tmp_path):
    tiny_config(tmp_path / "tiny.yaml")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
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
