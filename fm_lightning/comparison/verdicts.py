"""What the controls allow to be said about a schedule.

Two measures count, both better when lower: F_mem and the Fréchet distance. Against a control, over the same seeds,

    beats         significantly better in one and not significantly worse in the other
    trades        significantly better in one and significantly worse in the other
    explained by  better in neither: the control does as much without the schedule's idea

"Significantly" means that the paired 95 % interval excludes zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Interval = tuple[float, float, float]  # change, low, high


def outcome(changes: Mapping[str, Interval]) -> str:
    """ "beats", "trades" or "explained" from the changes {measure: (schedule - control, low, high)}."""
    better = any(high < 0 for _, _, high in changes.values())
    worse = any(low > 0 for _, low, _ in changes.values())
    return ("trades" if worse else "beats") if better else "explained"


def verdict(row: Mapping[str, Any], controls: list[Mapping[str, Any]], base: Mapping[str, Any], quality: str) -> dict:
    """The verdict on a shaped schedule.

    Args:
        row: the schedule's row of the results (``vs_plain`` filled).
        controls: the rows of its controls (``vs_parent`` filled); may be empty.
        base: the row of plain sampling that it is judged against: the same solver, grid and steps where there is such a row.
        quality: key of the Fréchet distance.

    Returns:
        ``{"schedule", "sentence", "effect", "beats", "explained_by", "trades"}``; the effect, against plain sampling, is
        "none", "worse" (in one measure at least, and better in none) or "some".
    """
    found: dict[str, list[str]] = {"beats": [], "explained": [], "trades": []}
    for control in controls:
        found[outcome(control["vs_parent"])].append(control["name"])
    against = row["vs_plain"]
    effect = _effect(against, base["metrics"].get(quality), quality)
    against_base = "some"
    if all(low <= 0 <= high for _, low, high in against.values()):
        against_base = "none"
        claim = "nothing measurable to explain"
    elif outcome(against) == "explained":  # better in neither measure, and not without effect
        against_base = "worse"
        claim = "it is worse than plain sampling, and no control has anything to explain"
    elif not controls:
        claim = "without controls nothing follows (add it to controls_for)"
    else:
        words = {c["name"]: c["label"] for c in controls}
        parts = [
            f"{verb} {_and([words[name] for name in found[group]])}"
            for group, verb in (("beats", "it beats"), ("trades", "trades against"), ("explained", "is explained by"))
            if found[group]
        ]
        if found["explained"]:
            end = "so no improvement can be claimed"
        elif outcome(against) == "trades":
            end = "so it is a trade against plain sampling, not an improvement"
        elif found["trades"]:
            end = "so it improves on plain sampling but not on every control"
        else:
            end = "so no control explains it"
        claim = f"{', '.join(parts)}; {end}"
    than = "" if base["name"] == "base" else f" against {base['name']}"
    sentence = f"{row['name']} ({row['label']}) {effect}{than}: {claim}."
    return {
        "schedule": row["name"],
        "sentence": sentence,
        "effect": against_base,
        "beats": found["beats"],
        "explained_by": found["explained"],
        "trades": found["trades"],
    }


def _effect(changes: Mapping[str, Interval], base_quality: float | None, quality: str) -> str:
    parts = []
    if "f_mem" in changes:
        value, low, high = (100 * number for number in changes["f_mem"])
        if low <= 0 <= high:
            parts.append("leaves F_mem where it is")
        else:
            verb = "lowers" if value < 0 else "raises"
            parts.append(f"{verb} F_mem by {abs(value):.1f} points [{low:+.1f}, {high:+.1f}]")
    if quality in changes and base_quality:
        value, low, high = changes[quality]
        if low <= 0 <= high:
            parts.append("leaves the Fréchet distance where it is")
        else:
            verb = "lowers" if value < 0 else "raises"
            parts.append(f"{verb} the Fréchet distance by {abs(value) / base_quality:.1%}")
    return _and(parts)


def _and(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]])) if words else ""
