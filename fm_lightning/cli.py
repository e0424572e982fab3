"""The command line: LightningCLI with one run per directory, resuming, and errors of one line."""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning import LightningModule, Trainer
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from fm_lightning.checkpoints import CONFIG, check_average, check_fits, read_checkpoint
from fm_lightning.data import FlowData
from fm_lightning.errors import UserError
from fm_lightning.interruption import Interruption
from fm_lightning.module import FlowMatching
from fm_lightning.parser_errors import shorten, user_error
from fm_lightning.run import RunDirectory, identity
from fm_lightning.trainer import FlowTrainer

WANDB = "lightning.pytorch.loggers.WandbLogger"
CSV = "fm_lightning.tracking.AppendingCSVLogger"


class RunRecord(SaveConfigCallback):
    """Keeps the run's directory: configuration, run.json, and the configuration inside every checkpoint and logger."""

    directory: RunDirectory
    plain_config: dict[str, Any]
    wandb_id: str | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and not self.already_saved:
            if stage == "fit" or not (self.directory.path / "config.yaml").exists():
                self.directory.path.mkdir(parents=True, exist_ok=True)
                temporary = self.directory.path / "config.yaml.tmp"
                temporary.write_text(yaml.safe_dump(self.plain_config, sort_keys=False, allow_unicode=True))
                os.replace(temporary, self.directory.path / "config.yaml")
            self.directory.write(identity=identity(self.plain_config))
            if self.wandb_id:
                self.directory.write(wandb_id=self.wandb_id)
            for logger in trainer.loggers:
                logger.log_hyperparams(self.plain_config)
        self.already_saved = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG] = self.plain_config

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.directory.write(step=trainer.global_step)


class CLI(LightningCLI):
    """``fm-lightning fit|validate|test|predict|run -c CONFIG``."""

    directory: RunDirectory
    wandb_id: str | None = None
    trainer: FlowTrainer
    subcommand: str

    def __init__(self, *args: Any, interruption: Interruption, **kwargs: Any) -> None:
        self.interruption = interruption
        super().__init__(*args, **kwargs)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        return {**LightningCLI.subcommands(), "run": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, default=None, help="the run's name and directory")
        parser.add_argument("--root", type=str, default="runs", help="directory of all runs")
        parser.add_argument("--again", action="store_true", help="move what the run left aside and start over")
        parser.add_argument(
            "--threads", type=int | None, default=None, help="CPU threads; tiny networks are fastest on 1"
        )
        parser.link_arguments("seed_everything", "model.base_seed", compute_fn=_whole_number)
        parser.link_arguments("seed_everything", "data.init_args.base_seed", compute_fn=_whole_number)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        given = [str(arg) for arg in (sys.argv[1:] if args is None else args)]
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            if mendable := user_error(error):
                raise mendable from error
            verb = next((arg for arg in given if arg in self._subcommand_parsers), "fit")
            options = [action.dest for action in self._subcommand_parsers[verb]._actions if action.option_strings]
            configs = [b for a, b in itertools.pairwise(given) if a in ("-c", "--config")]
            raise UserError(shorten(str(error), verb, options, configs)) from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:
            if mendable := user_error(error):  # wrapped by the parser that builds the objects
                raise mendable from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        try:
            return super().instantiate_trainer(**kwargs)
        except (ValueError, TypeError, MisconfigurationException) as error:
            said = " ".join(str(error).replace("`", "").split())
            raise UserError(
                f"the trainer cannot be built as configured ({said}), expected settings that this machine has; "
                "type e.g. --trainer.accelerator auto --trainer.devices 1"
            ) from error

    def _parse_ckpt_path(self) -> None:
        """Configuration and command line beat what a checkpoint remembers."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.threads:
            torch.set_num_threads(config.threads)
        self.directory = RunDirectory(config.root, config.name)
        self.plain_config = yaml.safe_load(self.parser.dump(self.config, skip_link_targets=False, skip_none=False))[
            self.subcommand
        ]
        self.afresh = config.again and self.subcommand in ("fit", "run")
        if _is_rank_zero() and not self.afresh:
            self.directory.admit(
                self.subcommand, identity(self.plain_config), config.trainer.max_steps or -1, again=config.again
            )
        config.trainer.default_root_dir = str(self.directory.path)
        scheduler = config.model.get("scheduler")
        if scheduler and scheduler.get("init_args", {}).get("total_steps", 0) is None:
            scheduler.init_args.total_steps = config.trainer.max_steps
        self._place_files(config.trainer)
        self._choose_checkpoint(config)

    def _place_files(self, trainer: Namespace) -> None:
        """Everything that a run leaves lies in its directory, unless the configuration says otherwise."""
        for callback in trainer.callbacks or []:
            if callback.class_path.endswith("ModelCheckpoint") and callback.init_args.dirpath is None:
                callback.init_args.dirpath = str(self.directory.path / "checkpoints")
        loggers = trainer.logger if isinstance(trainer.logger, list) else [trainer.logger]
        for logger in loggers:
            if not isinstance(logger, Namespace):
                continue
            if logger.class_path == CSV and not logger.init_args.get("save_dir"):
                logger.init_args.save_dir = str(self.directory.path)
            if logger.class_path == WANDB:
                # The id is kept with the run, so that a resumed run goes on in the same place.
                kept = (not self.afresh and self.directory.record.get("wandb_id")) or secrets.token_hex(4)
                self.wandb_id = kept
                kept_with_run = {"save_dir": str(self.directory.path), "name": self.directory.path.name, "id": kept}
                for key, value in kept_with_run.items():
                    logger.init_args[key] = value

    def _choose_checkpoint(self, config: Namespace) -> None:
        fresh = self.subcommand in ("fit", "run")
        given = config.get("ckpt_path")
        self.interruption.last = self.directory.last
        leave_out = {"--again": config.again, "--ckpt_path": given}
        self.interruption.leave_out = tuple(option for option, value in leave_out.items() if value and fresh)
        if given is None and not self.afresh and self.directory.last.exists():
            given = str(self.directory.last)
        if given is None and not fresh:
            raise UserError(
                f"no checkpoint in {self.directory.path} to {self.subcommand}, expected {self.directory.last}; type "
                f"`fm-lightning fit` with the same configuration first, or --ckpt_path FILE"
            )
        if self.afresh and given and Path(given).resolve().is_relative_to(self.directory.path.resolve()):
            raise UserError(
                f"--again given with the checkpoint {given} of the run that it moves aside, expected one from elsewhere; "
                "type another --name"
            )
        config.ckpt_path = given
        self.checkpoint = read_checkpoint(given) if given else None
        if "weights_only" in config:
            config.weights_only = True
        if "verbose" in config:
            config.verbose = False

    def after_instantiate_classes(self) -> None:
        self.trainer.run_config = self.plain_config
        for callback in self.trainer.callbacks:
            if isinstance(callback, RunRecord):
                callback.directory, callback.plain_config = self.directory, self.plain_config
                callback.wandb_id = self.wandb_id
        if self.checkpoint is not None:
            check_fits(self.checkpoint["state_dict"], self.model, self.config[self.subcommand].ckpt_path)
            if self.subcommand in ("fit", "run"):
                check_average(self.checkpoint, self.trainer.callbacks)
            if self.subcommand in ("test", "validate"):
                self.trainer.tested_step = self.checkpoint["global_step"]
        # Last of all: a command that is refused has moved nothing.
        repeats = self.config[self.subcommand].again and self.subcommand in ("fit", "run", "test")
        if repeats and _is_rank_zero() and (moved := self.directory.set_aside(self.subcommand)):
            print(f"Moved what was there to {moved}")


_GREETINGS = ("Seed set to", "GPU available", "TPU available", "\U0001f4a1", "`Trainer.fit` stopped: `max_steps")


def _says_something(record: logging.LogRecord) -> bool:
    """Lightning greets on stderr; whoever looks there for an error should find the error alone."""
    return not any(greeting in str(record.msg) for greeting in _GREETINGS)


def _whole_number(seed: Any) -> int:
    # Lightning also takes true and false, for a seed that nobody knows.
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise UserError(f"seed_everything={seed} given, expected a whole number; type --seed_everything 0")
    return seed


def _is_rank_zero() -> bool:
    return not getattr(rank_zero_only, "rank", 0)


def main(args: list[str] | None = None) -> None:
    """Runs the command line; a ``UserError`` ends it with one line and status 2."""
    for noise in (
        ".*does not have many workers.*",
        ".*GPU available but not used.*",
        ".*litlogger.*",
        ".*isinstance.treespec.*",
        ".*exists and is not empty.*",  # a run's directory is meant to hold its run
        ".*your dataloader is not resumable.*",  # it is: it asks for the step that it begins with
    ):
        warnings.filterwarnings("ignore", message=noise)
    for logger in ("fabric.utilities.seed", "fabric.utilities.rank_zero", "pytorch.utilities.rank_zero"):
        logging.getLogger(f"lightning.{logger}").addFilter(_says_something)
    # A class of the user's own lies where the command is typed; a console script does not look there by itself.
    sys.path.insert(0, os.getcwd())
    interruption = Interruption()
    with interruption.watch():
        try:
            _command(interruption, args)
        except (KeyboardInterrupt, SystemExit):
            if interruption.signal is None:
                raise
            _fail(interruption.said, status=128 + interruption.signal)


def _command(interruption: Interruption, args: list[str] | None) -> None:
    try:
        CLI(
            FlowMatching,
            FlowData,
            subclass_mode_data=True,
            trainer_class=FlowTrainer,
            trainer_defaults={"callbacks": [interruption]},
            seed_everything_default=0,
            save_config_callback=RunRecord,
            auto_configure_optimizers=False,
            parser_kwargs={"exit_on_error": False},
            args=args,
            interruption=interruption,
        )
    except UserError as error:
        _fail(str(error))
    except ArgumentError as error:
        _fail(str(error))
    except MisconfigurationException as error:
        _fail(str(error))


def _fail(message: str, status: int = 2) -> None:
    if _is_rank_zero():
        print(f"fm-lightning: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)
