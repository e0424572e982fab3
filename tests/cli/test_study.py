"""``fm-lightning study``: the runs it starts, resumes and reads, and what it refuses."""

from __future__ import annotations

import csv
import json
import shlex

import pytest
import yaml
from tiny_runs import says, tiny_config

AXES = {"data.init_args.n": [12, 16, 24], "seed_everything": [0, 1]}


def with_axes(config):
    config |= {"name": "small", "axes": AXES}
    config["trainer"]["callbacks"][0:0] = [
        {"class_path": "fm_lightning.callbacks.LogSpacedValidation", "init_args": {"points": 3, "first": 1}},
        {
            "class_path": "fm_lightning.callbacks.FIDMonitor",
            "init_args": {"extractors": "fd_raw", "unbiased": True},
        },
    ]


@pytest.fixture
def study_file(tmp_path):
    return tiny_config(tmp_path / "small.yaml", with_axes)


def printed(command, *args):
    ended = command("study", *args, "--print")
    assert ended.status == 0, ended
    return [shlex.split(line) for line in ended.out.splitlines()]


@pytest.mark.slow
def test_print_gives_commands_whose_runs_the_study_reads(command, study_file, tmp_path):
    lines = printed(command, "-c", "small.yaml", "--trainer.log_every_n_steps", 2)
    assert len(lines) == 6
    assert not (tmp_path / "runs").exists()
    for words in lines:
        assert words[0] == "fm-lightning"
        assert command(*words[1:]).status == 0
    runs = sorted(path.name for path in (tmp_path / "runs/small").iterdir())
    assert runs == sorted(f"n{n}-seed{s}" for n in (12, 16, 24) for s in (0, 1))
    config = yaml.safe_load((tmp_path / "runs/small/n16-seed1/config.yaml").read_text())
    assert (config["data"]["init_args"]["n"], config["seed_everything"]) == (16, 1)
    assert "axes" not in config

    # Finished runs of other origin: the same numbers, the axes found by themselves.
    ended = command("study", *sorted((tmp_path / "runs/small").glob("n*")), "--name", "again")
    assert ended.status == 0, ended
    folder = tmp_path / "runs/again"
    study = json.loads((folder / "study.json").read_text())
    assert list(study["axes"]) == ["data.init_args.n", "seed_everything"]
    assert [len(g["at"]) for g in study["groups"]] == [1, 1, 1]
    lines = list(csv.DictReader((folder / "curves.csv").open()))
    assert [int(line["step"]) for line in lines if line["run"] == "n12-seed0"] == [1, 2, 4]
    assert all(line["kpe_late"] and line["loss_gap"] and line["quality_kernel"] for line in lines)
    assert len(list(csv.DictReader((folder / "study.csv").open()))) == 6
    text = (folder / "study.html").read_text()
    assert "F_mem passes 10% in" in text
    assert "data:image/svg+xml" in text
    assert (folder / "figures/copies.png").exists()

    # Runs that differ in something else are named, and so are runs at one place.
    for words in (
        ["fit", "-c", "tiny.yaml", "--name", "other", "--model.optimizer.init_args.lr", 0.01],
        ["fit", "-c", "small.yaml", "--name", "twice", "--data.init_args.n", 12],
    ):
        assert command(*words).status == 0
    small = [tmp_path / f"runs/small/n{n}-seed0" for n in (12, 16)]
    ended = command("study", *small, "runs/other", "--name", "third")
    assert ended.status == 2
    says(ended.err, "n12-seed0 and other differ in", "which is no axis")
    ended = command("study", *small, "runs/twice", "--name", "third")
    assert ended.status == 2
    says(ended.err, "n12-seed0 and twice have the same place in the study.")

    # One that was not trained to its end is left out.
    (tmp_path / "runs/small/n24-seed1/run.json").unlink()
    ended = command("study", *sorted((tmp_path / "runs/small").glob("n*")), "--name", "fourth")
    assert ended.status == 0
    assert "n24-seed1 is left out: it was not started" in ended.out
    assert "5 of 6 runs" in ended.out


def test_an_option_of_the_network_is_an_axis(command, study_file, tmp_path):
    """Each run keeps its width, which decides how it was trained as much as where it stands in the study."""
    for width in (6, 8):
        ended = command("fit", "-c", "small.yaml", "--name", f"w{width}", "--model.net.init_args.width", width)
        assert ended.status == 0, ended
    ended = command("study", "runs/w6", "runs/w8", "--name", "widths")
    assert ended.status == 0, ended
    study = json.loads((tmp_path / "runs/widths/study.json").read_text())
    assert study["axes"] == {"model.net.init_args.width": [6, 8]}
    assert "width 6" in (tmp_path / "runs/widths/study.html").read_text()


@pytest.mark.slow
def test_runs_what_is_missing_and_names_what_fails(command, study_file, tmp_path):
    args = ("-c", "small.yaml", "--axes.seed_everything", "[0]", "--axes.data.init_args.n", "[1, 12, 16]")
    ended = command("study", *args)  # one training point is too few for a memorization
    assert ended.status == 2, ended
    says(ended.err.splitlines()[-1], "1 of 3 runs failed: n1-seed0.")
    assert (tmp_path / "runs/small/study.html").exists(), "the rest is reported"
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs/small").glob("n1[26]-*/metrics.csv")}
    ended = command("study", *args)
    assert "2 of 3 runs are finished already" in ended.out
    assert times == {p: p.stat().st_mtime_ns for p in times}


@pytest.mark.slow
def test_a_later_value_that_the_parser_refuses_is_refused_before_any_run(command, study_file, tmp_path):
    ended = command("study", "-c", "small.yaml", "--axes.seed_everything", "[0]", "--axes.data.init_args.n", "[12, x]")
    assert ended.status == 2
    says(ended.err.splitlines()[-1], "n=x has the wrong type")
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_an_axis_that_names_no_option_is_refused_before_any_run(command, study_file, tmp_path):
    ended = command("study", "-c", "small.yaml", "--axes.data.init_args.wide", "[1, 2]")
    assert ended.status == 2
    says(ended.err.splitlines()[-1], "wide")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), ("study needs a configuration or runs.", "study -c study_digits")),
        (("-c", "tiny.yaml"), ("The study has no axes.",)),
        (("-c", "nowhere"), ("nowhere does not exist.",)),
        (
            ("-c", "small.yaml", "--axes.dta.init_args.n", "[1, 2]"),
            ("axes: Unknown key dta.init_args.n.", "data.init_args.n"),
        ),
        (("-c", "small.yaml", "--axes.data.init_args.n", "5"), ("no list of values",)),
        (("-c", "small.yaml", "--axes.trainer.max_steps", "[5, 6]"), ("trains some runs longer",)),
        (("-c", "small.yaml", "--axs", "5"), ("Unknown key --axs.", "--axes")),
        (("-c", "small.yaml", "--share", "20"), ("--share 20", "between 0 and 1")),
        (
            ("-c", "small.yaml", "--data.init_args.n", "5"),
            ("--data.init_args.n is an axis", "--axes.data.init_args.n '[5]'"),
        ),
        ((".", "--trainer.max_steps", "5"), ("--trainer.max_steps needs runs to start", "Remove it")),
        ((".", "--print"), ("--print needs runs to start",)),
        (("runs/none",), ("runs/none does not exist.",)),
        (("small.yaml",), ("small.yaml is a file, not a run directory.",)),
    ],
)
def test_refused(refused, study_file, args, words):
    says(refused("study", *args), *words)
