"""What the comparison says, in sentences. Nothing here is claimed that a control explains."""

from __future__ import annotations

from dataclasses import dataclass

from fm_lightning.report.formats import count, share, span
from fm_lightning.report.results import Results, base_row, metric, of_kind

BEATS, EXPLAINED, TRADES = "beaten", "explains it", "trade-off"


@dataclass(frozen=True)
class Verdict:
    """One shaped schedule against its controls; ``outcome`` sums it up in a word."""

    schedule: str
    sentence: str
    beats: tuple[str, ...]
    explained_by: tuple[str, ...]
    trades: tuple[str, ...]
    effect: str = "some"  # against plain sampling: "none", "worse" or "some"

    @property
    def outcome(self) -> str:
        if not (self.beats or self.explained_by or self.trades):
            return "untested"
        if self.effect != "some":
            return {"none": "unchanged"}.get(self.effect, self.effect)
        if self.explained_by:
            return "explained"
        if self.trades:
            return "mixed"
        return "stands"

    def on(self, control: str) -> str | None:
        """What became of one control, in a word or two; nothing where there is no merit that it could take away."""
        if self.outcome in ("unchanged", "worse"):
            return None
        for word, names in ((BEATS, self.beats), (EXPLAINED, self.explained_by), (TRADES, self.trades)):
            if control in names:
                return word
        return None


def verdicts(results: Results) -> list[Verdict]:
    return [
        Verdict(
            schedule=str(entry.get("schedule", "")),
            sentence=str(entry.get("sentence", "")),
            beats=tuple(entry.get("beats") or ()),
            explained_by=tuple(entry.get("explained_by") or ()),
            trades=tuple(entry.get("trades") or ()),
            effect=str(entry.get("effect", "some")),
        )
        for entry in results.get("verdicts") or ()
        if isinstance(entry, dict)
    ]


def verdict_on(results: Results, row) -> str | None:
    """What the verdict on a control's schedule says of this control."""
    for verdict in verdicts(results):
        if verdict.schedule == row.get("of"):
            return verdict.on(row["name"])
    return None


def headline(results: Results) -> str:
    """The one sentence to remember; plain where controls explain everything or nothing was controlled."""
    tested = [verdict for verdict in verdicts(results) if verdict.outcome != "untested"]
    if not of_kind(results, "schedule"):
        return "No shaped schedule was compared."
    if not results.get("quality") and not any("f_mem" in row["metrics"] for row in results["rows"]):
        return (
            "Neither copies nor quality were measured, so nothing is better or worse here "
            "(MemorizationMonitor and FIDMonitor in trainer.callbacks do)."
        )
    if not tested:
        return "No schedule was run beside its matched controls, so nothing here can be called an improvement."
    rest = _without_merit(tested)
    standing = [verdict.schedule for verdict in tested if verdict.outcome == "stands"]
    mixed = [verdict.schedule for verdict in tested if verdict.outcome == "mixed"]
    if standing:
        verb = "does" if len(standing) == 1 else "do"
        return f"{_listed(standing)} {verb} what none of the matched controls does."
    if mixed:
        verb = "trades" if len(mixed) == 1 else "trade"
        return f"No schedule beats all of its controls; {_listed(mixed)} {verb} one measure for another."
    explained = [verdict.schedule for verdict in tested if verdict.outcome == "explained"]
    if len(explained) == len(tested) > 1:
        return f"All of it is explained: for each of {len(tested)} tested schedules a matched control does as much."
    if explained:
        verb = "does" if len(explained) == 1 else "do"
        return f"A matched control explains all that {_listed(explained)} {verb}{'; ' + rest if rest else ''}."
    return f"No schedule improves on plain sampling: {rest}."


def _without_merit(tested: list[Verdict]) -> str:
    """The schedules that have nothing that a control could explain."""
    worse = [verdict.schedule for verdict in tested if verdict.outcome == "worse"]
    unchanged = [verdict.schedule for verdict in tested if verdict.outcome == "unchanged"]
    parts = []
    if worse:
        parts.append(f"{_listed(worse)} {'is' if len(worse) == 1 else 'are'} worse")
    if unchanged:
        parts.append(f"{_listed(unchanged)} {'changes' if len(unchanged) == 1 else 'change'} nothing measurable")
    return ", and ".join(parts)


def scope(results: Results) -> str:
    """Which part of the comparison the headline rests on."""
    shaped = [row["name"] for row in of_kind(results, "schedule")]
    tested = [verdict.schedule for verdict in verdicts(results) if verdict.outcome != "untested"]
    untested = [name for name in shaped if name not in tested]
    parts = []
    base = base_row(results)
    if base is not None and metric(base, "f_mem") is not None:
        lo_hi = span(metric(base, "f_mem_lo"), metric(base, "f_mem_hi"), share, 1)
        many = f"{count(results.get('samples'))} samples"
        parts.append(f"Plain sampling: {share(metric(base, 'f_mem'))} % {lo_hi} of {many} are copies.")
    if tested and untested:
        parts.append(f"Without controls of their own, and so without a verdict: {_listed(untested)}.")
    return " ".join(parts)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
