"""The command line: LightningCLI with one run per directory, resuming, and errors of one line."""

from __future__ import annotations

import enum
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from fm_lightning.adapters.checkpoints import check_fits, read_checkpoint
from fm_lightning.callbacks import DivergenceWatch
from fm_lightning.callbacks.interruption import Interruption
from fm_lightning.cli.arguments import complain, noting
from fm_lightning.cli.diagnosing_trainer import DiagnosingTrainer
from fm_lightning.cli.endings import crash, explain, fail, is_rank_zero
from fm_lightning.cli.hush import hush
from fm_lightning.cli.listed_options import listed
from fm_lightning.cli.parser_errors import user_error
from fm_lightning.cli.parsing import ParsingCLI
from fm_lightning.cli.run_callbacks import always_present, check_callbacks, missing_callbacks
from fm_lightning.cli.run_directory import RunDirectory
from fm_lightning.cli.run_record import RunRecord
from fm_lightning.cli.settings import place_files, shorten_run
from fm_lightning.data import FlowData
from fm_lightning.errors import UserError
from fm_lightning.table.manifest import OtherEvaluation
from fm_lightning.training.checks import check_average, check_precision
from fm_lightning.training.module import FlowMatching
from fm_lightning.training.trainer import FlowTrainer

# Lightning's Timer has an enumeration among its strings.
yaml.SafeDumper.add_multi_representer(enum.Enum, lambda dumper, member: dumper.represent_data(member.value))
# Options of one command, which the saved configuration of a run leaves out.
_NOT_KEPT = ("axes", "verbose", "weights_only", "return_predictions", "again", "trial")


# What to do about an option that Lightning refuses, by a word of its message; the last fits all.
_FIXES = {
    "strategy": "Use --trainer.strategy auto",
    "gradient_clip": "Use --trainer.gradient_clip_algorithm norm",
    "val_check_interval": "Use for example --trainer.val_check_interval 1000",
    "duration": "Use for example --trainer.max_time 00:01:00:00",
    "": "Try --trainer.accelerator auto --trainer.devices 1",
}


class CLI(ParsingCLI):
    """``fm-lightning run|fit|validate|test|predict|diagnose -c CONFIG``."""

    directory: RunDirectory
    wandb_id: str | None = None
    trainer: FlowTrainer

    def __init__(self, args: list[str], interruption: Interruption, **kwargs: Any) -> None:
        self.interruption = interruption
        try:
            super().__init__(args=args, **kwargs)
        except (UserError, ArgumentError, MisconfigurationException) as error:
            if isinstance(error, OtherEvaluation):
                error.fix = "Set it aside with --again, or use another --name."
            fail(*getattr(error, "lines", [explain(error) or str(error)]))
        except Exception as error:
            directory = getattr(self, "directory", None)
            crash(error, directory.path if directory else Path("fm-lightning"), self._after_making_room())
        finally:
            if directory := getattr(self, "directory", None):
                directory.claim.release()

    def _after_making_room(self) -> str:
        """How to continue once a full disk has room."""
        if getattr(self, "subcommand", None) == "predict":
            return "run the same command with --again"
        return f"run the same command again{self.interruption.but}"

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        configured = self.config_init[self.subcommand].trainer
        given = listed(configured.callbacks)
        if configured.enable_progress_bar is False:
            given = [callback for callback in given if not isinstance(callback, ProgressBar)]
        try:
            return super().instantiate_trainer(**kwargs, callbacks=[*given, *self._missing(given, configured)])
        except UserError:
            raise
        except (ValueError, TypeError, MisconfigurationException) as error:
            what = " ".join(str(error).replace("`", "").split())
            problem = f"Lightning cannot build the trainer: {what.rstrip('.!')}."
            raise UserError(problem, next(fix for word, fix in _FIXES.items() if word in what)) from error

    def _missing(self, given: list[Callback], trainer: Namespace) -> list[Callback]:
        missing = missing_callbacks(given, self.subcommand, trainer, self.directory.path / "checkpoints")
        if missing and is_rank_zero():
            names = " and ".join(type(callback).__name__ for callback in missing)
            print(
                f"Added {names}: without {'it' if len(missing) == 1 else 'them'} `{self.subcommand}` leaves no results"
            )
        return [*missing, *always_present(given, self.subcommand)]

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        trains = self.subcommand in ("fit", "run")
        with noting(self.errors):
            if config.threads is not None and config.threads < 1:
                raise UserError(f"`threads={config.threads}` must be positive.", "Use --threads 1")
            torch.set_num_threads(config.threads or torch.get_num_threads())
        with noting(self.errors):
            check_precision(config.trainer.precision)
        if trains and (config.trainer.max_steps == 0 or config.trainer.max_steps < -1):
            problem = f"`max_steps={config.trainer.max_steps}` trains nothing."
            raise UserError(problem, "Use for example --trainer.max_steps 1000")
        if config.trial is not None:
            if not trains:
                raise UserError(f"{self.subcommand} has no --trial.", "Use it with run or fit.")
            if config.trial < 2:
                raise UserError(f"`trial={config.trial}` is too short a training.", "Use --trial 20")
            shorten_run(config, config.trial)
        self.directory = RunDirectory(config.root, _name(config))
        config.name = self.directory.path.name
        resolved = self._plain(self.parser, self.config)[self.subcommand]
        self.config_dump = resolved  # Lightning would resolve it once more
        self.plain_config = {key: value for key, value in resolved.items() if key not in _NOT_KEPT}
        if config.again == "evaluation" and self.subcommand not in ("fit", "run", "test"):
            raise UserError(f"{self.subcommand} has no --again evaluation.", "Remove it.")
        self._replaces = config.trial is not None and bool(self.directory.record.get("trial"))
        self.afresh = trains and (config.again is True or self._replaces)
        if is_rank_zero():
            self.directory.claim.take()
        if is_rank_zero() and not self.afresh:
            self.directory.admit(self.subcommand, self.plain_config, config.again, config.get("ckpt_path"))
        config.trainer.default_root_dir = str(self.directory.path)
        scheduler = config.model.get("scheduler")
        if scheduler and scheduler.get("init_args", {}).get("total_steps", 0) is None:
            scheduler.init_args.total_steps = config.trainer.max_steps
            if trains and not self.afresh:
                self._say_other_schedule(config.trainer.max_steps)
        # A resumed run continues the same W&B run; in a sweep the agent chooses the id.
        kept = (not self.afresh and self.directory.record.get("wandb_id")) or secrets.token_hex(4)
        self.wandb_id = place_files(config.trainer, self.directory.path, os.environ.get("WANDB_RUN_ID") or kept)
        self._choose_checkpoint(config)

    def _say_other_schedule(self, max_steps: int | None) -> None:
        before = self.directory.record.get("max_steps")
        if is_rank_zero() and self.directory.last.exists() and before not in (None, max_steps):
            print(
                f"Learning rates so far followed max_steps={before}, and follow max_steps={max_steps} now: the result is not "
                "that of one training of this length"
            )

    def _choose_checkpoint(self, config: Namespace) -> None:
        trains = self.subcommand in ("fit", "run")
        given = config.get("ckpt_path")
        self.interruption.last = self.directory.last
        # Options that would keep the same command from resuming.
        leave_out = {"--again": config.again and self.subcommand != "predict", "--ckpt_path": given and trains}
        self.interruption.leave_out = tuple(option for option, value in leave_out.items() if value)
        if given is None and not self.afresh and self.directory.last.exists():
            given = str(self.directory.last)
        if given is None and not trains and not config.model.get("weights"):
            raise UserError(
                f"{self.directory.path} holds no checkpoint to {self.subcommand}.",
                "Run fm-lightning fit with the same configuration first, or pass --ckpt_path FILE",
            )
        if self.afresh and given and Path(given).resolve().is_relative_to(self.directory.path.resolve()):
            raise UserError(f"--again would move the checkpoint {given} aside.", "Use another --name")
        config.ckpt_path = given
        self.checkpoint = read_checkpoint(given) if given else None
        if "weights_only" in config:
            config.weights_only = True
        if "return_predictions" in config and config.return_predictions is None:
            config.return_predictions = False  # they are written to files

    def after_instantiate_classes(self) -> None:
        self.trainer.run_config = self.plain_config
        for callback in self.trainer.callbacks:
            if isinstance(callback, RunRecord):
                callback.directory, callback.plain_config = self.directory, self.plain_config
                callback.wandb_id = self.wandb_id
                callback.trial = self.config[self.subcommand].trial is not None
                if self.checkpoint is not None:
                    callback.saved_step = self.checkpoint["global_step"]
        trains = self.subcommand in ("fit", "run")
        if self.checkpoint is not None:
            with noting(self.errors):
                check_fits(self.checkpoint["state_dict"], self.model, self.config[self.subcommand].ckpt_path)
                if trains:
                    check_average(self.checkpoint, self.trainer.callbacks)
            if self.subcommand in ("test", "validate", "diagnose"):
                self.trainer.tested_step = self.checkpoint["global_step"]
        if trains:
            with noting(self.errors):
                check_callbacks(self.trainer.callbacks)
            with noting(self.errors):
                self._try_optimizer()
            if self.errors:
                with noting(self.errors):  # what else is wrong, which only the data can tell
                    self.datamodule.prepare_data()
                    self.datamodule.setup("fit")
                    self.model.check_data(self.datamodule)
        complain(self.errors)
        self._warn_of_guidance()
        # Last of all: a command that is refused has moved nothing.
        again = self.config[self.subcommand].again
        if is_rank_zero():
            if self._replaces:
                if former := self.directory.set_aside(self.subcommand):
                    shutil.rmtree(former)
            elif (
                again
                and self.subcommand in ("fit", "run", "test", "predict")
                and (moved := self.directory.set_aside(self.subcommand, again))
            ):
                print(f"Moved what was there to {moved}")

    def _try_optimizer(self) -> None:
        """Builds what training will build again, so that wrong settings are refused before anything is made."""
        try:
            self.model.configure_optimizers()
        except (ValueError, TypeError) as error:
            if wrong := user_error(error):
                raise wrong from error
            problem = f"Cannot build the optimizer or its scheduler: {error}."
            raise UserError(problem, "Check --model.optimizer.init_args and --model.scheduler.init_args") from error

    def _warn_of_guidance(self) -> None:
        scale = self.model.guidance.scale
        if scale != 1 and not self.model.label_dropout and not self.model.weights and is_rank_zero():
            print(
                f"guidance={scale:g} evaluates the null class, which label_dropout=0 never trains. "
                "Train it with --model.label_dropout 0.1, or leave guidance at 1"
            )

    # Lightning calls these after its verbs.

    def after_fit(self) -> None:
        if is_rank_zero() and self.directory.last.exists():
            old = (self.directory.path / "evaluation").exists()
            again = (
                " --again evaluation"
                if old and self.trainer.global_step != (self.checkpoint or {}).get("global_step")
                else ""
            )
            print(
                f"Checkpoint: {self.directory.last}; next, compare schedules: "
                f"fm-lightning test -c {self.directory.path}{again}"
            )

    def after_validate(self) -> None:
        if is_rank_zero():
            for name, value in sorted(self.trainer.callback_metrics.items()):
                print(f"{name:40} {float(value):.4g}")


def _name(config: Namespace) -> str | None:
    """The run's name; trials and the runs of a W&B sweep have directories of their own."""
    name = config.name
    if name and config.trial is not None and not name.endswith("-trial"):
        name = f"{name}-trial"
    if name and os.environ.get("WANDB_SWEEP_ID") and (run := os.environ.get("WANDB_RUN_ID")) and run not in name:
        name = f"{name}-{run}"
    return name


def main(args: list[str]) -> None:
    """Runs the command; an error that a user can fix ends it with one line per problem and status 2.

    Args:
        args: verb and arguments, resolved (see ``arguments.resolve``).
    """
    hush()
    sys.path.insert(0, os.getcwd())  # for the user's own classes; a console script does not look there
    interruption = Interruption()
    with interruption.watch():
        try:
            CLI(
                args,
                interruption,
                model_class=FlowMatching,
                datamodule_class=FlowData,
                subclass_mode_data=True,
                trainer_class=DiagnosingTrainer,
                trainer_defaults={"callbacks": [interruption, DivergenceWatch()]},
                seed_everything_default=0,
                save_config_callback=RunRecord,
                auto_configure_optimizers=False,
            )
        except (KeyboardInterrupt, SystemExit):
            if interruption.signal is None:
                raise
            fail(interruption.message, status=128 + interruption.signal, wait=60)
