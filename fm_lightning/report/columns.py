"""The columns of the schedule table, the same in the terminal and on the page; and those of the families' table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fm_lightning.phrases import MISSING, decimals, number, share, signed, span, thousands
from fm_lightning.report.results import Results, Row, base_row, interval, metric, quality_key, quality_label


@dataclass(frozen=True)
class Column:
    """One column: ``cell`` writes a row's number, ``aside`` what stands after it (its interval)."""

    key: str
    head: str
    under: str
    about: str
    cell: Callable[[Row], str]
    aside: Callable[[Row], str] = lambda row: ""


def columns(results: Results) -> list[Column]:
    """The columns that this comparison can fill, in display order. Numbers carry ASCII signs."""
    key = quality_key(results)
    places = decimals(metric(row, key) for row in results.rows) if key else 0
    found = [] if key is None else [_quality(results, key, places)]
    found += [
        _f_mem("share of samples that copy a training image, with its 95% Wilson interval"),
        _change("f_mem", "f_mem_change", "ΔF_mem", "change of F_mem against base on the same seeds, in points", 1, 100),
    ]
    if key is not None:
        about = "change of the Fréchet distance against base, same seeds"
        found.append(_change(key, "quality_change", "ΔFréchet", about, places))
        base = base_row(results)
        if base is not None and metric(base, key):
            about = "the same change in percent of base"
            cell = partial(_changed, against="relative", name=key, places=1, scale=100)
            found.append(Column("quality_percent", "ΔFréchet %", "of base's", about, cell))
    return found + _energies(results) + [_nfe()]


def family_columns(results: Results) -> list[Column]:
    """The columns of the families' table: what the verdicts' curves are drawn through."""
    found = [_f_mem("share of samples that copy a training image")]
    for kind, head in (("frechet", "Fréchet"), ("kernel", "kernel")):
        key = f"quality_{kind}"
        if any(metric(row, key) is not None for row in results.rows):
            places = decimals(metric(row, key) for row in results.rows)
            about = f"{head} distance to real data, unbiased; this is what is judged"
            found.append(Column(key, head, "unbiased", about, partial(_number, key=key, places=places)))
    samples = Column("samples", "N", "", "samples measured", lambda row: thousands(row.samples))
    return [*found, _energies(results)[0], _nfe(), samples]


def _f_mem(about: str) -> Column:
    def aside(row: Row) -> str:
        return span(metric(row, "f_mem_lo"), metric(row, "f_mem_hi"), share, 1)

    return Column("f_mem", "F_mem %", "95%", about, lambda row: share(metric(row, "f_mem")), aside)


def _number(row: Row, key: str, places: int) -> str:
    return number(metric(row, key), places)


def _quality(results: Results, key: str, places: int) -> Column:
    label = quality_label(results)
    sizes = {thousands(row.samples) for row in results.rows if row.kind not in ("floor", "family")}
    under = f"N = {sizes.pop()}" if len(sizes) == 1 else ""
    about = f"{label}, plug-in, biased by about D / N; lower is better"
    return Column("quality", "Fréchet", under, about, partial(_number, key=key, places=places))


def _change(name: str, key: str, head: str, about: str, places: int, scale: float = 1.0) -> Column:
    """A metric's paired change against base and its interval, multiplied by ``scale``."""

    def aside(row: Row) -> str:
        _, lo, hi = interval(row, "vs_base", name, scale) or (None, None, None)
        return span(lo, hi, signed, places)

    under = "points, paired" if name == "f_mem" else "paired, 95%"
    cell = partial(_changed, against="vs_base", name=name, places=places, scale=scale)
    return Column(key, head, under, about, cell, aside)


def _changed(row: Row, against: str, name: str, places: int, scale: float) -> str:
    change = interval(row, against, name, scale)
    if change is None:
        return "" if row.kind == "base" else MISSING
    return signed(change.value, places)


def _energies(results: Results) -> list[Column]:
    places = decimals(metric(row, "kpe_mean") for row in results.rows)
    split = results.tau_split
    at = "the split" if split is None else f"t = {split}"
    wanted = [
        ("kpe_mean", "KPE", "kinetic path energy per sample, mean"),
        ("kpe_early_mean", "early", f"energy spent before {at}"),
        ("kpe_late_mean", "late", f"energy spent after {at}"),
        ("excess_mean", "excess", "energy above that of the straight line between the same ends"),
    ]
    return [Column(name, head, "", about, partial(_number, key=name, places=places)) for name, head, about in wanted]


def _nfe() -> Column:
    about = "network evaluations per sample"
    return Column("nfe", "NFE", "", about, lambda row: thousands(row.nfe) if row.nfe else MISSING)
