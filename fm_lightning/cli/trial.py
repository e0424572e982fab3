"""``--trial [STEPS]``: the whole command in a short time, to see that a configuration and its data work."""

from __future__ import annotations

from typing import Any

from jsonargparse import Namespace

from fm_lightning.cli.listed_options import listed

SEEDS = 64  # samples per schedule, where the configuration has more


def shorten_run(config: Namespace, steps: int) -> None:
    """Scales everything that depends on the length of the training, and the numbers of seeds.

    Warm-up, validation interval and checkpoints keep their share of the training. Families of trivial manipulations are left
    out: their doses need hundreds of calibration seeds.

    Args:
        config: of the verb; changed in place.
        steps: optimizer steps of the trial.
    """
    trainer = config.trainer
    whole = trainer.max_steps if trainer.max_steps and trainer.max_steps > 0 else None
    share = steps / whole if whole else 0.0
    trainer.max_steps, trainer.max_time, trainer.log_every_n_steps = steps, None, 1
    trainer.check_val_every_n_epoch = None
    trainer.val_check_interval = max(1, steps // 2) * (trainer.accumulate_grad_batches or 1)
    for callback in listed(trainer.callbacks):
        arguments: Any = callback.get("init_args", Namespace())
        if callback.class_path.endswith("ModelCheckpoint") and arguments.get("every_n_train_steps"):
            arguments.every_n_train_steps = max(1, min(arguments.every_n_train_steps, steps // 2))
        if callback.class_path.endswith("ScheduleTable"):
            callback.init_args = Namespace({**vars(arguments), "families": "none"})
    data = config.data.get("init_args", Namespace())
    for key in ("val_seeds", "test_seeds"):
        if data.get(key):
            data[key] = min(data[key], SEEDS)
    scheduler = config.model.get("scheduler")
    settings = scheduler.get("init_args", Namespace()) if scheduler else Namespace()
    if settings.get("warmup_steps"):
        settings.warmup_steps = min(round(settings.warmup_steps * share), steps // 2)
    if settings.get("total_steps"):
        settings.total_steps = steps
