"""Several runs: their table, the same in the terminal and on the page, and the page, one self-contained ``compare.html``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fm_lightning.phrases import MISSING, ascii_only, decimals, number, share, signed, span, thousands
from fm_lightning.report.run_forest import panel, run_forest
from fm_lightning.report.style import embedded, svg, template
from fm_lightning.report.table import console_or_file

Cell = tuple[str, str]
OVER = ("over replicates", "another replicate", "spread τ", "I² %")


@dataclass(frozen=True)
class Line:
    """A schedule's change in one measure.

    Attributes:
        runs: a number and its interval for each run.
        over: the same for each of ``OVER``; empty without replicates.
    """

    schedule: str
    measure: str
    unit: str
    runs: tuple[Cell, ...]
    over: tuple[Cell, ...]


def lines(entry: Mapping[str, Any]) -> Iterator[Line]:
    """The lines of one experiment; numbers carry ASCII signs."""
    for schedule in entry["schedules"]:
        for measure, effect in schedule["effects"].items():
            how, combined = panel(measure), effect["combined"]
            ends = [how.scale * change[end] for change in effect["runs"].values() for end in ("value", "low", "high")]
            places = decimals(ends, 3)

            def cell(change: Mapping[str, Any] | None, scale: float = how.scale, places: int = places) -> Cell:
                if change is None:
                    return MISSING, ""
                return signed(scale * change["value"], places), _ends(change["low"], change["high"], scale, places)

            over: tuple[Cell, ...] = ()
            if combined:
                prediction = combined["prediction"]
                over = (
                    cell(combined),
                    (MISSING, "")
                    if prediction is None
                    else ("", _ends(prediction[0], prediction[1], how.scale, places)),
                    (f"{how.scale * combined['tau']:.{places}f}", ""),
                    (share(combined["i_squared"], 0), ""),
                )
            runs = tuple(cell(effect["runs"].get(run["name"])) for run in entry["runs"])
            yield Line(schedule["schedule"], how.title, f"{how.hint}{_coverage(effect, len(runs))}", runs, over)


def _coverage(effect: Mapping[str, Any], runs: int) -> str:
    """What a combined effect leaves out, or why there is none."""
    there = len(effect["runs"])
    if there > 1 and effect["combined"] is None:
        return "; not combined, for its bias depends on the number of samples"
    return f"; in {there} of {runs} runs" if there < runs else ""


def _ends(low: float, high: float, scale: float, places: int) -> str:
    return span(scale * low, scale * high, signed, places)


def print_table(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints each experiment's table, why it is one of its own, and what the runs say together."""
    console = console or console_or_file()
    write = str if console.encoding.lower().startswith("utf") else ascii_only
    for entry in comparison["experiments"]:
        if len(comparison["experiments"]) > 1:
            console.print(Text(write(", ".join(run["name"] for run in entry["runs"])), style="bold"))
        for reason in entry["apart"]:
            console.print(Text(write(f"Not pooled: {reason}."), style="dim"))
        console.print(_table(entry, list(lines(entry)), write))
        console.print(Text(write(entry["note"])))
        console.print()
    console.print(Text(write(comparison["headline"]), style="bold"))


def _table(entry: Mapping[str, Any], found: Sequence[Line], write: Any) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    names = [run["name"] for run in entry["runs"]]
    pooled = any(line.over for line in found)
    for head in ("schedule", "measure"):
        table.add_column(head)
    for head in (*names, *(OVER if pooled else ())):
        table.add_column(Text(write(head)), justify="right")
    before = None
    for line in found:
        if before not in (None, line.schedule):
            table.add_section()
        first = line.schedule if line.schedule != before else ""
        before = line.schedule
        cells = [*line.runs, *(line.over or [("", "")] * len(OVER) if pooled else ())]
        measure = Text(write(line.measure)).append(write(f"\n{line.unit}"), style="dim")
        table.add_row(Text(write(first), style="bold"), measure, *(_text(cell, write) for cell in cells))
    return table


def _text(cell: Cell, write: Any) -> Text:
    """The interval below its number, so that many runs find room."""
    return Text(write(cell[0])).append(write(f"\n{cell[1]}"), style="dim")


# The page.

LEVELS = (
    ("f_mem", "F_mem %"),
    ("kpe_per_dimension", "KPE per dimension"),
    ("kpe_per_displacement", "KPE per displacement"),
)


def render(comparison: Mapping[str, Any], name: str) -> str:
    """The page as HTML with everything inside: no script, no address of anything outside."""
    figure = run_forest(comparison)
    return template("compare.html").render(
        name=name,
        comparison=comparison,
        figure=figure and embedded(svg(figure), "svg+xml"),
        experiments=[
            {
                **entry,
                "lines": list(lines(entry)),
                "pooled": any(s["effects"] and len(entry["runs"]) > 1 for s in entry["schedules"]),
                "levels": list(_levels(entry)),
                "against": {
                    s["schedule"]: list(_against(entry, s["verdict"])) for s in entry["schedules"] if s["verdict"]
                },
            }
            for entry in comparison["experiments"]
        ],
        over=OVER,
        level_heads=[head for _, head in LEVELS],
        missing=MISSING,
        count=thousands,
    )


def _against(entry: Mapping[str, Any], verdict: Mapping[str, Any]) -> Iterator[tuple[str, list[Cell]]]:
    """(family, an outcome for each run), and why a run did not test the family."""
    for family, outcomes in verdict["families"].items():
        untested = verdict["untested"].get(family, {})
        names = [run["name"] for run in entry["runs"]]
        yield (
            family,
            [("not tested", untested[run]) if run in untested else (outcomes.get(run, MISSING), "") for run in names],
        )


def _levels(entry: Mapping[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """(run, row, cells): the numbers themselves, in units that compare across data."""
    every = [levels for run in entry["runs"] for levels in run["levels"].values()]
    places = {key: decimals(levels.get(key) for levels in every) for key, _ in LEVELS}
    for run in entry["runs"]:
        for row, levels in run["levels"].items():
            cells = [
                share(levels.get(key)) if key == "f_mem" else number(levels.get(key), places[key]) for key, _ in LEVELS
            ]
            yield run["name"], row, cells
