"""A verdict as a paragraph ready for a paper, of at most 120 words."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from fm_lightning.phrases import capital, counted, decimal, joined, shortened, thousands
from fm_lightning.verdicts.outcomes import FamilyVerdict, Findings
from fm_lightning.verdicts.wording import (
    NAMES,
    RELATIONS,
    about,
    called,
    claim,
    fall,
    grouped,
    percent,
    percent_margin,
    points,
    real_images,
    reversals,
    scaled,
    seeds_for,
)

WORDS = 120


def paragraph(found: Findings) -> str:
    """What was measured, against what, how large an effect counts, and what follows.

    With many families, first numbers and then names are left out until the paragraph has at most 120 words.
    """
    for numbers, names in _details(len(found.families)):
        text = " ".join(_sentences(found, numbers, names))
        if len(text.split()) <= WORDS:
            break
    return text


def _details(families: int) -> Iterator[tuple[int, int]]:
    """(families with numbers, families with names in each group), from all to none."""
    yield from ((numbers, families) for numbers in range(families, 0, -1))
    yield from ((0, names) for names in range(families, -1, -1))


def _sentences(found: Findings, numbers: int, names: int) -> Iterator[str]:
    yield f"At {thousands(found.n)} paired seeds, {found.schedule} {_copies(found)}{_distance(found)}."
    if not found.families:
        yield f"{capital('it ' + claim(found))}."
        return
    yield from _comparison(found, numbers, names)
    limit, references = percent(found, found.margin.floor), thousands(found.margin.references)
    floor = f" ({references} real images resolve {limit})" if found.margin.floor > 0 else ""
    included = "; those in % include the real images' error" if _population(found) else ""
    yield (
        f"Effects below {points(found)} of copies or {percent_margin(found)} of the baseline's distance are ignored{floor}; "
        f"intervals are 95%{included}."
    )
    if reversed_ := reversals(found, names):
        left = len(reversed_) - 2
        more = f"; {counted(left, 'other definition reverses', 'other definitions reverse')} more" if left > 0 else ""
        short = f"{counted(len(reversed_), 'other definition reverses', 'other definitions reverse')} some of this."
        yield f"{capital('; '.join(reversed_[:2]))}{more}." if names else short
    yield _conclusion(found)


def _population(found: Findings) -> bool:
    return found.relative_change is not None and found.relative_change.reference is not None


def _copies(found: Findings) -> str:
    verb = {-1: "raises", 0: "changes", 1: "lowers"}[found.lowered.sign]
    before, after = (decimal(100 * share, 1) for share in (found.base_memorized, found.memorized))
    return f"{verb} copies from {before} to {after}% ({fall(found)})"


def _distance(found: Findings) -> str:
    change = found.quality_change
    if found.distance is None or change is None:
        return ""
    verb = {-1: "lowers", 0: "changes", 1: "raises"}[change.sign]
    by = (
        scaled(change, 1, positive=bool(change.sign))
        if found.relative_change is None
        else scaled(found.relative_change, 100, "%", positive=bool(change.sign))
    )
    to = f" to {images}" if (images := real_images(found)) else ""
    return f" and {verb} the {NAMES[found.distance]}{to}{',' if found.rewards_copies else ''} by {by}"


def _comparison(found: Findings, numbers: int, names: int) -> Iterator[str]:
    groups = {outcome: sorted(group, key=_strength, reverse=True) for outcome, group in grouped(found).items()}
    compared = [group for outcome, group in groups.items() if outcome in RELATIONS]
    ranked = [f for tier in itertools.zip_longest(*compared) for f in tier if f is not None and f.residual is not None]
    shown = {family.family for family in ranked[:numbers]}

    def name(family: FamilyVerdict) -> str:
        return f"{called(family)}{_numbers(family)}" if family.family in shown else called(family)

    parts = [f"{words} {_some(groups[kind], name, names)}" for kind, words in RELATIONS.items() if kind in groups]
    if parts:
        relative = any(f.relative is not None for f in ranked[:numbers])
        unit = " (distance, % of the baseline's)" if relative else ""
        yield f"At equal copies{unit} it is {joined(parts) if len(parts) < 3 else '; '.join(parts)}."
    if far := groups.get("out of reach"):
        yield f"{capital(_some(far, called, names))} cannot lower copies as far."


def _some(families: Sequence[FamilyVerdict], name: Callable[[FamilyVerdict], str], most: int) -> str:
    return shortened([name(family) for family in families], most)


def _strength(family: FamilyVerdict) -> float:
    """Families that do best against the schedule come first."""
    return family.residual.value if family.residual is not None else 0.0


def _numbers(family: FamilyVerdict) -> str:
    if family.by_dose or family.residual is None:
        return ""
    return f" ({scaled(family.residual, 1) if family.relative is None else scaled(family.relative, 100, '%')})"


def _conclusion(found: Findings) -> str:
    match found.outcome:
        case "worse" | "no better":
            return "We attribute no benefit to its shape."
        case "better":
            return "It does more than these manipulations."
        case "no claim":
            return "The two distances disagree, so nothing is claimed."
        case "out of reach":
            return "No comparison is possible, so nothing is claimed."
    undecided = [f for f in found.families if f.outcome == "undecided"]
    if not undecided:
        return "After correction for the schedules judged together this is undecided."
    most = seeds_for(undecided)
    return f"{'Many more' if most is None else f'About {about(most)}'} seeds would be needed to decide."
