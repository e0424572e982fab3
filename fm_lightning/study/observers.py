"""Observers: what of a configuration changes neither the trained weights nor the numbers of a comparison.

A callback that is not named here may change the training, so that replicates must agree on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# They measure, keep files or show something. (What a number is measured with is in the results.) TrainingThreads changes
# nothing but the time, as ``threads`` does.
_OBSERVERS = {
    "fm_lightning.callbacks": {
        "CheckpointSeries",
        "DivergenceWatch",
        "FIDMonitor",
        "KPEDistribution",
        "LogSpacedValidation",
        "LossOverTime",
        "MemorizationMonitor",
        "PowerAverages",
        "Progress",
        "SampleGrid",
        "SampleWriter",
        "ScheduleTable",
        "SemanticsMonitor",
        "SupportMonitor",
        "TrainingThreads",
    },
    # A comparison takes the last checkpoint, which every ModelCheckpoint leaves alike.
    "lightning.pytorch.callbacks": {
        "DeviceStatsMonitor",
        "LearningRateMonitor",
        "ModelCheckpoint",
        "ModelSummary",
        "RichModelSummary",
        "RichProgressBar",
        "ThroughputMonitor",
        "TQDMProgressBar",
    },
}
_AVERAGES = {"fm_lightning.callbacks": {"EMA"}}  # changes what is measured, but reads no validation
_VALIDATES = {"fm_lightning.callbacks": {"LogSpacedValidation"}}
# Where and how fast a run works, what it is called and shows, which rows and seeds it compares.
_FREE = {
    "": {"name", "root", "seed_everything", "threads"},
    "model": {"base_seed", "channels_last", "compile", "fields", "floors", "judge", "merge_rows", "test_schedules"},
    "data.init_args": {"base_seed", "cache_dir", "eval_batch_size", "predict_seeds", "test_seeds"},
    "trainer": {
        "accelerator",
        "benchmark",
        "callbacks",
        "default_root_dir",
        "detect_anomaly",
        "deterministic",
        "devices",
        "enable_autolog_hparams",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "limit_predict_batches",
        "limit_test_batches",
        "log_every_n_steps",
        "logger",
        "model_registry",
        "num_nodes",
        "profiler",
        "strategy",
    },
}
_VALIDATION = {
    "model": {"val_schedules"},
    "data.init_args": {"val_seeds"},
    "trainer": {"check_val_every_n_epoch", "limit_val_batches", "num_sanity_val_steps", "val_check_interval"},
}


def observes(callback: Mapping[str, Any], validations: bool = False) -> bool:
    """Whether a configured callback only observes; with ``validations`` one that decides when to validate does not."""
    return _among(callback, _OBSERVERS) and not (validations and _among(callback, _VALIDATES))


def averages(callback: Mapping[str, Any]) -> bool:
    """Whether a configured callback averages the weights, and does nothing else."""
    return _among(callback, _AVERAGES)


def what_decides(config: Mapping[str, Any], validations: bool) -> dict[str, Any]:
    """The configuration without what only observes and without its callbacks.

    Args:
        config: of a run.
        validations: whether something may act on what validations find, so that their settings decide, too.
    """
    return _without(config, "", (_FREE,) if validations else (_FREE, _VALIDATION))


def _among(callback: Mapping[str, Any], classes: Mapping[str, set[str]]) -> bool:
    path = str(callback["class_path"])
    return any(path.startswith(f"{room}.") and path.rpartition(".")[2] in names for room, names in classes.items())


def _without(config: Mapping[str, Any], key: str, free: tuple[Mapping[str, set[str]], ...]) -> dict[str, Any]:
    left_out = {name for each in free for name in each.get(key, ())}
    return {
        name: _without(value, f"{key}.{name}" if key else name, free) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in left_out
    }
