"""The family "other model": rows of networks that were trained otherwise, and which of them are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_runs import tiny_config

from fm_lightning import EmpiricalVelocity, Evaluation, Schedule, UserError, compare_schedules, integrate, load_network
from fm_lightning.comparison import other_models
from fm_lightning.nets import ResidualMLP
from fm_lightning.noise import noise

POINTS = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
DATA = {"train": POINTS[:20], "real": POINTS[20:40], "held_out": POINTS[40:]}


class Shrunk(torch.nn.Module):
    """The closed form of the training points, weakened: copies less the weaker."""

    def __init__(self, move):
        super().__init__()
        self.move = torch.nn.Parameter(torch.tensor(float(move)))
        self.field = EmpiricalVelocity(DATA["train"])
        self.singular_end = True

    def forward(self, x, t, y=None):
        return self.field(x, t) * (1 - self.move)

    def evaluations(self, t):
        return 1

    def at(self, t):
        return self


def test_rows_are_those_networks(tmp_path):
    others = [Shrunk(move) for move in (0.05, 0.1, 0.2, 0.4)]
    schedules = {"base": Schedule(steps=8), "noisy": Schedule(steps=8, end_noise=0.06)}
    options = {"seeds": 40, "features": None, "judge": ["noisy"], "folder": tmp_path}
    found = compare_schedules(Shrunk(0), schedules, **DATA, families=["blend", other_models(others)], **options)
    assert set(found.table.manifest.judged["noisy"]["families"]) == {"blend", "other model"}
    rows = {name: about for name, about in found.table.shown.items() if "~other model~" in name}
    assert len(rows) == 3
    family = other_models(others)
    nets = {family.at(Schedule(steps=8), k + 1.0).key: net for k, net in enumerate(others)}
    nets[found.table.rows["base"]["key"]] = Shrunk(0)
    for name, about in rows.items():
        lines, net = found.table.lines(name), nets[about["key"]]
        alone = integrate(net, noise(lines.seed.tolist(), (2,), 0), Schedule(steps=8))
        np.testing.assert_allclose(lines.kpe.to_numpy(), alone.kpe.numpy(), rtol=1e-4)
        assert about["label"].startswith("other model, ")
    assert len({about["key"] for about in rows.values()}) == 3


def test_runs_are_named_in_a_configuration(command, refused, tmp_path):
    for name, steps in (("most", 30), ("some", 20), ("least", 10)):
        assert command("fit", "-c", "tiny.yaml", "--name", name, "--trainer.max_steps", steps).status == 0

    def change(c, others=("runs/some", "runs/least/checkpoints/last.ckpt")):
        c["model"]["test_schedules"]["noisy"] = {"steps": 4, "end_noise": 0.1}
        c["model"]["judge"] = ["noisy"]
        c["data"]["init_args"]["eval_batch_size"] = 500
        c["trainer"]["callbacks"][2]["init_args"] = {"threshold": 0.8}
        c["trainer"]["callbacks"][4]["init_args"] = {"families": ["noise"], "other_models": list(others)}

    ended = command(
        "test", "-c", tiny_config(tmp_path / "others.yaml", change), "--name", "most", "--trainer.max_steps", 30
    )
    assert ended.status == 0, ended.err
    table = Evaluation.open(tmp_path / "runs/most")
    assert "other model" in table.manifest.judged["noisy"]["families"]
    contents = [d["content"] for d in table.manifest.definitions.values() if str(d["content"]).startswith("model:")]
    assert len(contents) == 2
    file = tiny_config(tmp_path / "missing.yaml", lambda c: change(c, ("runs/some", "runs/none")))
    assert "There is no other model runs/none" in refused("test", "-c", file, "--name", "some")
    file = tiny_config(tmp_path / "one.yaml", lambda c: change(c, ("runs/some",)))
    assert "A curve needs two other models, not 1. Name at least two" in refused("test", "-c", file, "--name", "some")
    assert command("fit", "-c", "tiny.yaml", "--name", "other", "--data.init_args.n", 23).status == 0
    file = tiny_config(tmp_path / "data.yaml", lambda c: change(c, ("runs/some", "runs/other")))
    ended = command("test", "-c", file, "--name", "most", "--trainer.max_steps", 30, "--again", "evaluation")
    assert ended.status == 2
    assert "The other model other was trained on other training data. Leave it out" in ended.err


def test_networks_that_cannot_be_compared(tmp_path):
    plain, wide = ResidualMLP([2], width=8, depth=1), ResidualMLP([3], width=8, depth=1)
    labelled = ResidualMLP([2], width=8, depth=1, num_classes=3)
    with pytest.raises(UserError, match="Two other models have the weights of ResidualMLP"):
        other_models([plain, plain])
    for other, words in (
        (wide, r"ResidualMLP does not fit: .*\[3\]"),
        (labelled, "does not fit: The network is for 3 classes"),
    ):
        with pytest.raises(UserError, match=words):
            compare_schedules(
                plain,
                {"s": Schedule(steps=2)},
                **DATA,
                families=[other_models([plain, other])],
                judge=["s"],
                folder=tmp_path,
            )


def test_a_file_that_changes_is_named(command, tmp_path):
    for name, steps in (("some", 4), ("least", 2)):
        assert command("fit", "-c", "tiny.yaml", "--name", name, "--trainer.max_steps", steps).status == 0
    family = other_models(["runs/some", "runs/least"])
    row = family.at(Schedule(), 1.0)
    loaded = row.velocity.load(torch.device("cpu"))
    x = torch.zeros(3, 2)
    torch.testing.assert_close(loaded(x, x[:, 0]), load_network("runs/some/checkpoints/last.ckpt")(x, x[:, 0]))
