"""What else is wrong: where building one object failed, the others are tried, too, so that all is said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jsonargparse import ArgumentParser
from lightning import Callback

from fm_lightning.cli.listed_options import listed
from fm_lightning.cli.parser_errors import user_error
from fm_lightning.data import FlowData
from fm_lightning.errors import UserError
from fm_lightning.training.module import FlowMatching


def complaints(config: Mapping[str, Any]) -> list[UserError]:
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
