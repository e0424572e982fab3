"""The axes of a study: options of the command with the values that its runs take, and a run's place among them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fm_lightning.errors import UserError

SEED = "seed_everything"
Values = dict[str, Any]  # axis -> value
ENDS = ("max_steps", "max_epochs", "max_time")


@dataclass(frozen=True)
class Point:
    """One run of a study.

    Attributes:
        name: of its run directory, for example ``n25-width64-seed0``.
        values: axis -> value.
    """

    name: str
    values: Values


def short_names(axes: Sequence[str]) -> dict[str, str]:
    """axis -> the last parts of it that no other axis shares: ``n``, ``width``, ``seed``."""
    found = {}
    for axis in axes:
        parts = [part for part in axis.split(".") if part != "init_args"]
        size = 1
        while sum(other.split(".")[-size:] == parts[-size:] for other in axes) > 1 and size < len(parts):
            size += 1
        found[axis] = "seed" if axis == SEED else "_".join(parts[-size:])
    return found


def check_axes(axes: Any) -> dict[str, list[Any]]:
    """The axes of a configuration: option -> values.

    Raises:
        UserError: no axes, an axis without values or with a repeated one, or one that changes the training's length.
    """
    if not isinstance(axes, Mapping) or not axes:
        raise UserError("The study has no axes.", "Add axes: {data.init_args.n: [25, 50, 100]}")
    for axis, values in axes.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"The axis {axis} has no list of values.", f"Write {axis}: [1, 2]")
        if any(values.count(value) > 1 for value in values):
            raise UserError(f"The axis {axis} repeats a value.", "List each value once.")
        names = [_word(value) for value in values]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(
                f"Two values of the axis {axis} would name their runs {twice[0]!r}.",
                "Use the option in which they differ as the axis, for example model.net.init_args.width",
            )
        if axis.rpartition(".")[2] in ENDS:
            raise UserError(f"The axis {axis} trains some runs longer than others.", "Train all equally long.")
    return {str(axis): list(values) for axis, values in axes.items()}


def points(axes: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
    """Every combination, the seed varying slowest, so that all other combinations are complete for a seed early."""
    order = sorted(axes, key=lambda axis: axis != SEED)
    short = short_names(list(axes))
    for values in itertools.product(*(axes[axis] for axis in order)):
        at = dict(zip(order, values))
        at = {axis: at[axis] for axis in axes}
        yield Point("-".join(f"{short[axis]}{_word(value)}" for axis, value in at.items()), at)


def _word(value: Any) -> str:
    """A value as part of a directory's name."""
    text = str(value.get("class_path", value) if isinstance(value, Mapping) else value)
    return re.sub(r"[^\w.+-]+", "_", text.rpartition(".")[2] if text.count(".") > 1 else text).strip("_.")
