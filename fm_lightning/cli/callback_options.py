"""``--trainer.callbacks.FIDMonitor.kid true``: one option of one callback, named by its class.

The parser knows a list of callbacks as a whole: what is given on the command line replaces all of the configuration's.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

import yaml

from fm_lightning.errors import OldError

_OPTION = re.compile(r"--trainer\.callbacks\.([A-Z]\w*)\.(?:init_args\.)?([\w.]+)(?:=(.*))?", re.DOTALL)

Change = tuple[str, str, str]  # class, option, value


def split_off(args: Sequence[str]) -> tuple[list[str], list[Change]]:
    """The arguments without those that change one callback, and these.

    Raises:
        UserError: an option without a value.
    """
    rest: list[str] = []
    changes: list[Change] = []
    left = iter(args)
    for argument in left:
        if found := _OPTION.fullmatch(argument):
            value = found[3] if found[3] is not None else next(left, None)
            if value is None:
                raise OldError(f"{argument} given without a value", "one", f"type {argument} VALUE")
            changes.append((found[1], found[2], value))
        else:
            rest.append(argument)
    return rest, changes


def changed(callbacks: list[dict[str, Any]], changes: Sequence[Change]) -> list[str]:
    """The list of callbacks with the changes made, as arguments of the command; see ``changed_callbacks``."""
    return [f"--trainer.callbacks={json.dumps(changed_callbacks(callbacks, changes))}"]


def changed_callbacks(callbacks: list[dict[str, Any]], changes: Sequence[Change]) -> list[dict[str, Any]]:
    """The list of callbacks with the changes made.

    Args:
        callbacks: the configured ones, as plain data.
        changes: what to change in them.

    Raises:
        UserError: no configured callback is of the class.
    """
    for kind, option, value in changes:
        names = [str(callback["class_path"]).rpartition(".")[2] for callback in callbacks]
        if kind not in names:
            meant = difflib.get_close_matches(kind, names, n=1, cutoff=0.5)
            remedy = f"--trainer.callbacks.{meant[0]}.{option} {value}" if meant else "it into the configuration"
            raise OldError(
                f"--trainer.callbacks.{kind}.{option} given",
                f"one of the configured callbacks ({', '.join(dict.fromkeys(names)) or 'none'})",
                f"type {remedy}",
            )
        *path, last = option.split(".")
        for callback in (c for c, name in zip(callbacks, names) if name == kind):
            into = callback.setdefault("init_args", {})
            for key in path:
                into = into.setdefault(key, {})
            if last == "class_path":  # another class has other arguments
                into.pop("init_args", None)
            into[last] = yaml.safe_load(value)
    return callbacks
