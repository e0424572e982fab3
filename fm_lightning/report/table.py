"""The schedule table: in the terminal, in groups of a schedule and its control, and as a flat CSV with the families too."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from fm_lightning.files import csv_table, write_whole
from fm_lightning.phrases import ascii_only, finite, thousands
from fm_lightning.report.columns import Column, columns
from fm_lightning.report.outcomes import OUTCOMES
from fm_lightning.report.results import Results, Row, groups, interval, metric, subtitle, title
from fm_lightning.report.words import headline, trained_elsewhere

UNWATCHED_WIDTH = 160  # for a pipe or a log file, where nothing wraps
GIVEN_UP = (  # on a narrow terminal, first to last: columns by key, or the interval after a column's number
    ("the change in %", ("quality_percent",)),
    ("labels", ()),
    ("early and late energy", ("kpe_early_mean", "kpe_late_mean")),
    ("excess", ("excess_mean",)),
    ("the interval of F_mem", ("f_mem|",)),
    ("KPE", ("kpe_mean",)),
    ("the interval of ΔFréchet", ("quality_change|",)),
    ("ΔFréchet", ("quality_change",)),
)


def print_table(results: Results, console: Console | None = None) -> None:
    """Prints the schedule table, the headline, and a sentence for each schedule and family, as wide as the console allows.

    A narrow console gives up columns in the order of ``GIVEN_UP``; below the table it says which.
    """
    console = console or console_or_file()
    write = str if console.encoding.lower().startswith("utf") else ascii_only
    table, left_out = _fitting(results, console, write)
    console.print(table)
    if left_out:
        note = f"Left out at {console.width} columns: {', '.join(left_out)}. results.csv has every number."
        console.print(Text(write(note), style="dim"))
    console.print()
    if elsewhere := trained_elsewhere(results):
        console.print(Text(write(elsewhere)))
    console.print(Text(write(headline(results)), style="bold"))
    for verdict in results.verdicts:
        about = f"against {verdict.against}, {thousands(verdict.n)} paired seeds"
        line = Text(write(f"{verdict.schedule}: {OUTCOMES[verdict.outcome].words}")).append(write(f"  {about}"), "dim")
        console.print(Padding(line, (0, 0, 0, 2), expand=False))
        for family in verdict.families:
            console.print(Padding(Text(write(family.sentence)), (0, 0, 0, 4), expand=False))


def console_or_file() -> Console:
    """As wide as the terminal; without one as wide as ``COLUMNS`` or ``UNWATCHED_WIDTH`` say."""
    watched = Console().is_terminal or "COLUMNS" in os.environ
    return Console(width=None if watched else UNWATCHED_WIDTH)


def _fitting(results: Results, console: Console, write) -> tuple[Table, list[str]]:
    """The fullest table that the console is wide enough for, and the words for what it had to give up."""
    every = columns(results)
    available = {column.key for column in every} | {"labels"}
    left_out, gone = [], set()
    for words, keys in (("", ()), *GIVEN_UP):
        if keys and available.isdisjoint(key.rstrip("|") for key in keys):
            continue
        left_out += [words] if keys else []
        gone |= set(keys) if keys or not words else {"labels"}
        table = _table(results, [column for column in every if column.key not in gone], write, gone)
        if Measurement.get(console, console.options.update(width=10_000), table).maximum <= console.width:
            break
    return table, left_out


def _table(results: Results, chosen: Sequence[Column], write, gone: Collection[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, header_style="bold")
    table.add_column(Text("schedule\n"), no_wrap=True)
    rows = [row for group in groups(results) for row in group]
    widths = {}
    for column in chosen:
        whole = f"{column.key}|" not in gone
        widths[column.key] = max(len(column.aside(row)) for row in rows) if whole else 0
        under = column.under if whole or not column.under.startswith("95") else ""
        head = Text(write(column.head)).append(write(f"\n{under}"), style="not bold dim")
        table.add_column(head, justify="right", no_wrap=True)
    before: list[Row] = []
    for group in groups(results):
        if before and (max(len(before), len(group)) > 1 or before[0].kind != group[0].kind):
            table.add_section()
        for row in group:
            cells = [_cell(column, row, widths[column.key], write) for column in chosen]
            table.add_row(_name(row, "labels" not in gone, write), *cells)
        before = group
    return table


def _name(row: Row, labels: bool, write) -> Text:
    if row.kind == "control":
        return Text(write(f"  {title(row)}"), style="dim")
    name = Text(write(title(row)), style="bold" if row.kind in ("base", "schedule") else "")
    if labels and subtitle(row):
        name.append(write(f"  {subtitle(row)}"), style="not bold dim")
    return name


def _cell(column: Column, row: Row, aside_width: int, write) -> Text:
    """A number with its interval after it; numbers and brackets each stand in a column of their own."""
    text = Text(write(column.cell(row)), style="dim" if row.kind == "control" else "")
    if aside_width:
        text.append(write(f" {column.aside(row):>{aside_width}}"), style="dim")
    return text


# --- CSV ---

AGAINST = ("vs_base", "vs_parent")


def write_csv(results: Results, path: str | os.PathLike[str]) -> Path:
    """Writes one line per row with every metric, unrounded, and every paired change; missing values are empty.

    Columns: name, kind, of, label, samples, nfe, steps, description, every metric by its name, ``METRIC_vs_base`` and
    ``METRIC_vs_parent`` (the schedule minus this control), each with ``_lo`` and ``_hi``. Shares are 0..1. A family's row
    names its schedule under ``of``.
    """
    rows, ends = results.rows, ("", "_lo", "_hi")
    plain = ["name", "kind", "of", "label", "samples", "nfe", "steps", "description"]
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    changes = dict.fromkeys((against, name) for against in AGAINST for row in rows for name in getattr(row, against))
    lines = []
    for row in rows:
        line = {key: getattr(row, key) for key in plain} | {name: metric(row, name) for name in metrics}
        for against, name in changes:
            found = interval(row, against, name) or (None,) * 3
            line |= {f"{name}_{against}{end}": finite(part) for end, part in zip(ends, found)}
        lines.append(line)
    return write_whole(Path(path), csv_table(lines))
