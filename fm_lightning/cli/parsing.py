"""The parser of a verb: its options, and every error of parsing and building as one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader, set_loader
from lightning import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from fm_lightning.cli.arguments import complain
from fm_lightning.cli.configurations import load_strictly
from fm_lightning.cli.endings import is_own
from fm_lightning.cli.listed_options import arguments, listed, split_off
from fm_lightning.cli.parser_errors import constructor_error, shorten, user_error
from fm_lightning.cli.run_directory import Again
from fm_lightning.data import FlowData
from fm_lightning.errors import UserError
from fm_lightning.training.module import FlowMatching


class ParsingCLI(LightningCLI):
    """LightningCLI for one verb.

    Attributes:
        errors: what is wrong, as far as it is known.
        plain_config: the resolved configuration; set before the objects are built.
    """

    subcommand: str
    plain_config: dict[str, Any]

    def __init__(self, args: list[str], **kwargs: Any) -> None:
        self.errors, self._verb = list[UserError](), args[0]
        _load_yaml_strictly()
        super().__init__(args=args, **kwargs)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning asks the object
        verbs = {**LightningCLI.subcommands(), "run": {"model", "datamodule"}, "diagnose": {"model", "datamodule"}}
        return {self._verb: verbs[self._verb]}  # building a parser takes a tenth of a second

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**kwargs, exit_on_error=False, allow_abbrev=False)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--name", type=str | None, default=None, help="the run's name and directory")
        parser.add_argument("--root", type=str, default="runs", help="directory of all runs")
        parser.add_argument(
            "--again", type=Again, default=False, help="move the run aside; evaluation: only the comparison"
        )
        parser.add_argument("--trial", type=int | None, default=None, help="a quick check with so many steps")
        parser.add_argument(
            "--axes", type=dict[str, list] | None, default=None, help="axes of `study`; a single run ignores them"
        )
        parser.add_argument("--threads", type=int | None, default=None, help="CPU threads; by default one per core")
        parser.link_arguments("seed_everything", "model.base_seed", compute_fn=_whole_number)
        parser.link_arguments("seed_everything", "data.init_args.base_seed", compute_fn=_whole_number)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        given, changes = split_off(args)
        try:
            self.config = parser.parse_args(given)
            if changes:
                trainer = self._plain(parser, self.config)[self._verb]["trainer"]
                self.config = parser.parse_args([*given, *arguments(trainer, changes)])
        except ArgumentError as error:
            if wrong := user_error(error):
                raise wrong from error
            options = [action.dest for action in self._subcommand_parsers[self._verb]._actions if action.option_strings]
            raise shorten(str(error), self._verb, options) from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except Exception as error:
            wrong = user_error(error) or (None if is_own(error) else constructor_error(error))
            if wrong is None and not self.errors:
                raise
            self.errors += [wrong] if wrong else []
            self.errors += _complaints(self.plain_config)
            complain(self.errors)

    def _parse_ckpt_path(self) -> None:
        """Does nothing: configuration and command line override a checkpoint's settings."""

    @staticmethod
    def _plain(parser: LightningArgumentParser, config: Namespace) -> dict[str, Any]:
        # Parsing has validated it.
        text = parser.dump(config, skip_link_targets=False, skip_unset=False, skip_validation=True)
        return yaml.load(text, yaml.CSafeLoader)


def _complaints(config: Mapping[str, Any]) -> list[UserError]:
    """The errors of model, data and each callback of a resolved configuration, each built alone."""
    found: list[UserError] = []
    for declare, value in _parts(config):
        parser = ArgumentParser(exit_on_error=False)
        declare(parser)
        try:
            parser.instantiate_classes(parser.parse_object({"it": value}))
        except Exception as error:  # the first exception ends the command; here only those that a user can fix count
            if wrong := user_error(error):
                found.append(wrong)
    return found


def _parts(config: Mapping[str, Any]) -> Iterator[tuple[Callable[[ArgumentParser], object], Any]]:
    yield lambda parser: parser.add_subclass_arguments(FlowData, "it"), config["data"]
    yield lambda parser: parser.add_class_arguments(FlowMatching, "it"), config["model"]
    for callback in listed(config["trainer"].get("callbacks")):
        yield lambda parser: parser.add_argument("--it", type=Callback), callback


def _whole_number(seed: Any) -> int:
    # Lightning also takes true and false, for a random seed.
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UserError(
            f"`seed_everything={seed}` must be a whole number from 0 to 4,294,967,295.", "Use --seed_everything 0"
        )
    return seed


def _load_yaml_strictly() -> None:
    """Has the parser refuse a key that occurs twice, in any file or value it reads."""
    lenient = get_loader("yaml")

    def load(text: str) -> Any:
        if ":" in text:
            load_strictly(text)
        return lenient(text)

    if lenient.__module__ != __name__:
        set_loader("yaml", load, exceptions=(yaml.YAMLError,))
