"""What makes two runs the same: the parts of a configuration that decide the weights, the training's end, the comparison."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fm_lightning.cli.listed_options import listed
from fm_lightning.table.keys import differences
from fm_lightning.training.trainer import unless_all

# Every verb must agree on these with the run in the directory.
_MODEL = ("net", "path", "coupling", "times", "optimizer", "scheduler", "label_dropout", "weights", "base_seed")
_NOT_DATA = ("eval_batch_size", "val_seeds", "test_seeds", "predict_seeds", "cache_dir")
# Training depends on these, too; other verbs may change them. Devices, strategy and loggers do not change the weights.
_TRAINER = (
    "precision",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "overfit_batches",
    "sync_batchnorm",
    "plugins",
)
# Callbacks that change the weights or average them.
_CALLBACKS = (
    "EMA",
    "EMAWeightAveraging",
    "WeightAveraging",
    "StochasticWeightAveraging",
    "PowerAverages",
    "BackboneFinetuning",
    "ModelPruning",
)
# Callbacks that end the training.
_ENDS = ("EarlyStopping", "Timer")
# A comparison: repeating it with the same values does nothing.
_COMPARED = ("test_schedules", "val_schedules", "judge", "fields", "floors", "guidance")


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """Model and data of a resolved configuration, as far as the weights depend on them."""
    data = dict(config["data"])
    data["init_args"] = {k: v for k, v in (data.get("init_args") or {}).items() if k not in _NOT_DATA}
    return {"model": {key: config["model"].get(key) for key in _MODEL}, "data": data}


def training(config: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's settings and callbacks that the weights depend on."""
    trainer = config["trainer"]
    return {"trainer": {key: trainer.get(key) for key in _TRAINER} | _named(trainer, _CALLBACKS)}


def length(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that decide when the training is finished."""
    trainer = config["trainer"]
    ends = {key: trainer.get(key) for key in ("max_steps", "max_epochs", "max_time")}
    return ends | {"limit_train_batches": unless_all(trainer.get("limit_train_batches"))} | _named(trainer, _ENDS)


def comparison(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that the comparison depends on in addition to the run's identity."""
    data = config["data"].get("init_args") or {}
    return {
        "model": {key: config["model"].get(key) for key in _COMPARED},
        "test_seeds": data.get("test_seeds"),
        "limit": unless_all(config["trainer"].get("limit_test_batches")),
        "callbacks": config["trainer"].get("callbacks"),
    }


def _named(trainer: Mapping[str, Any], kinds: tuple[str, ...]) -> dict[str, Any]:
    """Class name -> arguments, for the configured callbacks among ``kinds``."""
    callbacks = ((str(c["class_path"]).rpartition(".")[2], c) for c in listed(trainer.get("callbacks")))
    return {name: c.get("init_args") or {} for name, c in callbacks if name in kinds}


def first_difference(there: Any, here: Any) -> tuple[str, str, str] | None:
    """Option, value there and value here, as words, where two configurations differ first; None where they agree."""
    for key, *values in differences(there, here, into_lists=False):
        was, now = ("not set" if value is None else str(value) for value in values)
        return key, was, now
    return None
