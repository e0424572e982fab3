"""Words for verdicts: a sentence for each family, a claim for each schedule, one headline.

Everything follows from the outcomes, so that no sentence claims more than another. "Better" always means better than the
families tested, which are named; what is not significant is never called the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fm_lightning.estimate import Estimate
from fm_lightning.phrases import counted, decimal, joined, places, shortened, span, thousands, with_span
from fm_lightning.verdicts.outcomes import FRECHET_FROM, LEAST_COPIES, ORDER, FamilyVerdict, Findings
from fm_lightning.verdicts.residual import Distance

NAMES: Mapping[Distance, str] = {"frechet": "Fréchet distance", "kernel": "kernel distance"}
RELATIONS: Mapping[str, str] = {
    "worse": "worse than",
    "no better": "no better than",
    "better": "better than",
    "undecided": "undecided against",
}
CALLED = {  # families as a sentence names them; others by their own names
    "blend": "blending",
    "early stop": "early stopping",
    "late brake": "a late brake",
    "constant gain": "a constant gain",
    "noise temperature": "a higher noise temperature",
    "earlier checkpoint": "an earlier checkpoint",
    "average": "a longer average",
    "less guidance": "weaker guidance",
}


def called(family: FamilyVerdict) -> str:
    """The family as a sentence names it."""
    return CALLED.get(family.family, family.family)


def listed(families: Iterable[FamilyVerdict], most: int | None = None) -> str:
    """``noise, blending and a late brake``; with ``most`` of them named."""
    names = [called(family) for family in families]
    return joined(names) if most is None else shortened(names, most)


def grouped(found: Findings) -> dict[str, list[FamilyVerdict]]:
    """The families by outcome."""
    groups: dict[str, list[FamilyVerdict]] = {}
    for family in found.families:
        groups.setdefault(family.outcome, []).append(family)
    return groups


def family_sentence(found: Findings, family: FamilyVerdict) -> str:
    """One sentence on a schedule and a family, for example "undecided against noise (about 4,600 seeds would decide)"."""
    name = called(family)
    match family.outcome:
        case "out of reach":
            return f"{name} cannot lower copies as far in its dose range"
        case "worse":
            return f"worse than {name}: {_distance(found)} higher by {amount(family)} at equal copies"
        case "no better" if family.by_dose:
            within = f"within {points(found)} and {percent_margin(found)}"
            return f"no better than {name}: one of its doses is as good in copies and in distance, {within}"
        case "no better":
            return f"no better than {name}: an advantage beyond {margin_words(found)} is excluded"
        case "better":
            return f"better than {name}: {_advantage(found, family)}"
    if family.disagrees:
        first, second = ("frechet", "kernel") if found.distance == "frechet" else ("kernel", "frechet")
        return f"undecided against {name}: better by {NAMES[first]}, worse by {NAMES[second]}"  # type: ignore[index]
    if family.missed:
        return f"undecided against {name}: its doses, chosen on calibration seeds, missed this memorized share"
    return f"undecided against {name}{would_decide(family.n_needed)}"


def claim(found: Findings) -> str:
    """What may be said about one schedule, as the predicate of a sentence that its name begins.

    It tells whether the distance rewards copies, and what other definitions reverse.
    """
    trained = f", by a distance to {real_images(found)}" if found.rewards_copies and found.outcome != "no claim" else ""
    others = ", ".join(reversals(found))
    return f"{_claim(found)}{trained}{f' ({others})' if others else ''}"


def real_images(found: Findings) -> str:
    """What the distance is measured to: ``unseen real images``; empty where it is unknown whether training saw them."""
    if found.seen is None:
        return ""
    if not found.rewards_copies:
        return "unseen real images"
    share = "" if found.seen > 0.99 else f"real images, {100 * found.seen:.0f}% of them "
    return f"{share}training images, which rewards copies"


def reversals(found: Findings, most: int | None = None) -> list[str]:
    """What each alternative reverses, ``at a threshold of 1/4 no better than noise``; with ``most`` families named in each."""
    said = []
    for each in found.alternatives:
        groups = each.reverses(found)
        parts = [f"{RELATIONS[outcome]} {listed(some, most)}" for outcome, some in groups.items()]
        if each.outcome == "not lowered" and found.outcome == "better":
            parts = ["copies do not fall"]
        if parts:
            said.append(f"{each.name} {joined(parts)}")
    return said


def _claim(found: Findings) -> str:
    groups = grouped(found)
    far = groups.get("out of reach", [])
    unreached = f" ({listed(far)} cannot lower copies as far)" if far else ""
    match found.outcome:
        case "no claim":
            return _no_claim(found)
        case "not lowered":
            return f"does not lower copies by {points(found)}{_quality(found)}"
        case "worse" | "no better":
            parts = [f"{kind} than {listed(groups[kind])}" for kind in ("worse", "no better") if kind in groups]
            return f"is {', '.join(parts)}"
        case "better":
            return (
                f"is better than every family tested that reaches it ({listed(groups['better'])}): "
                f"{_nearest(found, groups['better'])}{unreached}"
            )
        case "undecided" if "undecided" in groups:
            seeds = would_decide(seeds_for(groups["undecided"]))
            return f"is undecided against {listed(groups['undecided'])}{seeds}{unreached}"
        case "undecided":
            return (
                f"is better than {listed(groups['better'])}, but not after correction for the schedules judged "
                f"together, so undecided{unreached}"
            )
        case _:
            return f"memorizes less than any family tested can ({listed(far)}), so no comparison is possible"


def headline(verdicts: Sequence[Findings]) -> str:
    """All claims in one sentence: worse, no better, undecided, better, then the schedules without a comparison."""
    if not verdicts:
        return "No schedule was judged."
    ranked = sorted(verdicts, key=lambda v: ORDER.index(v.outcome))
    return "; ".join(f"{v.schedule} {claim(v)}" for v in ranked) + "."


def amount(family: FamilyVerdict) -> str:
    """How far the distance lies from the family's curve, without sign: ``25% [19, 31] of the baseline's``."""
    assert family.residual is not None
    if family.relative is None:
        return scaled(family.residual, 1, positive=True)
    return f"{scaled(family.relative, 100, '%', positive=True)} of the baseline's"


def scaled(estimate: Estimate, scale: float, unit: str = "", positive: bool = False) -> str:
    """``−1.5% [−4.1, 1.2]``; ``positive`` turns the sign so that the value has none."""
    scale *= -1 if positive and estimate.value < 0 else 1
    low, high = sorted((scale * estimate.low, scale * estimate.high))
    digits = places(low, high)
    return with_span(scale * estimate.value, low, high, decimal, digits, unit)


def margin_words(found: Findings) -> str:
    """``1 point plus 2%``."""
    return f"{points(found)} plus {percent_margin(found)}"


def points(found: Findings) -> str:
    """dM: ``1 point``."""
    text = f"{100 * found.margin.memorized:.2g}"
    return f"{text} point{'' if text == '1' else 's'}"


def percent_margin(found: Findings) -> str:
    """dQ: ``4%``."""
    return percent(found, found.margin.quality)


def percent(found: Findings, distance: float) -> str:
    """In percent of the baseline's distance, or in its own unit where that is not above 0."""
    return f"{100 * distance / found.base_quality:.2g}%" if found.base_quality > 0 else f"{distance:.2g}"


def seeds_for(undecided: Iterable[FamilyVerdict]) -> int | None:
    """The seeds that would decide against all of these families; None if that takes too many for one of them."""
    needed = [family.n_needed for family in undecided]
    return None if None in needed else max(n for n in needed if n is not None)


def would_decide(seeds: int | None) -> str:
    """`` (about 4,600 seeds would decide)``, rounded up to two digits."""
    if seeds is None:
        return " (many more seeds would be needed)"
    return f" (about {about(seeds)} seeds would decide)"


def about(seeds: int) -> str:
    """Rounded up to two digits."""
    unit = 10 ** max(0, len(str(seeds)) - 2)
    return thousands(-(-seeds // unit) * unit)


def fall(found: Findings) -> str:
    """The paired change of the copies: ``−5.6 points [−6.6, −4.6]``."""
    # The interval's centre lies closer to 0 (see ``share_change``); the change is the difference of the shares shown.
    change = 100 * (found.memorized - found.base_memorized)
    return f"{decimal(change, 1)} points {span(-100 * found.lowered.high, -100 * found.lowered.low, decimal, 1)}"


def _distance(found: Findings) -> str:
    return NAMES[found.distance or "frechet"]


def _advantage(found: Findings, family: FamilyVerdict, than: str = "") -> str:
    if family.fewer_copies is not None:
        return f"{decimal(-100 * family.fewer_copies, 1)} points fewer copies{than} at equal distance"
    return f"{_distance(found)} lower by {amount(family)}{than} at equal copies"


def _nearest(found: Findings, better: Sequence[FamilyVerdict]) -> str:
    priced = [f for f in better if f.fewer_copies is not None]
    # In points where they are known; residuals to curves of different slopes do not compare.
    nearest = max(priced or better, key=lambda f: f.fewer_copies or (f.residual.value if f.residual else 0.0))
    return _advantage(found, nearest, than=f" than the nearest, {called(nearest)}," if len(better) > 1 else "")


def _no_claim(found: Findings) -> str:
    base, copies = f"{100 * found.base_memorized:.1f}", round(found.base_memorized * found.n)
    floor = f"{base}% and {100 * (found.held_out_memorized or 0):.1f}%"
    left = round(found.memorized * found.n)
    match found.refused:
        case "few left":
            return (
                f"leaves {_only_copies(left)} of {thousands(found.n)} ({fall(found)}), too few to compare "
                "with the curves of trivial manipulations"
            )
        case "nothing to lower":
            return f"has nothing to lower: plain sampling copies no more than held-out real data do ({floor})"
        case "floor open":
            reason = f"whether plain sampling copies more than held-out real data do is open ({floor})"
        case "few copies":
            enough = f" (about {about(found.n_needed)} seeds would have {LEAST_COPIES})" if found.n_needed else ""
            reason = f"plain sampling makes {_only_copies(copies)} in {thousands(found.n)} samples{enough}"
        case "few others":
            enough = f" (about {about(found.n_needed)} seeds would have them)" if found.n_needed else ""
            reason = f"fewer than {LEAST_COPIES} of {thousands(found.n)} samples are no copies{enough}"
        case "no distance":
            reason = "no distance to real data was measured"
        case "few for Fréchet":
            reason = (
                f"the Fréchet distance needs at least {thousands(found.n_needed or 0)} seeds ({FRECHET_FROM} per feature), and "
                "no kernel distance was measured"
            )
        case "no margin":
            reason = "plain sampling is indistinguishable from real data, so no margin can be set"
        case "lowering open":
            reason = f"whether it lowers copies at all is open{would_decide(found.n_needed)}"
        case "no family":
            reason = "no family was tested"
        case _:
            reason = f"against {listed(f for f in found.families if f.disagrees)} the two distances disagree"
    return f"supports no claim: {reason}"


def _only_copies(count: int) -> str:
    return f"only {counted(count, 'copy', 'copies')}" if count else "no copies"


def _quality(found: Findings) -> str:
    """Of a schedule that does not lower memorization, only its distance against plain sampling is reported."""
    change, margin = found.quality_change, found.margin
    if change is None or found.distance is None:
        return ", and no distance to real data can judge it"
    name, limit = _distance(found), percent_margin(found)
    shown = scaled(change, 1) if found.relative_change is None else scaled(found.relative_change, 100, "%")
    if change.high < 0 and change.value < -margin.quality:
        return f", and its {name} is lower than plain sampling's ({shown})"
    if change.low > 0 and change.value > margin.quality:
        return f", and its {name} is higher than plain sampling's ({shown})"
    if change.low > -margin.quality and change.high < margin.quality:
        return f", and a change of its {name} beyond {limit} is excluded ({shown})"
    return f", and whether its {name} changes by {limit} is undecided ({shown})"
