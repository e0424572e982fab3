"""Precisions that training and sampling can have."""

from __future__ import annotations

from fm_lightning.errors import OldError


def check_precision(precision: object) -> None:
    """Refuses weights and states of less than float32, in which averages of weights and energies lose their digits.

    Raises:
        UserError: "bf16-true" or "16-true".
    """
    if str(precision) in ("bf16-true", "16-true"):
        raise OldError(
            f"precision={precision} given",
            "weights and states of float32 or float64",
            "type --trainer.precision bf16-mixed",
        )
