"""Precisions of training and sampling."""

from __future__ import annotations

from fm_lightning.errors import UserError


def check_precision(precision: object) -> None:
    """Refuses weights and states below float32, in which averages of weights and energies lose digits.

    Raises:
        UserError: "bf16-true" or "16-true".
    """
    if str(precision) in ("bf16-true", "16-true"):
        raise UserError(f"`precision={precision}` is too coarse for averages and energies.", "Use bf16-mixed.")
