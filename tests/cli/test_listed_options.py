"""One option of one callback or logger on the command line."""

from __future__ import annotations

import yaml
from tiny_runs import says, tiny_config


def measured(c):
    raw = {"class_path": "fm_lightning.metrics.RawFeatures", "init_args": {"pool": 1}}
    fid = {"class_path": "fm_lightning.callbacks.FIDMonitor", "init_args": {"extractors": raw}}
    c["trainer"]["callbacks"].insert(0, fid)


def test_options_of_one_callback_leave_the_others_alone(command, tmp_path):
    file = tiny_config(tmp_path / "fid.yaml", measured)
    ended = command(
        "fit", "-c", file, "--trainer.callbacks.FIDMonitor.kid", "true", "--trainer.max_steps=2",
        "--trainer.callbacks.ModelCheckpoint.init_args.save_top_k=1", "--trainer.callbacks.FIDMonitor.extractors", "fd_raw",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    config = yaml.safe_load((tmp_path / "runs/tiny/config.yaml").read_text())
    callbacks = {c["class_path"].rpartition(".")[2]: c.get("init_args", {}) for c in config["trainer"]["callbacks"]}
    assert callbacks["FIDMonitor"]["kid"] is True
    assert callbacks["FIDMonitor"]["extractors"] == "fd_raw"
    assert callbacks["ModelCheckpoint"]["save_top_k"] == 1
    assert callbacks["ModelCheckpoint"]["every_n_train_steps"] == 2
    assert callbacks["EMA"]["decay"] == 0.9
    assert config["trainer"]["max_steps"] == 2


def test_another_class_for_an_argument(command, tmp_path):
    file = tiny_config(tmp_path / "fid.yaml", measured)
    extractor = "--trainer.callbacks.FIDMonitor.extractors.class_path"
    assert command("fit", "-c", file, extractor, "fm_lightning.metrics.RawFeatures").status == 0


def test_what_cannot_be_meant(refused, tmp_path):
    says(
        refused("fit", "-c", "tiny.yaml", "--trainer.callbacks.EMMA.decay", "0.5"),
        "trainer.callbacks lists no EMMA (EMA, KPEDistribution", "Use --trainer.callbacks.EMA.decay 0.5",
    )  # fmt: skip
    says(
        refused("fit", "-c", "tiny.yaml", "--trainer.callbacks.EMA.deca", "0.5"),
        "EMA has no option 'deca'",
        "Use decay",
    )
    says(refused("fit", "-c", "tiny.yaml", "--trainer.callbacks.EMA.decay", "x"), "decay=x", "type float")
    says(refused("fit", "-c", "tiny.yaml", "--trainer.callbacks.EMA.decay"), "needs a value", "decay VALUE")
    says(refused("fit", "-c", "tiny.yaml", "--trainer.callbacks.EMA.decay", "2"), "EMA: `decay=2` must")
    says(
        refused("fit", "-c", "tiny.yaml", "--trainer.logger.WandbLogger.group", "g"), "lists no WandbLogger", "-c wandb"
    )
