"""Numbers and lists as people read them: 2,000 seeds; -5.6 [-6.6, -4.6]; noise, blending and 3 others.

Numbers carry ASCII signs, for terminals and CSV; ``decimal`` and ``true_minus`` write minus signs, for sentences and pages.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterable, Sequence

import numpy as np

MINUS = "\u2212"
MISSING = "–"


def finite(value: object) -> float | None:
    """The number, or None for what is missing: null, NaN, infinities, anything that is no number."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # an integer beyond every float
        return None


def decimals(values: Iterable[object], significant: int = 4) -> int:
    """How many decimals give the largest of the values about ``significant`` digits (0 to 6)."""
    sizes = [abs(number) for value in values if (number := finite(value)) is not None]
    largest = max(sizes, default=0.0)
    if largest == 0.0:
        return 2
    return min(6, max(0, significant - 1 - math.floor(math.log10(largest))))


def places(low: float, high: float) -> int:
    """Decimals for an interval of that width: none if it is 6 or more, 1 if 0.6 or more, 2 if 0.06 or more, and so forth.

    Fewer would round an end of a narrow interval onto 0, which the sentence next to it says is excluded.
    """
    width = high - low
    if width >= 6 or not math.isfinite(width):
        return 0
    return math.ceil(math.log10(6 / width) - 1e-9) if width > 0 else 2


def number(value: object, places: int = 2) -> str:
    """``26.26``; what is missing is a dash."""
    found = finite(value)
    return MISSING if found is None else f"{found:.{places}f}"


def signed(value: object, places: int = 2) -> str:
    """``+0.39``; what rounds to nothing has no sign."""
    found = finite(value)
    if found is None:
        return MISSING
    text = f"{found:+.{places}f}"
    return text[1:] if float(text) == 0 else text


def decimal(value: object, places: int) -> str:
    """``−5.6``, for a sentence; what rounds to nothing has no sign."""
    return true_minus(signed(value, places).removeprefix("+"))


def share(value: object, places: int = 1) -> str:
    """A share 0..1 as percent, without the sign ``%``."""
    found = finite(value)
    return MISSING if found is None else number(100 * found, places)


def thousands(value: object) -> str:
    """``2,000``."""
    found = finite(value)
    return MISSING if found is None else f"{round(found):,}"


def span(low: object, high: object, write: Callable[[object, int], str], places: int = 2) -> str:
    """``[-6.3, -4.4]``, or an empty string where an end is missing."""
    if finite(low) is None or finite(high) is None:
        return ""
    return f"[{write(low, places)}, {write(high, places)}]"


def with_span(
    value: object, low: object, high: object, write: Callable[[object, int], str], places: int = 2, unit: str = ""
) -> str:
    """``-5.2% [-6.3, -4.4]``."""
    return f"{write(value, places)}{unit} {span(low, high, write, places)}".rstrip()


def true_minus(text: str) -> str:
    """Hyphens before digits as minus signs, for print and screen; terminals and CSV keep the hyphen."""
    return "".join(
        MINUS if sign == "-" and following.isdigit() and not before.isalnum() else sign
        for before, sign, following in zip(" " + text, text, text[1:] + " ")
    )


def ascii_only(text: str) -> str:
    """The text for a terminal that knows no Unicode: accents dropped, Greek spelled out."""
    spelled = []
    for letter in text:
        if letter.isascii():
            spelled.append(letter)
        elif letter in "–—−Δ":
            spelled.append("d" if letter == "Δ" else "-")
        elif (name := unicodedata.name(letter, "")).startswith("GREEK SMALL LETTER "):
            spelled.append(name.removeprefix("GREEK SMALL LETTER ").lower().split()[0])
        else:
            plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
            spelled.append(plain or ("'" if letter in "‘’" else " " if letter.isspace() else "?"))
    return "".join(spelled)


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
