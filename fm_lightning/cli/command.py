"""The command line: LightningCLI with one run per directory, resuming, and errors of one line."""

from __future__ import annotations

import itertools
import os
import secrets
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, Namespace
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from fm_lightning.adapters.checkpoints import CONFIG, check_fits, read_checkpoint
from fm_lightning.callbacks import DivergenceWatch, SampleWriter, ScheduleTable
from fm_lightning.callbacks.interruption import Interruption
from fm_lightning.cli.callback_options import changed, split_off
from fm_lightning.cli.diagnosing_trainer import DiagnosingTrainer
from fm_lightning.cli.endings import crash, fail, is_rank_zero
from fm_lightning.cli.hush import hush
from fm_lightning.cli.parser_errors import shorten, user_error
from fm_lightning.cli.run_directory import RunDirectory, comparison, identity, length
from fm_lightning.data import FlowData
from fm_lightning.errors import OldError, UserError
from fm_lightning.files import write_whole
from fm_lightning.training.average import check_average
from fm_lightning.training.module import FlowMatching
from fm_lightning.training.precision import check_precision
from fm_lightning.training.trainer import FlowTrainer

WANDB = "lightning.pytorch.loggers.WandbLogger"
CSV = "fm_lightning.training.AppendingCSVLogger"
_VERBS_OWN = ("verbose", "weights_only", "return_predictions")  # arguments of Lightning's verbs


class RunRecord(SaveConfigCallback):
    """Keeps the run's directory: configuration, run.json, and the configuration inside every checkpoint and logger."""

    directory: RunDirectory
    plain_config: dict[str, Any]
    wandb_id: str | None = None
    saved_step = -1

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        sees = {"data": data.fingerprint} if stage in ("fit", "test") and data.has_training_data else {}
        if sees and self.directory.last.exists() and self.directory.record.get("data", sees["data"]) != sees["data"]:
            raise OldError(
                f"{self.directory.path} holds a run on other training data (their content has changed since)",
                "the same images, labels and preprocessing",
                "type --again to start over, or another --name",
            )
        if trainer.is_global_zero and not self.already_saved:
            # The record comes first: it makes the directory a run, whatever a full disk or a kill leaves out after it.
            self.directory.write(identity=identity(self.plain_config), **sees)
            if stage == "fit" or not (self.directory.path / "config.yaml").exists():
                self._keep_config()
            if self.wandb_id:
                self.directory.write(wandb_id=self.wandb_id)
            for logger in trainer.loggers:
                logger.log_hyperparams(self.plain_config)
        self.already_saved = True

    def _keep_config(self) -> None:
        text = yaml.safe_dump(self.plain_config, sort_keys=False, allow_unicode=True)
        write_whole(self.directory.path / "config.yaml", text)

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Now that the comparison has been let in: the report reads its rows and callbacks from here.
        if trainer.is_global_zero:
            self._keep_config()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG] = self.plain_config
        self.saved_step = trainer.global_step

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # What is compared next is what the last checkpoint holds, whatever the interval of checkpoints.
        dry = trainer.fast_dev_run  # type: ignore[attr-defined]
        if trainer.checkpoint_callbacks and not dry and self.saved_step != trainer.global_step:
            trainer.save_checkpoint(self.directory.last, weights_only=False)
        if trainer.is_global_zero and not trainer.interrupted:
            self.directory.write(step=trainer.global_step, trained=length(self.plain_config))

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            self.directory.write(compared=comparison(self.plain_config))


class CLI(LightningCLI):
    """``fm-lightning fit|validate|test|predict|run -c CONFIG``."""

    directory: RunDirectory
    wandb_id: str | None = None
    trainer: FlowTrainer
    subcommand: str

    def __init__(self, *args: Any, interruption: Interruption, **kwargs: Any) -> None:
        self.interruption = interruption
        typed = sys.argv[1:] if kwargs.get("args") is None else kwargs["args"]
        self._verb = str(typed[0]) if typed else ""
        try:
            super().__init__(*args, **kwargs)
        except (UserError, ArgumentError, MisconfigurationException) as error:
            fail(str(error))
        except Exception as error:
            directory = getattr(self, "directory", None)
            crash(error, directory.path if directory else Path("fm-lightning"), self._after_making_room())
        finally:
            if directory := getattr(self, "directory", None):
                directory.claim.release()

    def _after_making_room(self) -> str:
        """How the verb goes on once a full disk has room."""
        if getattr(self, "subcommand", None) == "predict":
            return "type the same command with --again to sample anew"
        return f"type the same command again{self.interruption.but}"

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning asks the object
        verbs = {**LightningCLI.subcommands(), "run": {"model", "datamodule"}, "diagnose": {"model", "datamodule"}}
        # Building a parser takes a tenth of a second: none is built for a verb that was not typed.
        return {self._verb: verbs[self._verb]} if self._verb in verbs else verbs

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, default=None, help="the run's name and directory")
        parser.add_argument("--root", type=str, default="runs", help="directory of all runs")
        parser.add_argument("--again", action="store_true", help="move what the run left aside and start over")
        parser.add_argument("--threads", type=int | None, default=None, help="CPU threads; by default one per core")
        parser.link_arguments("seed_everything", "model.base_seed", compute_fn=_whole_number)
        parser.link_arguments("seed_everything", "data.init_args.base_seed", compute_fn=_whole_number)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        given, changes = split_off([str(arg) for arg in (sys.argv[1:] if args is None else args)])
        try:
            if not changes:
                super().parse_arguments(parser, args)
            else:
                config = parser.parse_args(given)
                callbacks = self._plain(parser, config)[config.subcommand]["trainer"]["callbacks"]
                self.config = parser.parse_args([*given, *changed(_listed(callbacks), changes)])
        except ArgumentError as error:
            if mendable := user_error(error):
                raise mendable from error
            verb = next((arg for arg in given if arg in self._subcommand_parsers), "fit")
            options = [action.dest for action in self._subcommand_parsers[verb]._actions if action.option_strings]
            configs = [b for a, b in itertools.pairwise(given) if a in ("-c", "--config")]
            raise shorten(str(error), verb, options, configs) from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:
            if mendable := user_error(error):  # wrapped by the parser that builds the objects
                raise mendable from error
            raise

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        configured = self.config_init[self.subcommand].trainer
        given = _listed(configured.callbacks)
        if configured.enable_progress_bar is False:
            given = [callback for callback in given if not isinstance(callback, ProgressBar)]
        try:
            return super().instantiate_trainer(**kwargs, callbacks=[*given, *self._missing(given, configured)])
        except UserError:
            raise
        except (ValueError, TypeError, MisconfigurationException) as error:
            said = " ".join(str(error).replace("`", "").split())
            raise OldError(
                f"the trainer cannot be built as configured ({said})",
                "settings that this machine has",
                "type e.g. --trainer.accelerator auto --trainer.devices 1",
            ) from error

    def _missing(self, given: list[Callback], trainer: Namespace) -> list[Callback]:
        """What the verb is for and the list of callbacks forgets: a list replaces the configuration's as a whole."""
        saves = self.subcommand in ("fit", "run") and trainer.enable_checkpointing is not False
        folder = self.directory.path / "checkpoints"
        wanted: dict[type[Callback], tuple[bool, dict[str, Any]]] = {
            ModelCheckpoint: (saves and not trainer.fast_dev_run, {"dirpath": folder, "save_last": True}),
            ScheduleTable: (self.subcommand in ("test", "run"), {}),
            SampleWriter: (self.subcommand == "predict", {}),
        }
        missing = {
            kind: arguments
            for kind, (needed, arguments) in wanted.items()
            if needed and not any(isinstance(callback, kind) for callback in given)
        }
        if missing and is_rank_zero():
            names = " and ".join(kind.__name__ for kind in missing)
            print(f"trainer.callbacks without {names} given: added, because `{self.subcommand}` leaves nothing without")
        return [kind(**arguments) for kind, arguments in missing.items()]

    def _parse_ckpt_path(self) -> None:
        """Configuration and command line beat what a checkpoint remembers."""

    @staticmethod
    def _plain(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
        return yaml.safe_load(parser.dump(config, skip_link_targets=False, skip_none=False))

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        if config.threads is not None:
            if config.threads < 1:
                raise OldError(f"threads={config.threads} given", "at least 1", "type --threads 1")
            torch.set_num_threads(config.threads)
        check_precision(config.trainer.precision)
        self.directory = RunDirectory(config.root, config.name)
        resolved = self._plain(self.parser, self.config)[self.subcommand]
        # A saved configuration serves every verb.
        self.plain_config = {key: value for key, value in resolved.items() if key not in _VERBS_OWN}
        self.afresh = config.again and self.subcommand in ("fit", "run")
        if is_rank_zero():
            self.directory.claim.take()
        if is_rank_zero() and not self.afresh:
            self.directory.admit(self.subcommand, self.plain_config, again=config.again)
        config.trainer.default_root_dir = str(self.directory.path)
        scheduler = config.model.get("scheduler")
        if scheduler and scheduler.get("init_args", {}).get("total_steps", 0) is None:
            scheduler.init_args.total_steps = config.trainer.max_steps
        self._place_files(config.trainer)
        self._choose_checkpoint(config)

    def _place_files(self, trainer: Namespace) -> None:
        """Everything that a run leaves lies in its directory, unless the configuration says otherwise."""
        for callback in _listed(trainer.callbacks):
            if callback.class_path.endswith("ModelCheckpoint") and callback.init_args.dirpath is None:
                callback.init_args.dirpath = str(self.directory.path / "checkpoints")
        for logger in _listed(trainer.logger):
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
        # A comparison goes on with the same weights.
        leave_out = {"--again": config.again and self.subcommand != "predict", "--ckpt_path": given and fresh}
        self.interruption.leave_out = tuple(option for option, value in leave_out.items() if value)
        if given is None and not self.afresh and self.directory.last.exists():
            given = str(self.directory.last)
        elsewhere = config.model.get("weights")
        if given is None and not fresh and not elsewhere:
            raise OldError(
                f"no checkpoint in {self.directory.path} to {self.subcommand}",
                f"{self.directory.last}",
                "type `fm-lightning fit` with the same configuration first, or --ckpt_path FILE",
            )
        if self.afresh and given and Path(given).resolve().is_relative_to(self.directory.path.resolve()):
            raise OldError(
                f"--again given with the checkpoint {given} of the run that it moves aside",
                "one from elsewhere",
                "type another --name",
            )
        config.ckpt_path = given
        self.checkpoint = read_checkpoint(given) if given else None
        if "weights_only" in config:
            config.weights_only = True
        if "verbose" in config:
            config.verbose = False
        if "return_predictions" in config and config.return_predictions is None:
            config.return_predictions = False  # they are written; a command has nobody to return them to

    def after_instantiate_classes(self) -> None:
        self.trainer.run_config = self.plain_config
        for callback in self.trainer.callbacks:
            if isinstance(callback, RunRecord):
                callback.directory, callback.plain_config = self.directory, self.plain_config
                callback.wandb_id = self.wandb_id
                if self.checkpoint is not None:
                    callback.saved_step = self.checkpoint["global_step"]
        if self.checkpoint is not None:
            check_fits(self.checkpoint["state_dict"], self.model, self.config[self.subcommand].ckpt_path)
            if self.subcommand in ("fit", "run"):
                check_average(self.checkpoint, self.trainer.callbacks)
            if self.subcommand in ("test", "validate", "diagnose"):
                self.trainer.tested_step = self.checkpoint["global_step"]
        self._try_optimizer()
        # Last of all: a command that is refused has moved nothing.
        repeats = self.config[self.subcommand].again and self.subcommand in ("fit", "run", "test", "predict")
        if repeats and is_rank_zero() and (moved := self.directory.set_aside(self.subcommand)):
            print(f"Moved what was there to {moved}")

    def _try_optimizer(self) -> None:
        """Builds what training will build once more, so that wrong settings are refused before anything is made."""
        if self.subcommand not in ("fit", "run"):
            return
        try:
            self.model.configure_optimizers()
        except (ValueError, TypeError) as error:
            if mendable := user_error(error):
                raise mendable from error
            raise OldError(
                f"the optimizer or its scheduler cannot be built as configured ({error})",
                "settings that it takes",
                "type e.g. --model.optimizer.init_args.lr 0.001",
            ) from error

    # Lightning calls these after its verbs.

    def after_fit(self) -> None:
        if is_rank_zero() and self.directory.last.exists():
            print(
                f"Checkpoint: {self.directory.last}; next, compare schedules: "
                f"fm-lightning test -c {self.directory.path}/config.yaml"
            )

    def after_validate(self) -> None:
        if is_rank_zero():
            for name, value in sorted(self.trainer.callback_metrics.items()):
                print(f"{name:40} {float(value):.4g}")


def _listed(value: Any) -> list[Any]:
    """Lightning takes one, or a list, or nothing."""
    return value if isinstance(value, list) else [value] if value else []


def _whole_number(seed: Any) -> int:
    # Lightning also takes true and false, for a seed that nobody knows.
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise OldError(
            f"seed_everything={seed} given", "a whole number from 0 to 4294967295", "type --seed_everything 0"
        )
    return seed


def main(args: list[str] | None = None) -> None:
    """Runs the command line; a ``UserError`` ends it with one line and status 2."""
    hush()
    # A class of the user's own lies where the command is typed; a console script does not look there by itself.
    sys.path.insert(0, os.getcwd())
    interruption = Interruption()
    with interruption.watch():
        try:
            CLI(
                FlowMatching,
                FlowData,
                subclass_mode_data=True,
                trainer_class=DiagnosingTrainer,
                trainer_defaults={"callbacks": [interruption, DivergenceWatch()]},
                seed_everything_default=0,
                save_config_callback=RunRecord,
                auto_configure_optimizers=False,
                parser_kwargs={"exit_on_error": False},
                args=args,
                interruption=interruption,
            )
        except (KeyboardInterrupt, SystemExit):
            if interruption.signal is None:
                raise
            fail(interruption.said, status=128 + interruption.signal, wait=60)
