"""The learning-rate schedule of this field: warm up linearly, then stay, or fall to zero."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from fm_lightning.errors import OldError


class Warmup(LambdaLR):
    """Rises linearly over ``warmup_steps``, then follows ``decay`` until ``total_steps``.

    Args:
        optimizer: whose rate is scheduled.
        warmup_steps: steps of the rise; 0 starts at the full rate.
        decay: "constant", "linear" or "cosine", the last two to zero.
        total_steps: length of the run; the command line fills in ``trainer.max_steps``.

    Raises:
        UserError: an unknown decay, or one that needs ``total_steps`` without it.
    """

    def __init__(
        self, optimizer: Optimizer, warmup_steps: int = 0, decay: str = "constant", total_steps: int | None = None
    ) -> None:
        if decay not in ("constant", "linear", "cosine"):
            raise OldError(f"decay={decay!r} given", "constant, linear or cosine", "type e.g. 'linear'")
        if decay != "constant" and not (total_steps or 0) > warmup_steps:
            raise OldError(
                f"decay={decay!r} with total_steps={total_steps} given",
                f"more than warmup_steps={warmup_steps}",
                (
                    "lower it (--model.scheduler.init_args.warmup_steps) or type --trainer.max_steps "
                    f"{max(10000, 2 * warmup_steps)}"
                ),
            )

        def factor(step: int) -> float:
            if step < warmup_steps:
                return (step + 1) / warmup_steps
            if decay == "constant":
                return 1.0
            assert total_steps is not None
            left = max(0.0, 1 - (step - warmup_steps) / (total_steps - warmup_steps))
            return left if decay == "linear" else (1 - math.cos(math.pi * left)) / 2

        super().__init__(optimizer, factor)
