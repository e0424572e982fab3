"""How commands end: what they say next, what they add when it is missing, and what a crash in one's own code shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import says, tiny_config

from fm_lightning.comparison import Field

CODE = """
import torch
from fm_lightning.data import FlowData, Split

class Missing(FlowData):
    shape = (2,)

    def load(self):
        self.read("spectra.pt")

    def read(self, name):
        return torch.load(name)  # line 12

class Strange(Missing):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        {}["a"]  # line 17
"""


def test_fit_says_where_the_checkpoint_is_and_what_comes_next(command):
    ended = command("fit", "-c", "tiny.yaml")
    assert ended.out.splitlines()[-1] == (
        "Checkpoint: runs/tiny/checkpoints/last.ckpt; next, compare schedules: fm-lightning test -c runs/tiny"
    )
    assert command(*ended.out.splitlines()[-1].split("fm-lightning ")[1].split()).status == 0


def test_validate_prints_what_it_measured(command):
    assert command("fit", "-c", "tiny.yaml").status == 0
    ended = command("validate", "-c", "tiny.yaml")
    printed = {line.split()[0]: float(line.split()[1]) for line in ended.out.splitlines() if line.startswith("val/")}
    assert {"val/loss", "val/base/kpe_mean", "val/base/f_mem"} <= set(printed)


def test_lightning_has_nothing_to_add(command):
    for verb in ("fit", "test", "validate", "predict"):
        assert command(verb, "-c", "tiny.yaml").err == "", verb
    assert command("fit", "-c", "tiny.yaml", "--trainer.max_steps", 6).err == ""


@pytest.mark.parametrize(
    "callbacks",
    ["[]", *(pytest.param(c, marks=pytest.mark.slow) for c in ("null", "fm_lightning.callbacks.KPEDistribution"))],
)
def test_callbacks_that_a_verb_needs_are_added(command, tmp_path, callbacks):
    ended = command("run", "-c", "tiny.yaml", "--trainer.callbacks", callbacks)
    assert ended.status == 0, ended.err
    says(ended.out, "Added LastCheckpoint and ScheduleTable: without them `run` leaves no results")
    left = torch.load(tmp_path / "runs/tiny/checkpoints/last.ckpt", weights_only=True)
    assert left["global_step"] == 4
    assert (tmp_path / "runs/tiny/results.json").exists()
    ended = command("predict", "-c", "tiny.yaml", "--trainer.callbacks", callbacks)
    says(ended.out, "Added SampleWriter: without it `predict` leaves no results")
    assert list((tmp_path / "runs/tiny/samples").glob("*.npz"))


def test_no_callback_is_added_where_none_is_missing(command, tmp_path):
    ended = command("run", "-c", "tiny.yaml")
    assert "Added" not in ended.out
    ended = command("fit", "-c", "tiny.yaml", "--name", "b", "--trainer.callbacks", "[]",
                    "--trainer.enable_checkpointing", "false")  # fmt: skip
    assert ended.status == 0
    assert "Added" not in ended.out
    assert not (tmp_path / "runs/b/checkpoints").exists()


@pytest.mark.parametrize(
    ("kind", "error", "line", "frames"), [("Missing", "FileNotFoundError", 12, 2), ("Strange", "KeyError", 17, 1)]
)
def test_a_crash_in_ones_own_code_shows_ones_own_code(command, tmp_path, kind, error, line, frames):
    (tmp_path / f"my_{kind}.py").write_text(CODE.lstrip("\n").join(["\n", ""]))
    ended = command("fit", "-c", "tiny.yaml", "--data", f"my_{kind}.{kind}")
    assert ended.status == 1
    lines = ended.err.splitlines()
    says(
        lines[-1],
        f"fm-lightning: {error} in my_{kind}.py, line {line}:",
        "The whole traceback is in runs/tiny.error.txt",
    )
    assert ended.err.count('File "') == frames
    assert "site-packages" not in ended.err
    whole = (tmp_path / "runs/tiny.error.txt").read_text()
    assert "lightning/pytorch" in whole
    assert whole.count('File "') > 8
    assert f"{error}:" in whole


class NanField(Field):
    """A velocity that breaks half way."""

    def velocity(self, data, device):
        return lambda x, t, y=None: x / (t[0] < 0.5)


def test_a_row_that_is_not_finite_is_named_and_loses_nothing_else(command, tmp_path):
    def change(c):
        c["model"]["fields"] = {"broken": {"class_path": "test_endings.NanField"}}

    file = tiny_config(tmp_path / "nan.yaml", change)
    ended = command("run", "-c", file)
    assert ended.status == 2
    assert len(ended.err.splitlines()) == 1
    says(ended.err, "'broken'", "from step 2 (t = 0.5)")
    folder = tmp_path / "runs/tiny"
    assert not (folder / "results.json").exists()
    trained = (folder / "checkpoints/last.ckpt").read_bytes()
    assert command("run", "-c", file, "--model.fields", "null").status == 0, "continues with the comparison"
    assert (folder / "checkpoints/last.ckpt").read_bytes() == trained
    assert (folder / "results.json").exists()


@pytest.mark.slow
def test_an_error_of_all_processes_is_said_once_and_an_error_of_one_is_said(tmp_path):
    root = Path(__file__).parents[2]
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    (tmp_path / "one.py").write_text(
        "import os\nfrom fm_lightning.data import Toy2D\nfrom fm_lightning.errors import UserError\n"
        "class One(Toy2D):\n"
        "    def load(self):\n"
        "        super().load()\n"
        "        if os.environ.get('LOCAL_RANK') == '1':\n"
        "            raise UserError('This fails', 'only here')\n"
    )
    tiny_config(tmp_path / "tiny.yaml")

    def fit(*more):
        ended = subprocess.run(
            [sys.executable, "-m", "fm_lightning", "fit", "-c", "tiny.yaml", *more,
             "--trainer.devices", "2", "--trainer.strategy", "ddp"],
            cwd=tmp_path, env=env, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert ended.returncode != 0
        return ended.stderr

    assert fit("--data.init_args.batch_size", "15").count("batch_size=15 cannot be divided") == 1
    assert fit("--data", "one.One").count("fm-lightning: This fails only here") == 1
