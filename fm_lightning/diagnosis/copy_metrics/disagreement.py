"""Where measures of copying disagree: about the set, and about single samples."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.estimate import Interval

Saying = Literal["copies", "no more than real images", "fewer than real images", "no floor"]


@dataclass(frozen=True)
class Pair:
    """Two measures' copies among n samples.

    Attributes:
        both, only_first, only_second: counts.
        kappa: Cohen's agreement beyond chance; None where both call all samples the same.
    """

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    n: int
    kappa: float | None


def saying(value: Interval, floor: Interval | None, lower_is_copying: bool) -> Saying:
    """A measure's verdict on a set: copying if the intervals of value and floor do not touch and the value is on that side."""
    if floor is None:
        return "no floor"
    if value.low <= floor.high and floor.low <= value.high:
        return "no more than real images"
    return "copies" if (value.value < floor.value) == lower_is_copying else "fewer than real images"


def agree(sayings: Mapping[str, Saying]) -> bool:
    """Whether all measures with a floor say the same about the set."""
    return len(set(sayings.values()) - {"no floor"}) <= 1


def disagreement(copies: Mapping[str, Tensor]) -> tuple[list[Pair], Tensor]:
    """Compares measures sample by sample.

    Args:
        copies: measure -> ``[n]`` bool of the same samples, from ``copied``.

    Returns:
        every two measures, and ``[n]`` bool: the samples that some but not all measures take for copies.

    Raises:
        UserError: no measures, or counts that differ.
    """
    if not copies or len({len(flags) for flags in copies.values()}) > 1:
        counts = ", ".join(f"{name} of {len(flags)}" for name, flags in copies.items()) or "no measures"
        raise UserError(f"Cannot compare {counts}.", "Apply every measure to the same samples.")
    flags = torch.stack(list(copies.values()))
    pairs = [_pair(a, b, copies[a], copies[b]) for a, b in itertools.combinations(copies, 2)]
    return pairs, flags.any(0) & ~flags.all(0)


def _pair(first: str, second: str, a: Tensor, b: Tensor) -> Pair:
    n = len(a)
    both, only_a, only_b = (int(v.sum()) for v in (a & b, a & ~b, ~a & b))
    seen = (n - only_a - only_b) / n
    share_a, share_b = (both + only_a) / n, (both + only_b) / n
    chance = share_a * share_b + (1 - share_a) * (1 - share_b)
    return Pair(first, second, both, only_a, only_b, n, None if chance == 1 else (seen - chance) / (1 - chance))
