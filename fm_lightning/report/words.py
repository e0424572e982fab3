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

    @property
    def outcome(self) -> str:
        if self.explained_by:
            return "explained"
        if self.trades:
            return "mixed"
        return "stands" if self.beats else "untested"

    def on(self, control: str) -> str | None:
        """What became of one control, in a word or two."""
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
    if not tested:
        return "No schedule was run beside its matched controls, so nothing here can be called an improvement."
    standing = [verdict.schedule for verdict in tested if verdict.outcome == "stands"]
    mixed = [verdict.schedule for verdict in tested if verdict.outcome == "mixed"]
    if standing:
        verb = "does" if len(standing) == 1 else "do"
        return f"{_listed(standing)} {verb} what none of the matched controls does."
    if mixed:
        verb = "trades" if len(mixed) == 1 else "trade"
        return f"No schedule beats all of its controls; {_listed(mixed)} {verb} one measure for another."
    if len(tested) == 1:
        return f"A matched control explains all that {tested[0].schedule} does."
    return f"All of it is explained: for each of {len(tested)} tested schedules a matched control does as much."


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
