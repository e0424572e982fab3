"""compare_schedules without Lightning: equal to the command, resumed, grown, on two processes; and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from table_contents import assert_equal_tables, table_contents
from tiny_runs import tiny_config
from torch import nn

from fm_lightning import KTS, SSC, EmpiricalVelocity, Evaluation, Schedule, UserError, compare_schedules, falsify
from fm_lightning.comparison.judge import judge_all
from fm_lightning.data import Toy2D
from fm_lightning.nets import ResidualMLP

SCHEDULES = {"base": Schedule(steps=4), "kts": Schedule(KTS(0.02, 0.02), steps=4)}


def points(seed: int, n: int = 24) -> torch.Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))


DATA = {"train": points(0), "real": points(1), "held_out": points(2)}


def compared(folder: Path, velocity=None, schedules=SCHEDULES, **options):
    options = {**DATA, "seeds": 13, "batch_size": 8, "families": "none", "folder": folder, **options}
    return compare_schedules(velocity or network(), schedules, **options)


def network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return ResidualMLP([2], width=16, depth=1)


def test_it_equals_the_command(command, tmp_path):
    """The network of a checkpoint, with families: rows, energies, neighbours and features to the digit."""
    from fm_lightning import load_network

    def change(c):
        c["trainer"]["callbacks"].insert(3, {"class_path": "fm_lightning.callbacks.FIDMonitor", "init_args": RAW})
        c["trainer"]["callbacks"][5]["init_args"] = {"families": "cheap"}
        c["data"]["init_args"] |= {"eval_batch_size": 100, "test_seeds": 150}

    assert command("run", "-c", tiny_config(tmp_path / "cheap.yaml", change)).status == 0
    net = load_network(tmp_path / "runs/tiny/checkpoints/last.ckpt")
    data = Toy2D(n=24)
    found = compare_schedules(
        net, SCHEDULES, train=data, seeds=150, batch_size=100, folder=tmp_path / "here", families="cheap"
    )
    assert_equal_tables(table_contents(tmp_path / "runs/tiny"), table_contents(tmp_path / "here"))
    assert any("~" in name for name in found.table.shown), "families were compared"


RAW = {"extractors": "fd_raw"}


def test_a_finished_one_is_read_and_more_is_added(tmp_path, capsys):
    whole = compared(tmp_path / "whole", schedules={**SCHEDULES, "ssc": Schedule(SSC(0.05, 1.0), steps=4)}, seeds=21)
    grown = tmp_path / "grown"
    compared(grown, features=None)
    capsys.readouterr()
    compared(grown, features=None)
    assert "65 of 65 samples are there already" in capsys.readouterr().out
    compared(grown)
    assert "measuring kept samples" in capsys.readouterr().out
    compared(grown, schedules={**SCHEDULES, "ssc": Schedule(SSC(0.05, 1.0), steps=4)})
    again = compared(grown, schedules={**SCHEDULES, "ssc": Schedule(SSC(0.05, 1.0), steps=4)}, seeds=21)
    assert_equal_tables(table_contents(whole.folder), table_contents(grown), tolerance=1e-6)  # other widths of batches
    assert list(again.rows["name"]) == list(whole.rows["name"])


def test_a_function_is_a_velocity_and_its_results_are_at_hand(tmp_path):
    field = EmpiricalVelocity(DATA["train"])
    found = compared(None, field, families="cheap", seeds=40, batch_size=500, schedules=SCHEDULES)
    assert set(found.verdicts) == {"kts"}
    assert found.paragraph("kts")
    assert found.rows.set_index("name").loc["base", "f_mem"] > 0.1
    assert found.rows.set_index("name").loc["copies", "f_mem"] == 1.0
    assert len(found.table.lines("kts")) == 40
    with pytest.raises(UserError, match="'other' was not judged"):
        found.paragraph("other")
    page = found.report()
    assert page.stat().st_size > 10_000
    assert (found.folder / "results.json").exists()


def test_training_images_as_reference_are_replaced_or_named(tmp_path):
    """A distance to training images rewards copies: held-out ones are used, and where there are none the verdict says so."""
    train, field = DATA["train"], EmpiricalVelocity(DATA["train"])
    common = {"velocity": field, "real": train, "families": "cheap", "seeds": 300, "batch_size": 500}
    schedules = {"base": Schedule(steps=4), "kts": Schedule(KTS(0.3, 0.3), steps=4)}
    found = compared(tmp_path / "none", schedules=schedules, held_out=None, **common)
    assert found.results.quality.seen == 1.0
    assert "distance to training images, which rewards copies" in found.verdicts["kts"].sentence
    assert "rewards copies" in found.results.verdict("kts").paragraph
    few = compared(tmp_path / "few", schedules=schedules, **common)
    assert few.results.quality.seen == 1.0, "24 are too few"
    held_out = points(2, 150)
    judged = compared(tmp_path / "held_out", schedules=schedules, **common | {"held_out": held_out})
    about = judged.results.quality
    assert (about.seen, about.unseen, about.held_out, about.reference) == (0.0, 150, True, 24)
    assert "rewards" not in judged.verdicts["kts"].sentence
    base = {name: each.results.row("base").metrics for name, each in (("train", found), ("held_out", judged))}
    assert base["train"]["fd_raw"] == base["held_out"]["fd_raw"], "the field's protocol stays"
    assert base["train"]["quality_kernel"] != base["held_out"]["quality_kernel"]
    halves = judged.results.row("held_out").metrics["quality_frechet"]
    assert abs(halves) < 0.5, "one half to the other, not all of them to themselves"
    assert judged.results.verdict("kts").margin.floor > 0
    # The same columns give the verdict by other definitions, as if each had been the first one.
    robustness = {each.name: each for each in judged.results.verdict("kts").robustness}
    thresholds = ["at a threshold of 1/4", "at a threshold of 1/2"]
    assert list(robustness) == [*thresholds, "by the nearest image's distance alone", "by the kernel distance"]
    for name, threshold in zip(thresholds, (1 / 4, 1 / 2)):
        table = Evaluation.open(judged.folder)
        table.manifest.about["threshold"] = threshold
        (first,) = judge_all(table)
        assert robustness[name].outcome == first.outcome
        expected = {f.family: "out of reach" if f.missed else f.outcome for f in first.families}
        assert robustness[name].families == expected


def test_falsify_judges_against_all_families(tmp_path):
    field = EmpiricalVelocity(DATA["train"])
    options = {**DATA, "seeds": 40, "features": None, "folder": tmp_path}
    assert falsify(field, Schedule(KTS(0.02, 0.02), steps=4), **options).outcome
    judged = Evaluation.open(tmp_path).manifest.judged["schedule"]["families"]
    assert {"noise", "early stop", "constant gain", "noise temperature"} <= set(judged)


def test_a_changed_velocity_is_refused_in_an_old_folder(tmp_path):
    scale = [1.0]
    compared(tmp_path, lambda x, t, y: scale[0] * x)
    compared(tmp_path, lambda x, t, y: x * scale[0]), "another function with the same values"
    scale[0] = 1.01  # the source stays the same
    with pytest.raises(UserError, match="other velocity") as caught:
        compared(tmp_path, lambda x, t, y: scale[0] * x)
    assert caught.value.fix == f"Use another folder, or delete {tmp_path / 'evaluation'}", "no option of a command"


def test_a_changed_network_and_other_data_are_refused_in_an_old_folder(tmp_path):
    compared(tmp_path)
    with pytest.raises(UserError, match="other weights"):
        compared(tmp_path, network(1))
    with pytest.raises(UserError, match="other training data"):
        compared(tmp_path, train=points(3))
    with pytest.raises(UserError, match="other base seed"):
        compared(tmp_path, base_seed=1)
    with pytest.raises(UserError, match="other dtype"):
        compared(tmp_path, network().double())
    assert not (tmp_path / "evaluation" / "running.json").exists()


def test_an_identity_of_ones_own_replaces_the_values(tmp_path):
    compared(tmp_path, lambda x, t, y: x, identity="mine, version 1")
    compared(tmp_path, lambda x, t, y: 2 * x, identity="mine, version 1")
    with pytest.raises(UserError, match="other velocity"):
        compared(tmp_path, lambda x, t, y: x, identity="mine, version 2")


def test_a_changed_field_is_another_row(tmp_path, capsys):
    scale = [1.0]
    fields = {"other": lambda x, t, y: scale[0] * x}
    first = compared(tmp_path, fields=fields).table.lines("other").kpe.to_numpy()
    scale[0] = 2.0
    second = compared(tmp_path, fields=fields).table.lines("other").kpe.to_numpy()
    assert (second > first).all()
    capsys.readouterr()
    compared(tmp_path, fields=fields)
    assert "78 of 78 samples are there already" in capsys.readouterr().out


class Dropout(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.drop = nn.Linear(2, 2), nn.Dropout(0.5)

    def forward(self, x, t, y=None):
        return self.drop(self.net(x))


def test_a_network_is_evaluated_in_evaluation_mode_and_left_as_it_was(tmp_path):
    net = Dropout().train()
    net.net.eval()
    compared(tmp_path, net)
    assert (net.training, net.net.training, net.drop.training) == (True, False, True)
    compared(tmp_path, net.eval())  # the same values


@pytest.mark.parametrize("kind", ["dropout", "batch statistics"])
def test_a_velocity_of_two_values_is_refused(tmp_path, kind):
    net = Dropout().train()
    noisy = {"dropout": lambda x, t, y: net(x, t), "batch statistics": lambda x, t, y: x - x.mean(0)}[kind]
    with pytest.raises(UserError, match="gives two values for one state"):
        compared(tmp_path, noisy, identity="mine")


def test_a_velocity_without_a_number_is_refused_before_sampling(capsys):
    with pytest.raises(UserError, match=r"Every value of the velocity at t = 0 is infinite or NaN"):
        compare_schedules(
            lambda x, t, y: x * float("nan"), {"base": Schedule()}, train=torch.randn(50, 2), real=torch.randn(50, 2)
        )
    assert "Comparing" not in capsys.readouterr().out


def test_labels_are_drawn_for_each_seed(tmp_path):
    labels = torch.tensor([0, 0, 0, 2])
    seen = set()

    def velocity(x, t, y):
        seen.update(y.tolist())
        return x * (1 + y[:, None])

    drawn = compared(tmp_path, velocity, labels=labels, seeds=40).table.lines("base").label
    assert set(drawn) == {0, 2}
    assert (drawn == 0).mean() > 0.5
    assert seen == {0, 1, 2}, "the probe asks for each class"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"real": None}, "no real samples"),
        ({"train": points(0).long()}, "train holds int64 numbers"),
        ({"train": (255 * points(0)).byte().numpy()}, "train holds uint8 numbers"),
        ({"train": points(0).tolist()}, "train must be numbers, but is list"),
        ({"train": points(0)[:, 0]}, r"train has the shape \[\d+\]"),
        ({"real": torch.randn(30, 3)}, r"Samples of real have the shape \[3\], those of train \[2\]"),
        ({"train": Toy2D(n=24)}, "Pass it alone"),
        ({"judge": ["none"]}, "none"),
        ({"measures": []}, None),
        ({"seeds": 0}, "seeds=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"device": "meta"}, "is on cpu"),
    ],
)
def test_refusals(tmp_path, change, words):
    if words is None:
        assert len(compared(tmp_path, **change).rows) == 5
        return
    with pytest.raises(UserError, match=words):
        compared(tmp_path, **change)
    assert not list(tmp_path.iterdir()), "nothing is left"


def test_arrays_are_tensors(tmp_path):
    """NumPy arrays give the table of the same tensors."""
    compared(tmp_path / "tensors")
    found = compared(tmp_path / "arrays", **{name: x.numpy() for name, x in DATA.items()})
    assert_equal_tables(table_contents(tmp_path / "arrays"), table_contents(tmp_path / "tensors"))
    assert found.rows.f_mem.notna().any()


SCRIPT = """
import sys
from pathlib import Path
import torch
sys.path.insert(0, {tests!r})
from test_compare_schedules import *
torch.set_num_threads(1)
if {families}:
    schedules = {{"base": Schedule(steps=60), "noisy": Schedule(steps=60, end_noise=0.06)}}
    schedules["more"] = Schedule(steps=60, end_noise=0.07)
    options = {{"families": ["noise", "blend", "fewer steps"], "judge": ["noisy", "more"], "batch_size": 20}}
    found = compared(Path(sys.argv[1]), EmpiricalVelocity(DATA["train"]), schedules, seeds=61, features=None, **options)
    print(found.table.manifest.chosen)
else:
    schedules = {{**SCHEDULES, "slow": Schedule(KTS(0.01), steps=300)}}
    found = compared(Path(sys.argv[1]), seeds=61, batch_size=4, schedules=schedules)
print("finished", len(found.rows), flush=True)
"""


def environment(rank: int | None = None, port: int = 0) -> dict[str, str]:
    here = Path(__file__).parent
    path = [str(here), str(here.parent), str(here.parents[1]), os.environ.get("PYTHONPATH", "")]
    found = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path)), "OMP_NUM_THREADS": "1"}
    if rank is not None:  # as torchrun sets them
        found |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "RANK": str(rank)}
        found |= {"LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "test"}
    return found


def started(folder: Path, processes: int, families: bool) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT.format(tests=str(Path(__file__).parent), families=families), str(folder)]
    return [
        subprocess.Popen(
            command,
            env=environment(rank if processes > 1 else None, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


def finished(some: list[subprocess.Popen]) -> None:
    said = [p.communicate(timeout=300)[0] for p in some]
    assert all(p.returncode == 0 and "finished" in s for p, s in zip(some, said)), "\n".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(("families", "kill_at"), [(False, 3), (True, 30)], ids=["schedules", "doses"])
def test_killed_and_resumed_equals_undisturbed(tmp_path, processes, families, kill_at):
    """Killed while schedules are compared; or while doses are chosen, in the second round of 25 batches."""
    finished(started(tmp_path / "whole", 1, families))
    finished(started(tmp_path / "together", processes, families))
    some = started(tmp_path / "cut", processes, families)
    parts = tmp_path / "cut" / "evaluation" / "parts"
    until = time.monotonic() + 120
    while len(list(parts.glob("[0-9]*"))) < kill_at and time.monotonic() < until:
        time.sleep(0.01)
    for p in some:
        p.send_signal(signal.SIGKILL)
    for p in some:
        p.wait()
    whole = len(list((tmp_path / "whole" / "evaluation" / "parts").glob("[0-9]*")))
    assert kill_at <= len(list(parts.glob("[0-9]*"))) < whole, "killed in the middle"
    finished(started(tmp_path / "cut", processes, families))
    wanted = Evaluation.open(tmp_path / "whole").manifest
    assert bool(wanted.chosen) == families
    for folder in ("together", "cut"):
        assert_equal_tables(table_contents(tmp_path / "whole"), table_contents(tmp_path / folder))
        assert Evaluation.open(tmp_path / folder).manifest.chosen == wanted.chosen


def test_base_of_an_earlier_command_is_what_rows_are_compared_with(tmp_path):
    compared(tmp_path, schedules={"base": SCHEDULES["base"]})
    grown = compared(tmp_path).table.lines("kts").rms_to_base
    whole = compared(tmp_path / "whole").table.lines("kts").rms_to_base
    np.testing.assert_array_equal(grown, whole)


@pytest.mark.parametrize("velocity", [lambda x, t, y=None: (x,), lambda x, t, y=None: x[:, :1]])
def test_what_is_no_velocity_is_refused_before_sampling(velocity):
    points = torch.zeros(60, 2).normal_(generator=torch.Generator().manual_seed(0))
    with pytest.raises(UserError):
        compare_schedules(velocity, {"base": Schedule(steps=2)}, train=points[:20], real=points[20:], families="none")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schedules": Schedule(KTS())}, "Schedules are named"),
        ({"schedules": [Schedule()]}, "Schedules are named"),
        ({"schedules": {"x": KTS()}}, "Pass Schedule(KTS(...))"),
        ({"schedules": {1: Schedule()}}, "name 1 is not text"),
        ({"seeds": 2.5}, "seeds=2.5 is not a whole number"),
        ({"seeds": "100"}, "seeds='100' is not a whole number"),
        ({"seeds": True}, "seeds=True is not a whole number"),
        ({"batch_size": 1e3}, "batch_size=1000.0 is not a whole number"),
        ({"families": None}, "families=None are not families"),
        ({"families": [object()]}, "are not families"),
        ({"features": nn.Linear(2, 3)}, "ModuleFeatures"),
        ({"threshold": "0.3"}, "threshold='0.3'"),
        ({"tau_split": 1.5}, "tau_split=1.5 is not a time from 0 to 1"),
        ({"base_seed": 2**70}, "is not a whole number from 0 to"),
        ({"base_seed": 0.5}, "is not a whole number from 0 to"),
        ({"device": "gpu"}, "The device 'gpu' does not exist"),
        ({"margins": 0.01}, "margins=0.01 is not of type Margins"),
        ({"measures": [object()]}, "is not a list of measures"),
        ({"judge": "kts"}, "Pass judge=['kts']"),
        ({"fields": {"kts": lambda x, t, y: x}}, "A field has the name of the schedule kts"),
        ({"labels": torch.zeros(3)}, "labels are of type float32"),
        ({"labels": torch.tensor([-1, 0])}, "labels contain -1"),
        ({"labels": torch.zeros(0, dtype=torch.int64)}, "labels are of type int64 and shape [0]"),
        ({"labels": {"train": 1}}, "labels must be numbers, but is dict"),
    ],
)
def test_arguments_of_another_kind(tmp_path, capsys, change, words):
    schedules = change.pop("schedules", SCHEDULES)
    with pytest.raises(UserError, match=re.escape(words)):
        compared(tmp_path, schedules=schedules, **{"families": "cheap", **change})
    assert "Comparing" not in capsys.readouterr().out  # nothing was sampled


def test_falsify_takes_one_schedule():
    with pytest.raises(UserError, match="not a Schedule"):
        falsify(network(), KTS(), train=points(0), real=points(1))


def test_only_a_schedule_with_a_gain_is_advised_to_weaken_it(tmp_path):
    with pytest.raises(UserError, match=r"'base'.* Train longer"):
        compared(tmp_path, velocity=lambda x, t, y: x * 1e38, schedules={"base": Schedule(steps=4)})


def test_labels_that_the_network_does_not_know():
    net = ResidualMLP([2], width=8, depth=1, num_classes=3)
    with pytest.raises(UserError, match="labels has 9 classes, and the velocity knows 3"):
        compare_schedules(net, SCHEDULES, train=points(0), real=points(1), labels=torch.arange(9))
