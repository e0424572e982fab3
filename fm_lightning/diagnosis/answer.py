"""Answer: what a question found, as plain numbers, arrays and sentences; a number without a value carries its reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from fm_lightning.diagnosis.association.statistic import Statistic
from fm_lightning.errors import UserError
from fm_lightning.phrases import number, thousands, with_span

T = TypeVar("T")


@dataclass
class Answer:
    """What one question found.

    Attributes:
        numbers: what ``plain`` takes.
        arrays: what figures are drawn from.
        sentences: each with interval and n.
    """

    numbers: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    sentences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Missing:
    """In place of a finding: why there is none."""

    reason: str


def unless_refused(compute: Callable[[], T]) -> T | Missing:
    """The finding, or the reason why this run has none: one number that is undefined takes no other with it."""
    try:
        return compute()
    except UserError as error:
        return Missing(error.problem.removesuffix("."))


def plain(value: Any) -> Any:
    """A finding as JSON: dataclasses and named tuples by their fields, arrays as lists, what is not finite as None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def stated(estimate: Statistic | Missing, name: str, places: int = 2) -> str:
    """``name = 0.31 [0.20, 0.41], n = 2,000``, or why there is no number."""
    if isinstance(estimate, Missing):
        return f"no {name}: {estimate.reason}"
    if estimate.value is None:
        return f"no {name} ({estimate.reason}, n = {thousands(estimate.n)})"
    text = f"{name} = {with_span(estimate.value, estimate.low, estimate.high, number, places)}"
    if estimate.low is None and estimate.reason:
        text += f" ({estimate.reason})"
    return f"{text}, n = {thousands(estimate.n)}"


def p_value(p: float | None) -> str:
    """``p = 0.03``."""
    if p is None:
        return "no p"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def numpy(values: Tensor) -> np.ndarray:
    """Off the device, float32 where it is floating point."""
    values = values.detach().cpu()
    return (values.float() if values.dtype in (torch.float64, torch.bfloat16) else values).numpy()
