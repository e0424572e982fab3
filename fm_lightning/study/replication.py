"""Replication: what the verdicts on one schedule say together, over the runs that judged it.

"Better than", "worse than" and "no better than" name families that each of these runs tested, with the same outcome. What
limits the sentence stands in parentheses behind it: families that some of the runs did not test or that cannot lower copies as
far, other distances, other definitions of a copy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from fm_lightning.comparison.results import VerdictResult
from fm_lightning.phrases import joined
from fm_lightning.study.replicates import Run
from fm_lightning.study.spread import spread, with_floor
from fm_lightning.verdicts.outcomes import holm
from fm_lightning.verdicts.random_effects import LEAST
from fm_lightning.verdicts.residual import LEVEL
from fm_lightning.verdicts.wording import CALLED, NAMES

DECIDED = {"better", "no better", "worse", "not lowered"}  # outcomes that say something, and so can replicate
NO_BETTER = {"worse", "no better"}  # what is worse is no better


def replication(schedule: str, runs: Sequence[Run]) -> dict[str, Any] | None:
    """What the runs found about a schedule; None where none judged it.

    The spread between three or more runs is a floor of dQ in each of them, see ``study.spread``.
    """
    own = {run.name: entry for run in runs if (entry := run.results.verdict(schedule)) is not None}
    if not own:
        return None
    least = spread(list(own.values()))
    entries = {run: with_floor(entry, least) for run, entry in own.items()}
    raised = any(entries[run] is not entry for run, entry in own.items())
    families = _by_family(entries)
    shared = _shared(entries, families)
    return {
        "replicates": len(runs),
        "outcomes": {run: entry.outcome for run, entry in entries.items()},
        "claims": {run: entry.claim for run, entry in entries.items()},
        "families": families,
        "untested": _untested(entries, families, runs),
        "shared": shared,
        "distances": {run: entry.measure for run, entry in entries.items()},
        "reversed": _reversed(own, entries, shared),
        "p_better": max(_p_better(entry) for entry in entries.values()),
        "spread": least,
        "floor": least if raised else None,
    }


def correct(verdicts: Sequence[dict[str, Any]]) -> None:
    """Holm over every schedule and experiment that might claim to be better; adds p_holm, stands and the sentence."""
    for verdict, p in zip(verdicts, holm([verdict["p_better"] for verdict in verdicts])):
        outcomes = verdict["outcomes"].values()
        better = set(outcomes) == {"better"} and len(outcomes) >= LEAST and bool(verdict["shared"])
        verdict["p_holm"] = p
        verdict["stands"] = better and verdict["spread"] is not None and p < LEVEL
        verdict["sentence"] = _sentence(verdict, len(verdicts))


# --- what was found ---


def _by_family(entries: Mapping[str, VerdictResult]) -> dict[str, dict[str, str]]:
    """family -> run -> outcome, of the runs that tested it."""
    found: dict[str, dict[str, str]] = {}
    for run, entry in entries.items():
        for family in entry.families:
            found.setdefault(family.family, {})[run] = family.outcome
    return found


def _shared(entries: Mapping[str, VerdictResult], families: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The families that a sentence may name for every run: each of them tested these, with the outcome of the whole."""
    outcomes = {entry.outcome for entry in entries.values()}
    wanted = NO_BETTER if outcomes <= NO_BETTER else {"better"} if outcomes == {"better"} else set()
    return [name for name, found in families.items() if len(found) == len(entries) and set(found.values()) <= wanted]


def _untested(
    entries: Mapping[str, VerdictResult], families: Mapping[str, Mapping[str, str]], runs: Sequence[Run]
) -> dict[str, dict[str, str]]:
    """family -> run that did not test it, though it tested others -> why, where the run knows."""
    reasons = {
        run.name: run.manifest.about.get("untested") or {}
        for run in runs
        if run.name in entries and entries[run.name].families
    }
    found = {
        name: {run: known.get(name, "") for run, known in reasons.items() if run not in there}
        for name, there in families.items()
    }
    return {name: there for name, there in found.items() if there}


def _reversed(
    own: Mapping[str, VerdictResult], entries: Mapping[str, VerdictResult], shared: Sequence[str]
) -> dict[str, list[str]]:
    """Another definition -> the runs in which it reverses the outcome against one of the shared families."""
    found: dict[str, list[str]] = {}
    for run, entry in own.items():
        raised = {a.family for a, b in zip(entry.families, entries[run].families) if a.outcome != b.outcome}
        for alternative in entry.robustness:
            if {*shared} & {*alternative.reverses} - raised:
                found.setdefault(alternative.name, []).append(run)
    return found


def _p_better(entry: VerdictResult) -> float:
    """p of being better than every family that reaches the schedule, in one run."""
    return max((f.p_better for f in entry.families if f.outcome != "out of reach"), default=1.0)


# --- words ---


def _sentence(verdict: Mapping[str, Any], judged: int) -> str:
    outcomes, shared = list(verdict["outcomes"].values()), verdict["shared"]
    n, counts = len(outcomes), Counter(outcomes).most_common()
    every, among = _which_runs(n, verdict["replicates"])
    limits = "; ".join(_limits(verdict))
    behind = f" ({limits})" if limits else ""
    if shared:
        found = f"{_than(verdict)}, {every}{behind}"
    elif len(counts) > 1:
        return f"{joined(f'{outcome} in {k}' for outcome, k in counts)} of {among}{behind}, which does not replicate"
    elif counts[0][0] in {"better", *NO_BETTER}:
        return f"{outcomes[0]} {every}{behind}, but each time than another family, which does not replicate"
    else:
        found = f"{outcomes[0]} {every}{behind}"
    if n < LEAST and outcomes[0] in DECIDED:
        return f"{found}; a claim needs at least {LEAST} training seeds"
    if outcomes[0] != "better":
        return found
    if verdict["spread"] is None:
        return f"{found}, but the distance's spread between training seeds is unknown, so nothing is claimed"
    correction = f"after Holm's correction for the {f'{judged} schedules' if judged > 1 else 'schedule'} judged here"
    return (
        f"{found}, also {correction}" if verdict["stands"] else f"{found}, but not {correction}, so nothing is claimed"
    )


def _which_runs(judging: int, replicates: int) -> tuple[str, str]:
    """``in all 3 runs`` and ``3 runs``; where others did not judge the schedule, that is said."""
    if judging < replicates:
        many = "one run" if judging == 1 else f"{judging} runs"
        return f"in the {many} that judged it", f"the {many} that judged it"
    every = f"in all {judging} runs" if judging > 2 else "in both runs" if judging == 2 else "in one run"
    return every, f"{judging} runs"


def _than(verdict: Mapping[str, Any]) -> str:
    """``worse than noise, and no better than a late brake``."""
    groups: dict[str, list[str]] = {"better": [], "worse": [], "no better": []}
    for name in verdict["shared"]:
        seen = set(verdict["families"][name].values())
        groups[seen.pop() if len(seen) == 1 else "no better"].append(name)
    return ", and ".join(f"{outcome} than {_called(names)}" for outcome, names in groups.items() if names)


def _limits(verdict: Mapping[str, Any]) -> Iterator[str]:
    """What the sentence does not cover, a clause each."""
    runs = list(verdict["outcomes"])
    untested = {name: tuple(there) for name, there in verdict["untested"].items()}
    for there, names in _grouped(untested):
        tested = list(verdict["families"][names[0]])
        were = "were" if len(names) > 1 else "was"
        where = f"not tested in {joined(there)}" if len(there) <= len(tested) else f"tested in {joined(tested)} only"
        yield f"{_called(names)} {were} {where}"
    if set(verdict["outcomes"].values()) == {"better"}:
        far = {
            name: tuple(run for run, outcome in found.items() if outcome == "out of reach")
            for name, found in verdict["families"].items()
        }
        for there, names in _grouped(far):
            where = "" if len(there) == len(runs) else f" in {joined(there)}"
            yield f"{_called(names)} cannot lower copies as far{where}"
    if len({*verdict["distances"].values()} - {None}) > 1:
        judges = {run: (distance,) for run, distance in verdict["distances"].items() if distance}
        yield ", ".join(f"by the {NAMES[of]} in {joined(some)}" for (of,), some in _grouped(judges))  # type: ignore[index]
    for definition, there in verdict["reversed"].items():
        yield f"not so {definition} in {joined(there)}"
    if floor := verdict["floor"]:
        yield f"effects below {100 * floor:.2g}% of the baseline's distance, its spread between training seeds, are ignored"


def _grouped(found: Mapping[str, tuple[str, ...]]) -> Iterable[tuple[tuple[str, ...], list[str]]]:
    """(value, its keys) for each value that is not empty."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, value in found.items():
        if value:
            groups.setdefault(value, []).append(name)
    return groups.items()


def _called(families: Iterable[str]) -> str:
    return joined(CALLED.get(name, name) for name in families)
