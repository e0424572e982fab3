"""Runs and what they leave: directories, checkpoints, what resumes, and which setting wins."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import TINY, says, tiny_config

from fm_lightning import Schedule, load_network
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.training.tracking import read_series

# Run directories


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """runs/tiny after ``run``: trained and compared."""
    from fm_lightning.cli import command as cli

    folder = tmp_path_factory.mktemp("finished")
    config = tiny_config(folder / "tiny.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        patch.setattr("fm_lightning.report.page.write_report", lambda folder, *content: folder)
        cli.main(["run", "-c", str(config)])
    return folder / "runs" / "tiny"


@pytest.fixture
def here(finished, tmp_path):
    """A copy of the finished run where commands run."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "tiny"))


def test_a_finished_run_is_left_alone(refused, here):
    done = (
        "runs/tiny holds a finished comparison",
        "fm-lightning report runs/tiny",
        "--again evaluation",
        "another --name",
    )
    says(refused("run", "-c", "tiny.yaml"), *done)
    says(
        refused("fit", "-c", "tiny.yaml"), "runs/tiny holds a finished training (4 steps)", "--again", "another --name"
    )
    says(refused("test", "-c", "tiny.yaml"), *done)


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
    wrong = tiny_config(
        tmp_path / "wrong.yaml", lambda config: config["model"]["test_schedules"]["kts"].update(steps=0)
    )
    says(refused(verb, "-c", wrong, "--again"), "steps=0")
    says(refused(verb, "-c", "tiny.yaml", "--again", "--ckpt_path", "nope.ckpt"), "nope.ckpt")


def test_another_runs_directory(refused, here):
    line = refused("fit", "-c", "tiny.yaml", "--model.net.init_args.width", 32)
    says(line, "runs/tiny holds another run", "width is 16 there and 32 here", "Use another --name")
    says(refused("test", "-c", "tiny.yaml", "--data.init_args.n", 30), "holds another run", "n is 24 there and 30 here")


def test_a_directory_of_something_else(refused, tmp_path):
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/thesis.tex").write_text("years of work")
    says(refused("fit", "-c", "tiny.yaml"), "runs/tiny holds files but no run", "Use another --name")


@pytest.mark.parametrize("record", ["", "[1]", '{"step": 3}', "{"])
def test_a_run_record_that_cannot_be_read(refused, tmp_path, record):
    (tmp_path / "runs/tiny").mkdir(parents=True)
    (tmp_path / "runs/tiny/run.json").write_text(record)
    says(refused("fit", "-c", "tiny.yaml"), "Cannot read runs/tiny/run.json", "Use another --name")


def test_verbs_that_need_a_trained_run(refused):
    for verb in ("test", "validate", "predict"):
        says(refused(verb, "-c", "tiny.yaml"), f"runs/tiny holds no checkpoint to {verb}", "Run fm-lightning fit")


def test_predict_writes_samples_and_does_not_overwrite_them(command, refused, here):
    assert command("predict", "-c", "tiny.yaml").status == 0
    files = sorted((here / "samples").glob("*.npz"))
    samples = np.load(files[0])
    assert samples["x1"].shape == (5, 2)
    assert samples["kpe"].shape == (5,)
    np.testing.assert_allclose(samples["energy"].sum(0), samples["kpe"], rtol=1e-6)
    # Refused before anything is sampled, for every kind of obstacle.
    (here / "samples" / files[0].name).rename(here / "samples/base-other.npz")
    says(refused("predict", "-c", "tiny.yaml"), "base-other.npz exists", "Add --again", "another --name")
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
        says(refused(*base, "missing.ckpt"), "There is no checkpoint missing.ckpt", "checkpoints/last.ckpt")
        says(refused(*base, tmp_path), "There is no checkpoint")
    base = ("test", "-c", "tiny.yaml", "--name", "new", "--ckpt_path")
    for name in ("cut.ckpt", "empty.ckpt", "text.ckpt"):
        says(refused(*base, name), f"{name}: File is not a zip file.", "newest whole checkpoint next to it")
    for name in ("foreign.ckpt", "list.ckpt"):
        says(refused(*base, name), name, "was not written by fm-lightning", "checkpoints/last.ckpt")
    for name in ("evil.ckpt", "evil.pkl"):
        assert "code from a checkpoint was run" not in command(*base, name).out
        says(refused(*base, name), f"Cannot read {name}")


def test_a_run_whose_own_checkpoint_was_cut_off(refused, here):
    last = here / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    says(
        refused("fit", "-c", "tiny.yaml", "--trainer.max_steps", 8),
        "last.ckpt: File is not a zip file. Use the newest whole",
    )


def test_a_checkpoint_of_another_network(refused, here):
    base = ("--name", "new", "--ckpt_path", here / "checkpoints/last.ckpt")
    line = refused("test", "-c", "tiny.yaml", *base, "--model.net.init_args.width", 32)
    says(
        line,
        "does not fit",
        "net.time.layers.0.weight is [16, 64] in the checkpoint and [32, 64] in the network",
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
        "evaluation",
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
    assert Evaluation.open(tmp_path / "runs/new").energy("base").shape == (13, 7)
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


def test_resuming_without_the_average_is_refused(refused, here, tmp_path):
    config = tiny_config(tmp_path / "raw.yaml", lambda c: c["trainer"]["callbacks"].pop(0))
    line = refused("fit", "-c", config, "--trainer.max_steps", 8)
    says(line, "runs/tiny holds another run", "trainer.EMA is {'decay': 0.9", "not set here", "another --name")


def test_a_trajectory_that_is_not_finite_names_schedule_step_and_time(command, here):
    from fm_lightning.errors import NotFiniteError
    from fm_lightning.flow import integrate

    with pytest.raises(NotFiniteError, match=r"t = 0\.5"):
        integrate(lambda x, t, y=None: x / (t[0] < 0.5), torch.ones(2, 2), Schedule(steps=4))


def test_a_finished_comparison_grows_by_either_verb(command):
    """With the same weights, the averaged ones: `run` finds its training finished, which Lightning then never begins."""
    assert command("run", "-c", "tiny.yaml").status == 0
    for verb, seeds in (("test", 15), ("run", 17)):
        ended = command(verb, "-c", "tiny.yaml", "--data.init_args.test_seeds", seeds)
        assert ended.status == 0, ended.err
        assert "samples are there already" in ended.out
