"""Optimizers and learning rates: the usual schedule, and how a module owns what makes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fm_lightning.errors import UserError


class Warmup(LambdaLR):
    """Rises linearly over ``warmup_steps``, then follows ``decay`` until ``total_steps``.

    Args:
        optimizer: optimizer whose rate is scheduled.
        warmup_steps: number of steps of the rise; 0 starts at the full rate.
        decay: shape after the warm-up: "constant", or "linear" or "cosine" to zero.
        total_steps: length of the training in steps; the command line fills in ``trainer.max_steps``.

    Raises:
        UserError: an unknown decay, or a decay without ``total_steps`` above ``warmup_steps``.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int = 0, decay: str = "constant", total_steps: int | None = None
    ) -> None:
        if decay not in ("constant", "linear", "cosine"):
            raise UserError(f"`decay={decay}` is unknown.", "Use constant, linear or cosine.")
        if warmup_steps < 0:
            raise UserError(f"`warmup_steps={warmup_steps}` is negative.", "Use 0 to start at the full rate.")
        if decay != "constant" and not (total_steps or 0) > warmup_steps:
            problem = f"`warmup_steps={warmup_steps}` is not shorter than the training, `total_steps={total_steps}`."
            raise UserError(problem, f"Set warmup_steps below {total_steps}." if total_steps else "Set total_steps.")

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            if decay == "constant":
                return 1.0
            assert total_steps is not None
            left = max(0.0, 1 - (step - warmup_steps) / (total_steps - warmup_steps))
            return left if decay == "linear" else (1 - math.cos(math.pi * left)) / 2

        super().__init__(optimizer, factor)


class Recipe:
    """A callable that makes an optimizer or a schedule, shared by all copies of the module that owns it.

    The recipes of the command line refer to the trainer and its processes. An average of the weights copies the module, and
    would copy these too, or fail to on several devices.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)

    def __deepcopy__(self, memo: dict[int, Any]) -> Recipe:
        return self
