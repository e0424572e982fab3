"""Chance in sampling: the reverse-time SDE of the linear path with the same marginals as its ODE (arXiv 2401.08740).

    dx = (v + w s / 2) dt + sqrt(w) dW,      s = (t v - x) / (1 - t) the score,      w = 2 (1 - t) k(t)

With that w the drift is ``(1 + k t) v - k x``, finite at ``t = 1``. A constant w is not: there the score is infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fm_lightning.errors import UserError

FORMS = ("sigma", "sbdm")


@dataclass(frozen=True)
class Diffusion:
    """How much noise the steps of sampling add.

    Args:
        scale: c, at least 0; 0 is the ODE.
        form: "sigma" has ``w = 2 (1 - t) c`` (in SiT's code ``diffusion_form="sigma"`` with ``diffusion_norm=c``); "sbdm"
            has ``w = 2 (1 - t) c / t``, the diffusion of score-based models, infinite at ``t = 0``.

    Raises:
        UserError: an unknown form, or a scale below 0.
    """

    scale: float = 1.0
    form: str = "sigma"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            why = " A constant diffusion has no limit at t = 1." if self.form == "constant" else ""
            raise UserError(f"diffusion: form={self.form!r} is unknown.{why}", f"Choose among {', '.join(FORMS)}.")
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise UserError(
                f"diffusion: scale={self.scale:g} must be a finite number of at least 0.", "Use for example scale=1."
            )

    def __str__(self) -> str:
        return f"SDE {self.form} {self.scale:g}"

    def exists(self, t: float) -> bool:
        """Whether w is finite at the time ``t``."""
        return self.form == "sigma" or t > 0

    def pull(self, t: float) -> float:
        """``k(t)``."""
        return self.scale if self.form == "sigma" else self.scale / t
