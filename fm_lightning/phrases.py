"""Numbers and lists as sentences have them: 2,000 seeds; −5.6 [−6.6, −4.6]; noise, blending and 3 others."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

MINUS = "\u2212"


def thousands(number: float) -> str:
    """``2,000``."""
    return f"{round(number):,}".replace("-", MINUS)


def decimal(number: float, places: int) -> str:
    """``−5.6``; what rounds to nothing has no sign."""
    text = f"{number:.{places}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", MINUS)


def signed(number: float, places: int) -> str:
    """``+5.6``."""
    text = decimal(number, places)
    return text if text.startswith(MINUS) or float(text) == 0 else f"+{text}"


def span(low: float, high: float, places: int) -> str:
    """``[−6.6, −4.6]``."""
    return f"[{decimal(low, places)}, {decimal(high, places)}]"


def places(low: float, high: float) -> int:
    """Decimals for an interval of that width: none if it is 6 or more, 1 if 0.1 or more, 2 if 0.01 or more, and so forth."""
    width = high - low
    if width >= 6 or not math.isfinite(width):
        return 0
    return max(1, -math.floor(math.log10(width))) if width > 0 else 2


def counted(number: int, noun: str, nouns: str = "") -> str:
    """``1 point``, ``2,000 seeds``."""
    return f"{thousands(number)} {noun if number == 1 else nouns or noun + 's'}"


def joined(names: Iterable[str]) -> str:
    """``noise, blending and a late brake``."""
    found = list(names)
    return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)


def shortened(names: Sequence[str], most: int) -> str:
    """``joined``, but ``noise, blending and 3 others`` where there are more than ``most``."""
    if len(names) <= most:
        return joined(names)
    left = len(names) - most
    return f"{', '.join(names[:most])} and {counted(left, 'other')}" if most else counted(left, "family", "families")


def capital(sentence: str) -> str:
    """The sentence with a capital first letter."""
    return sentence[:1].upper() + sentence[1:]
