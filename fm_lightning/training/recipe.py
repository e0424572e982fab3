"""Recipes for optimizers and learning rates."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Recipe:
    """A callable that is shared by all copies of the module that owns it.

    The recipes of the command line refer to the trainer and its processes. An average of the weights copies the module, and
    would copy these too, or fail to on several devices.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recipe:
        return self
