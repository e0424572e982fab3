"""How every figure and page looks: one style, one colour for each schedule in all of them, its control hollow and lighter.

Figures are made with matplotlib's object interface on Agg; pyplot and its global state are never touched.
"""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from fm_lightning.phrases import thousands, true_minus
from fm_lightning.report.results import Results, Row

INK, MUTED, FAINT, GRID = "#1f2933", "#6b7480", "#b4bbc4", "#e8ebef"
COPY = "#c8102e"  # the frame around a copy of a training image
WIDTH = 9.6  # inches; the page shows a figure at about 100 px an inch

# Okabe and Ito's colours without yellow (too light on white), then two of Tol's that stay apart from them.
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc6f9f", "#e09600", "#4fa8dc", "#882255", "#7a6f00")
MARKERS = {"base": "o", "schedule": "o", "control": "^", "field": "*", "floor": "X"}

STYLE: dict[str, Any] = {
    "font.size": 9,
    "text.parse_math": False,  # names are text, also "$x"
    "text.color": INK,
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "white",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.fonttype": "path",  # the same letters on every machine
    "svg.hashsalt": "fm_lightning",  # the same bytes at every call
}


@functools.cache
def _style() -> Any:
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    wanted = ("Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")  # the last comes with matplotlib
    return STYLE | {"font.family": [name for name in wanted if name in installed]}


def styled(draw: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """Runs a figure's function under ``STYLE``, and restores the settings of the process."""

    @functools.wraps(draw)
    def drawn(*args: Any, **kwargs: Any) -> Figure | None:
        with matplotlib.rc_context(_style()):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float, **kwargs: Any) -> Figure:
    figure = Figure(figsize=(width, height), **kwargs)
    FigureCanvasAgg(figure)
    return figure


def panels(count: int, across: int, height: float, head: float = 0.0, **shared: Any) -> tuple[Figure, np.ndarray]:
    """A figure of ``count`` panels, ``across`` in each line, and its axes ``[lines, across]``; heights in inches."""
    down = -(-count // across)
    figure = new_figure(WIDTH, head + height * down, layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, **shared)
    for unused in axes.flat[count:]:
        unused.set_visible(False)
    return figure, axes


def plain_ticks(axis: Axis) -> None:
    """Labels of a logarithmic axis as text (1,000), because math is switched off: at 1, 2 and 5 times powers of ten."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=9))
    axis.set_major_formatter(FuncFormatter(lambda value, _: thousands(value) if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


@dataclass(frozen=True)
class Plate:
    """A figure's place on a page: how it is drawn, what it is called, how to read it."""

    key: str
    title: str
    caption: str
    draw: Callable[..., Figure | None]
    pixels: bool = False  # PNG instead of SVG, and never inverted in dark mode

    def shown(self, uri: str, caption: str | None = None) -> dict[str, Any]:
        """The drawn figure as templates take it."""
        return {
            "key": self.key,
            "title": self.title,
            "caption": caption or self.caption,
            "pixels": self.pixels,
            "uri": uri,
        }


def template(name: str) -> Template:
    """A template of this package; every page extends ``base.html``, and is self-contained: no script, no outside address."""
    loader = PackageLoader("fm_lightning.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["minus"] = true_minus
    return environment.get_template(name)


def embedded(content: bytes, kind: str) -> str:
    """An image for a page; ``kind`` is "png" or "svg+xml"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def svg(figure: Figure) -> bytes:
    return _saved(figure, format="svg", metadata={"Date": None})


def png(figure: Figure, dpi: int = 150) -> bytes:
    return _saved(figure, format="png", dpi=dpi)


def _saved(figure: Figure, **how: Any) -> bytes:
    into = io.BytesIO()
    with matplotlib.rc_context(_style()):
        figure.savefig(into, **how)
    return into.getvalue()


def colours(results: Results) -> dict[str, Any]:
    """A colour for every row but families': ink for base, one of the palette for each schedule, lighter for its control."""
    found: dict[str, Any] = {}
    shaped = [row.name for row in results.rows if row.kind == "schedule"]
    for row in results.rows:
        if row.kind == "base":
            found[row.name] = INK
        elif row.kind == "schedule":
            found[row.name] = PALETTE[shaped.index(row.name) % len(PALETTE)]
        elif row.kind in ("field", "floor"):
            found[row.name] = MUTED
    for row in results.rows:
        if row.kind == "control":
            found[row.name] = lighter(found.get(str(row.of), MUTED), 0.25)
    return found


def within(values: Iterable[float], around: float, reach: float = 3.0) -> tuple[float, float]:
    """Limits that show what most values do: no further out than ``reach`` times their upper quartile."""
    found = np.asarray([value for value in values if np.isfinite(value)] or [around])
    far = reach * np.quantile(np.abs(found - around), 0.75)
    kept = found[np.abs(found - around) <= far] if far > 0 else found
    lo, hi = min(kept.min(), around), max(kept.max(), around)
    margin = 0.08 * (hi - lo) or 0.05 * abs(around) or 1.0
    return lo - margin, hi + margin


def lighter(colour: str, by: float) -> tuple[float, float, float]:
    """The colour mixed with white; ``by`` 0 leaves it, 1 gives white."""
    red, green, blue = to_rgb(colour)
    return red + (1 - red) * by, green + (1 - green) * by, blue + (1 - blue) * by


def point_style(row: Row, colour: Any, size: float = 6.5) -> dict[str, Any]:
    """Keywords for ``plot``: schedules filled, controls hollow."""
    hollow = row.kind == "control"
    scale = 1.45 if row.kind == "field" else 1.0  # a star's body is small
    return {
        "marker": MARKERS[row.kind],
        "markersize": size * scale,
        "markerfacecolor": "white" if hollow else colour,
        "markeredgecolor": colour,
        "markeredgewidth": 1.3 if hollow else 0.8,
        "linestyle": "none",
    }
