"""Recipes for optimizers and learning rates, as a module keeps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Recipe:
    """A callable that copies of its owner share.

    The command line's refer to the trainer and its processes. An average of the weights copies the module, and would copy
    (or, on several devices, fail to copy) all of these.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recipe:
        return self
