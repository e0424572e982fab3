"""``--trainer.callbacks.FIDMonitor.kid true``, ``--trainer.logger.WandbLogger.group G``: one option of one listed object.

The parser knows a list as a whole: a list on the command line replaces the configuration's. These options change one entry.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import yaml

from fm_lightning.cli.arguments import scan
from fm_lightning.errors import UserError

_OPTION = re.compile(r"--trainer\.(callbacks|logger)\.([A-Z]\w*)\.(?:init_args\.)?([\w.]+)")
_ADDITION = re.compile(r"--trainer\.(callbacks|logger)\+")


class Change(NamedTuple):
    """One option of one listed object."""

    place: str  # "callbacks" or "logger"
    kind: str  # the class's name
    option: str
    value: str


def split_off(args: Sequence[str]) -> tuple[list[str], list[Change]]:
    """The arguments without those that change a listed object, and these changes.

    Options of an object that the same command adds (``--trainer.callbacks+=PATH.Timer``) follow it in the parser's own form.

    Raises:
        UserError: an option without a value.
    """
    words = list(scan(args))
    changes: list[Change] = []
    for word in words:
        if found := _OPTION.fullmatch(word.option):
            if word.value is None:
                raise UserError(f"{word.option} needs a value.", f"Use {word.option} VALUE")
            changes.append(Change(found[1], found[2], found[3], word.value))
    rest: list[str] = []
    added: list[Change] = []
    for word in (word for word in words if not _OPTION.fullmatch(word.option)):
        rest += word.text
        if adds := _ADDITION.fullmatch(word.option):
            kind = (word.value or "").rpartition(".")[2]
            mine = [change for change in changes if change[:2] == (adds[1], kind)]
            rest += [f"--trainer.{adds[1]}.init_args.{change.option}={change.value}" for change in mine]
            added += mine
    return rest, [change for change in changes if change not in added]


def arguments(trainer: Mapping[str, Any], changes: Sequence[Change]) -> list[str]:
    """The changed lists as arguments of the command.

    Args:
        trainer: the trainer's configuration, as plain data.
        changes: what to change in its lists.

    Raises:
        UserError: no listed object is of the class.
    """
    lists = {change.place: listed(trainer.get(change.place)) for change in changes}
    return [f"--trainer.{place}={json.dumps(changed(entries, changes, place))}" for place, entries in lists.items()]


def listed(value: Any) -> list[Any]:
    """Lightning takes one object, a list, nothing, or true and false."""
    return value if isinstance(value, list) else [value] if value and value is not True else []


def changed(entries: list[dict[str, Any]], changes: Sequence[Change], place: str = "callbacks") -> list[dict[str, Any]]:
    """The entries of a list with the changes made.

    Raises:
        UserError: no entry is of the class.
    """
    for _, kind, option, value in (change for change in changes if change.place == place):
        names = [str(entry["class_path"]).rpartition(".")[2] for entry in entries]
        if kind not in names:
            raise _not_listed(kind, option, value, names, place)
        *path, last = option.split(".")
        for entry in (e for e, name in zip(entries, names) if name == kind):
            # wandb.init's arguments reach a logger through **kwargs, which the parser takes as dict_kwargs only.
            passed_on = place == "logger" and not path and last not in _parameters(entry["class_path"])
            into = entry.setdefault("dict_kwargs" if passed_on else "init_args", {})
            for key in path:
                into = into.setdefault(key, {})
                if not isinstance(into, dict):
                    problem = f"{kind}.{key} is {into!r}, which has no option {last}."
                    raise UserError(problem, f"Set all of it with --trainer.{place}.{kind}.{key} VALUE")
            if last == "class_path":  # another class has other arguments
                into.pop("init_args", None)
            into[last] = yaml.safe_load(value)
    return entries


def _not_listed(kind: str, option: str, value: str, names: Sequence[str], place: str) -> UserError:
    meant = difflib.get_close_matches(kind, names, n=1, cutoff=0.5)
    if kind == "WandbLogger":
        fix = "Add it with -c wandb"
    elif meant:
        fix = f"Use --trainer.{place}.{meant[0]}.{option} {value}"
    else:
        fix = f"Add the class with --trainer.{place}+=FULL.PATH.{kind}"
    configured = ", ".join(dict.fromkeys(names)) or "none"
    return UserError(f"trainer.{place} lists no {kind} ({configured}).", fix)


def _parameters(class_path: str) -> set[str]:
    module, _, name = class_path.rpartition(".")
    return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def check_passed_on(names: Iterable[str]) -> None:
    """Refuses arguments that ``wandb.init`` does not take, before the logger passes them on after minutes.

    Raises:
        UserError: names the argument that was probably meant.
    """
    unknown = list(names)
    known = list(inspect.signature(importlib.import_module("wandb").init).parameters) if unknown else []
    for name in unknown:
        if name not in known:
            meant = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            fix = f"Use --trainer.logger.WandbLogger.{meant[0]} VALUE" if meant else "Remove it."
            raise UserError(f"Neither WandbLogger nor wandb.init has an option {name!r}.", fix)
