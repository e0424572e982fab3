"""Numbers for people: fixed decimals down a column, signs on changes, a dash for what is missing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable

from fm_lightning.report.results import finite

MISSING = "–"


def decimals(values: Iterable[object], significant: int = 4) -> int:
    """How many decimals give the largest of the values about ``significant`` digits (0 to 6)."""
    sizes = [abs(number) for value in values if (number := finite(value)) is not None]
    largest = max(sizes, default=0.0)
    if largest == 0.0:
        return 2
    return min(6, max(0, significant - 1 - math.floor(math.log10(largest))))


def number(value: object, places: int = 2) -> str:
    """``26.26``; a dash for null, NaN and infinities."""
    found = finite(value)
    return MISSING if found is None else f"{found:.{places}f}"


def signed(value: object, places: int = 2) -> str:
    """``+0.39``; what rounds to nothing carries no sign."""
    found = finite(value)
    if found is None:
        return MISSING
    text = f"{found:+.{places}f}"
    return text[1:] if float(text) == 0.0 else text


def share(value: object, places: int = 1) -> str:
    """A share 0..1 as percent, without the sign ``%``."""
    found = finite(value)
    return MISSING if found is None else f"{100 * found:.{places}f}"


def count(value: object) -> str:
    """``2,000``."""
    found = finite(value)
    return MISSING if found is None else f"{round(found):,}"


def span(lo: object, hi: object, write=signed, places: int = 2) -> str:
    """``[-6.3, -4.4]``, or an empty string where an end is missing."""
    if finite(lo) is None or finite(hi) is None:
        return ""
    return f"[{write(lo, places)}, {write(hi, places)}]"


def with_span(value: object, lo: object, hi: object, write=signed, places: int = 2) -> str:
    """``-5.2 [-6.3, -4.4]``."""
    return f"{write(value, places)} {span(lo, hi, write, places)}".rstrip()


def true_minus(text: str) -> str:
    """Hyphens before digits as minus signs, for print and screen; terminals and CSV keep the hyphen."""
    return "".join(
        "\u2212" if sign == "-" and following.isdigit() and not before.isalnum() else sign
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
