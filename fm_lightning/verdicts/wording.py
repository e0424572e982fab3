"""Words for verdicts: a sentence for each family, a claim for each schedule, one headline, a paragraph for a paper.

Everything follows from ``Verdict.outcome`` and its families' outcomes, so that no sentence can say more than another.
"Better" is always said of the families tested, which are named; what is not significant is never called the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fm_lightning.verdicts.outcomes import FamilyVerdict, Verdict
from fm_lightning.verdicts.residual import Estimate, Measure
from fm_lightning.verdicts.verdict import FRECHET_FROM, LEAST_COPIES

MOST = 1_000_000  # seeds that anybody would sample
NAMES: Mapping[Measure, str] = {"frechet": "Fréchet distance", "kernel": "kernel distance"}


def family_sentence(verdict: Verdict, family: FamilyVerdict, names: Mapping[Measure, str] = NAMES) -> str:
    """One sentence on a schedule and a family, e.g. "undecided against noise; about 4 600 seeds would decide"."""
    if family.outcome == "out of reach":
        return f"{family.family} does not reach this memorization in its dose range"
    if family.outcome == "explained" and family.by_dose:
        return (
            f"explained by {family.family}: one of its doses is as good to within {_points(verdict)} and "
            f"{_percent_margin(verdict)}, or better, in both"
        )
    if family.outcome == "explained":
        return f"explained by {family.family}: an advantage beyond {_margin(verdict)} is excluded"
    if family.outcome == "better":
        return f"better than {family.family}: {_advantage(verdict, family, names)}"
    if family.disagrees:
        assert verdict.measure is not None
        other: Measure = "kernel" if verdict.measure == "frechet" else "frechet"
        return f"undecided against {family.family}: better by {names[verdict.measure]}, worse by {names[other]}"
    if family.missed:
        return f"undecided against {family.family}: its doses, chosen on calibration seeds, missed this memorization"
    more = f"; {_would_decide(family.n_needed)}" if family.n_needed else ""
    return f"undecided against {family.family}{more}"


def claim(verdict: Verdict, names: Mapping[Measure, str] = NAMES) -> str:
    """What may be said about one schedule, as the predicate of a sentence that its name begins."""
    groups: dict[str, list[FamilyVerdict]] = {}
    for family in verdict.families:
        groups.setdefault(family.outcome, []).append(family)
    unreached = groups.get("out of reach", [])
    beside = (
        f" ({_and(unreached)} {'does' if len(unreached) == 1 else 'do'} not reach its memorization)"
        if unreached
        else ""
    )
    match verdict.outcome:
        case "no claim":
            return f"allows no claim: {_why_not(verdict)}"
        case "not lowered":
            return f"does not lower memorization by {_points(verdict)}{_quality_words(verdict, names)}"
        case "explained":
            return f"is explained by {_and(groups['explained'])}"
        case "better":
            return (
                f"is better than every family tested that reaches it ({_list(groups['better'])}): "
                f"{_nearest(verdict, groups['better'], names)}{beside}"
            )
        case "undecided" if "undecided" in groups:
            needed = [f.n_needed for f in groups["undecided"]]
            most = max((n for n in needed if n is not None), default=None)
            return f"is undecided against {_and(groups['undecided'])}{_in_brackets(most)}{beside}"
        case "undecided":
            return (
                f"is better than each of {_and(groups['better'])}, but not after correction for the schedules judged "
                f"together, so undecided{beside}"
            )
        case _:
            return f"reaches a memorization that no family tested does ({_list(unreached)}), so nothing follows"


def headline(verdicts: Sequence[Verdict], names: Mapping[Measure, str] = NAMES) -> str:
    """All claims in one sentence, the strongest first."""
    if not verdicts:
        return "No schedule was judged."
    order = ["better", "explained", "undecided", "out of reach", "not lowered", "no claim"]
    ranked = sorted(verdicts, key=lambda v: order.index(v.outcome))
    return "; ".join(f"{v.schedule} {claim(v, names)}" for v in ranked) + "."


def paragraph(verdict: Verdict, names: Mapping[Measure, str] = NAMES) -> str:
    """A paragraph ready for a paper, with every number, margin, n and family."""
    v = verdict
    # The interval's centre is drawn towards 0 (see ``share_change``); the change itself is the difference of the shares shown.
    low, high = (f"{-100 * bound:+.1f}" for bound in (v.lowered.high, v.lowered.low))
    change = f"{100 * (v.memorized - v.base_memorized):+.1f} [{low}, {high}]"
    sentences = [
        f"Over {thousands(v.n)} paired seeds, {v.schedule} has a memorized share of {100 * v.memorized:.1f} % where plain "
        f"sampling has {100 * v.base_memorized:.1f} % (change {change} points)"
    ]
    if v.measure is not None and v.quality_change is not None:
        to_infinity = "extrapolated to infinitely many samples, " if v.measure == "frechet" else ""
        sentences[0] += (
            f", and {names[v.measure]} {v.quality:.4g} where plain sampling has {v.base_quality:.4g} ({to_infinity}change "
            f"{_interval(v.quality_change, _per_cent(v))} %)"
        )
    if v.families:
        sentences.append(
            f"It was compared at equal memorized share with the curves of {_count(len(v.families), 'trivial manipulation')} "
            f"({_list(v.families)}), each through three doses chosen on separate calibration seeds; the smallest effect that "
            f"matters was set to {_margin(v)} of plain sampling's {names[v.measure or 'frechet']}"
            + (", two standard errors of that of as many real samples" if v.margin.floored else "")
        )
        reached = [f for f in v.families if f.residual is not None]
        if reached:
            sentences.append(
                f"Residuals to these curves, in % of plain sampling's distance, negative where {v.schedule} is better: "
                + "; ".join(_numbers(v, f) for f in reached)
            )
        sentences += [_capital(family_sentence(v, f, names)) for f in v.families]
        sentences.append(
            "Intervals are of 95 %; what is called explained holds after Holm's correction over the families"
        )
    sentences.append(f"{v.schedule} {claim(v, names)}")
    return ". ".join(sentences) + "."


def _numbers(verdict: Verdict, family: FamilyVerdict) -> str:
    assert family.residual is not None
    scale = _per_cent(verdict)
    text = f"{family.family} {_interval(family.residual, scale)}, margin {scale * family.margin:.2g}"
    if family.fewer_copies is not None:
        text += f" ({100 * family.fewer_copies:+.1f} points of memorized share, margin {100 * family.margin / -family.slope:.2g})"
    return text


def _advantage(verdict: Verdict, family: FamilyVerdict, names: Mapping[Measure, str], than: str = "") -> str:
    assert family.residual is not None
    if family.fewer_copies is not None:
        return f"{-100 * family.fewer_copies:.1f} points fewer copies{than} at equal distance"
    lower = -_per_cent(verdict) * family.residual.value
    return f"{names[verdict.measure or 'frechet']} lower by {lower:.1f} %{than} at equal memorization"


def _nearest(verdict: Verdict, better: Sequence[FamilyVerdict], names: Mapping[Measure, str]) -> str:
    priced = [f for f in better if f.fewer_copies is not None]
    # In points where they can be told; residuals of curves of different slopes do not compare.
    nearest = max(priced or better, key=lambda f: f.fewer_copies or (f.residual.value if f.residual else -math.inf))
    return _advantage(verdict, nearest, names, than=f" than the nearest, {nearest.family}," if len(better) > 1 else "")


def _why_not(verdict: Verdict) -> str:
    needed = verdict.n_needed
    match verdict.refused:
        case "few copies" | "few others":
            what = "copies" if verdict.refused == "few copies" else "samples that are no copies"
            more = f" (about {_about(needed)} would have them)" if needed else ""
            return f"fewer than {LEAST_COPIES} {what} among {thousands(verdict.n)} seeds{more}"
        case "no distance":
            return "no distance to real data was measured"
        case "few for Fréchet":
            return (
                f"the Fréchet distance judges from {thousands(needed or 0)} seeds ({FRECHET_FROM} per feature) on, and no "
                "kernel distance was measured"
            )
        case "no margin":
            return "plain sampling is not measurably away from real data, so that no margin can be set"
        case "lowering open":
            return f"whether it lowers memorization at all is open{_in_brackets(needed)}"
        case "no family":
            return "no family was tested"
        case _:
            return f"against {_and([f for f in verdict.families if f.disagrees])} the two distances disagree"


def _quality_words(verdict: Verdict, names: Mapping[Measure, str]) -> str:
    """Of a schedule that does not lower memorization, only its distance against plain sampling is reported."""
    change, margin = verdict.quality_change, verdict.margin
    if change is None or verdict.measure is None:
        return ", and no distance to real data can judge it"
    name, limit = names[verdict.measure], _percent_margin(verdict)
    numbers = f"({_interval(change, _per_cent(verdict))} %)"
    if change.high < 0 and change.value < -margin.quality:
        return f", and its {name} is lower than plain sampling's {numbers}"
    if change.low > 0 and change.value > margin.quality:
        return f", and its {name} is larger than plain sampling's {numbers}"
    if change.low > -margin.quality and change.high < margin.quality:
        return f", and a change of its {name} beyond {limit} is excluded {numbers}"
    return f", and whether its {name} changes by {limit} is undecided {numbers}"


def _margin(verdict: Verdict) -> str:
    return f"{_points(verdict)} plus {_percent_margin(verdict)}"


def _points(verdict: Verdict) -> str:
    points = 100 * verdict.margin.memorized
    return f"{points:.2g} point{'' if f'{points:.2g}' == '1' else 's'}"


def _percent_margin(verdict: Verdict) -> str:
    return f"{_per_cent(verdict) * verdict.margin.quality:.2g} %"


def _per_cent(verdict: Verdict) -> float:
    """Factor from the distance's unit to per cent of base's distance."""
    return 100 / verdict.base_quality if verdict.base_quality > 0 else math.nan


def _interval(estimate: Estimate, scale: float) -> str:
    return f"{scale * estimate.value:+.1f} [{scale * estimate.low:+.1f}, {scale * estimate.high:+.1f}]"


def _in_brackets(seeds: int | None) -> str:
    return "" if seeds is None else f" ({_would_decide(seeds)})"


def _would_decide(seeds: int) -> str:
    if seeds > MOST:  # an estimate that lies next to the margin: what follows from it is known to no digit
        return f"more than {thousands(MOST)} seeds would be needed"
    return f"about {_about(seeds)} seeds would decide"


def _about(seeds: int) -> str:
    """Rounded up to two digits."""
    unit = 10 ** max(0, len(str(seeds)) - 2)
    return thousands(-(-seeds // unit) * unit)


def thousands(number: int) -> str:
    """``2 000``."""
    return f"{number:,}".replace(",", " ")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _list(families: Sequence[FamilyVerdict]) -> str:
    return ", ".join(f.family for f in families)


def _and(families: Sequence[FamilyVerdict]) -> str:
    names = [f.family for f in families]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
