"""Samples with the training images nearest to them; samples of 2-D data over their training points."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from fm_lightning.phrases import share, thousands
from fm_lightning.report.results import Arrays, Results, Row, metric, of_kind, subtitle, title
from fm_lightning.report.style import COPY, INK, MUTED, WIDTH, colours, lighter, new_figure, panels, styled

COLUMNS = 12  # pairs per strip: more would be too small to read
GAP = 0.12  # between images, in image heights


def is_toy(arrays: Arrays) -> bool:
    return "training/points" in arrays


@styled
def sample_grid(results: Results, arrays: Arrays, names: Iterable[str] | None = None) -> Figure | None:
    """One strip per row: samples above, the training image nearest to each below, d1 / d2 under the pair.

    Column j is seed j in every strip. Copies (ratio below the threshold) are framed. By default base,
    schedules and fields; ``names`` chooses others. None for 2-D data, which ``sample_scatter`` shows.
    """
    chosen = _chosen(results, names)
    strips = [(row, *found) for row in chosen if (found := _pairs(arrays, row))]
    if not strips or is_toy(arrays):
        return None
    across = max(len(made) for _, made, _, _ in strips)
    side = (WIDTH - 0.2) / (across * (1 + GAP))  # inches an image is wide
    tall = side * strips[0][1].shape[1] / strips[0][1].shape[2]
    lines = [1 + (near is not None) for _, _, near, _ in strips]
    heights = [rows * tall * (1 + GAP) + 0.2 for rows in lines]
    head, total = 0.3, sum(heights) + 0.3 * len(strips)
    figure = new_figure(WIDTH, total)
    top, tint = total, colours(results)
    threshold = results.threshold or 0.0  # without one nothing is called a copy
    for (row, made, near, ratio), height in zip(strips, heights):
        axes = figure.add_axes((0.1 / WIDTH, (top - head - height) / total, 1 - 0.2 / WIDTH, height / total))
        _strip(axes, made, near, ratio, threshold, tall / side, height / side)
        _heading(figure, row, 0.1 / WIDTH, (top - head + 0.07) / total, tint)
        top -= head + height
    return figure


def _chosen(results: Results, names: Iterable[str] | None) -> list[Row]:
    if names is None:
        return of_kind(results, "base", "schedule", "field")
    wanted = set(names)
    return [row for row in results.rows if row.name in wanted]


def _pairs(arrays: Arrays, row: Row) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None] | None:
    """``(samples, nearest, ratios)`` of a row's first seeds."""
    made = arrays.get(f"samples/{row.name}")
    if made is None or made.ndim != 4 or made.shape[-1] not in (1, 3) or not len(made):
        return None
    near, ratio = arrays.get(f"nearest/{row.name}"), arrays.get(f"ratio/{row.name}")
    near = near[:COLUMNS] if near is not None and near.shape == made.shape else None
    ratio = ratio[:COLUMNS] if ratio is not None and ratio.shape == made.shape[:1] else None
    return made[:COLUMNS], near, ratio


def _strip(axes: Axes, made, near, ratio, threshold: float, tall: float, height: float) -> None:
    """Draws the pairs in units of an image's width; ``tall`` and ``height`` are an image's and the strip's."""
    axes.set(xlim=(0, _span(len(made))), ylim=(height, 0))
    axes.axis("off")
    bottom = _pictures(axes, [made] if near is None else [made, near], tall)
    for j in range(0 if ratio is None else len(made)):
        if not np.isfinite(ratio[j]):
            continue
        left, copied = j * (1 + GAP), ratio[j] < threshold
        if copied:
            pad = GAP / 4
            frame = Rectangle((left - pad, -pad), 1 + 2 * pad, bottom + 2 * pad, fill=False, clip_on=False)
            frame.set(edgecolor=COPY, linewidth=1.6)
            axes.add_patch(frame)
        how: dict[str, Any] = {"color": COPY, "weight": "bold"} if copied else {"color": MUTED}
        axes.text(left + 0.5, bottom + 0.09, f"{ratio[j]:.2f}", ha="center", va="top", fontsize=7.5, **how)


def _span(images: int) -> float:
    return images * (1 + GAP)


def _pictures(axes: Axes, lines: list[np.ndarray], tall: float) -> float:
    """Draws lines of images as one mosaic (one artist is far faster than hundreds); returns its lower edge."""
    many, high, wide = lines[0].shape[:3]
    zoom = max(1, -(-64 // wide))  # whole pixels, so that small images stay sharp and gaps are even
    gap = round(GAP * wide * zoom)
    down, right = high * zoom + gap, wide * zoom + gap
    mosaic = np.full((down * len(lines) - gap, right * many - gap, 3), 255, np.uint8)
    for k, line in enumerate(lines):
        for j, image in enumerate(line):
            large = np.repeat(np.repeat(image, zoom, 0), zoom, 1)
            mosaic[k * down : k * down + high * zoom, j * right : j * right + wide * zoom] = large
    bottom = len(lines) * tall * (1 + GAP) - GAP * tall
    axes.imshow(
        mosaic, extent=(0, _span(many) - GAP, bottom, 0), aspect="auto", interpolation="nearest" if zoom > 1 else None
    )
    return bottom


def _heading(figure: Figure, row: Row, x: float, y: float, tint) -> None:
    text = figure.text(x, y, title(row), weight="bold", color=tint[row.name], fontsize=9.5, va="bottom")
    aside = [subtitle(row)] if subtitle(row) else []
    if row.kind == "control":
        aside.append(f"control of {row.of}")
    if metric(row, "f_mem") is not None:
        aside.append(f"{share(metric(row, 'f_mem'))}% of all its samples are copies")
    extent = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
    right = x + (extent.width / figure.dpi + 0.14) / figure.get_figwidth()
    figure.text(right, y, " · ".join(aside), color=MUTED, fontsize=8.5, va="bottom")


@styled
def most_copied(results: Results, arrays: Arrays) -> Figure | None:
    """The training images that are copied most, and how often each schedule copies them."""
    images = arrays.get("most_copied/images")
    if images is None or images.ndim != 4 or not len(images) or images.shape[-1] not in (1, 3):
        return None
    rows = []
    for row in of_kind(results, "base", "schedule", "field"):
        counts = arrays.get(f"most_copied/{row.name}")
        if counts is not None and counts.shape == (len(images),):
            rows.append((row, counts))
    if not rows:
        return None
    shown = min(len(images), COLUMNS)
    tall = images.shape[1] / images.shape[2]
    line, names = 0.36, 2.6  # a row of counts and the column of names, in image widths
    width, height = names + _span(shown), tall + 0.2 + line * len(rows)
    side = min(WIDTH / width, 0.72)
    figure = new_figure(width * side, height * side)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-names, width - names), ylim=(height, 0))
    axes.axis("off")
    tint, most = colours(results), max(1.0, max(float(np.max(counts)) for _, counts in rows))
    _pictures(axes, [images[:shown]], tall)
    for k, (row, counts) in enumerate(rows):
        y = tall + 0.2 + line * (k + 0.5)
        axes.text(-0.15, y, title(row), ha="right", va="center", weight="bold", color=tint[row.name], fontsize=8.5)
        for j in range(shown):
            depth = float(counts[j]) / most
            cell = Rectangle((j * (1 + GAP), y - line * 0.45), 1, line * 0.9, linewidth=0)
            cell.set_facecolor(lighter(tint[row.name], 1 - 0.55 * depth))
            axes.add_patch(cell)
            axes.text(j * (1 + GAP) + 0.5, y, thousands(counts[j]), ha="center", va="center", fontsize=8.5, color=INK)
    return figure


@styled
def sample_scatter(results: Results, arrays: Arrays, names: Iterable[str] | None = None) -> Figure | None:
    """2-D data: each row's samples over the training points, copies filled. None for images."""
    points = arrays.get("training/points")
    if points is None or points.ndim != 2 or points.shape[1] != 2:
        return None
    rows = [
        (row, made)
        for row in _chosen(results, names)
        if (made := arrays.get(f"samples/{row.name}")) is not None and made.ndim == 2 and made.shape[1] == 2
    ]
    if not rows:
        return None
    across = min(4, len(rows))
    wide, tall = np.ptp(np.concatenate([points, *(made for _, made in rows)]), axis=0) + 1e-6
    high = np.clip(WIDTH / across * tall / wide, 1.0, 4.0) + 0.35
    figure, grid = panels(len(rows), across, high, 0.4, sharex=True, sharey=True)
    tint = colours(results)
    threshold = results.threshold or 0.0  # without one nothing is called a copy
    for axes, (row, made) in zip(grid.flat, rows):
        ratio = arrays.get(f"ratio/{row.name}")
        copied = np.zeros(len(made), bool) if ratio is None or len(ratio) != len(made) else ratio < threshold
        axes.scatter(*points.T, s=34, facecolor="none", edgecolor=lighter(MUTED, 0.35), linewidth=0.8, zorder=1)
        axes.scatter(*made[~copied].T, s=9, facecolor="white", edgecolor=tint[row.name], linewidth=1.0, zorder=2)
        axes.scatter(*made[copied].T, s=11, color=tint[row.name], linewidth=0, zorder=3)
        axes.set_title(title(row), color=tint[row.name])
        axes.set_aspect("equal")
        axes.tick_params(length=0)
    dot: dict[str, Any] = {"linestyle": "none", "marker": "o", "markeredgecolor": MUTED}
    handles = [
        Line2D([], [], **dot, markerfacecolor="none", markersize=6.5, label="training point"),
        Line2D([], [], **dot, markerfacecolor="white", markersize=3.5, label="sample"),
        Line2D([], [], **dot, markerfacecolor=MUTED, markersize=4, label="sample that copies a training point"),
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=3)
    return figure
