"""Settings that a command changes in a configuration: where files of the run lie, and ``--trial``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from fm_lightning.cli.listed_options import check_passed_on, listed

WANDB = "lightning.pytorch.loggers.WandbLogger"
CSV = "fm_lightning.training.AppendingCSVLogger"
SEEDS = 64  # samples per schedule of a trial, where the configuration has more


def place_files(trainer: Namespace, run: Path, wandb_id: str) -> str | None:
    """Puts all files of a run into its directory, unless the configuration names another place.

    Args:
        trainer: the trainer's configuration; changed in place.
        run: the run's directory.
        wandb_id: of the run in W&B.

    Returns:
        the id, if there is a W&B logger.
    """
    keeps = [c for c in listed(trainer.callbacks) if c.class_path.endswith(".ModelCheckpoint")]
    for callback in keeps:
        if callback.init_args.dirpath is None:
            callback.init_args.dirpath = str(run / "checkpoints")
    if not any(c.init_args.save_last for c in keeps):
        # Without last.ckpt a run can neither resume nor be compared.
        for callback in [c for c in keeps if c.init_args.save_last is None and not c.init_args.monitor][:1]:
            callback.init_args.save_last = True
    used = None
    for logger in (logger for logger in listed(trainer.logger) if isinstance(logger, Namespace)):
        if logger.class_path == CSV and not logger.init_args.get("save_dir"):
            logger.init_args.save_dir = str(run)
        if logger.class_path == WANDB:
            used = wandb_id
            check_passed_on((logger.get("dict_kwargs") or {}).keys())
            for key, value in {"save_dir": str(run), "name": run.name, "id": wandb_id}.items():
                logger.init_args[key] = value
    return used


def shorten_run(config: Namespace, steps: int) -> None:
    """``--trial``: scales everything that depends on the length of the training, and the numbers of seeds.

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
