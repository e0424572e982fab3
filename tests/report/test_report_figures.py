"""Every figure on points, gray and RGB images, with parts missing; matplotlib's global state stays untouched."""

from __future__ import annotations

import copy
import math

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.comparison.results import Results
from fm_lightning.report.figures import FIGURES, change_forest, quality_memorization, sample_grid, sample_scatter
from fm_lightning.report.labels import _spread
from fm_lightning.report.style import colours, png, svg

read = Results.from_dict

NEED_ARRAYS = {"samples", "toy", "control_samples", "most_copied", "gains", "energy", "kpe"}
BARE = {"rows": [{"name": "base", "kind": "base", "metrics": {}}]}


def words(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("kind", ["toy", "gray", "rgb"])
def test_every_figure_that_has_data_is_drawn(make_results, kind):
    results, arrays = make_results(kind)
    before = dict(matplotlib.rcParams)
    drawn = {plate.key: plate.draw(read(results), arrays) for plate in FIGURES}
    absent = {"toy"} if kind != "toy" else {"samples", "most_copied"}
    assert {key for key, figure in drawn.items() if figure is None} == absent
    assert dict(matplotlib.rcParams) == before
    assert next(iter(drawn)) == "frontier", "first on the page"


def test_figures_are_the_same_bytes_each_time(make_results):
    results, arrays = make_results()
    assert svg(FIGURES[0].draw(read(results), arrays)) == svg(FIGURES[0].draw(read(results), arrays))
    assert png(FIGURES[0].draw(read(results), arrays), dpi=40).startswith(b"\x89PNG")


@pytest.mark.parametrize("plate", FIGURES, ids=lambda plate: plate.key)
def test_none_where_the_data_is_absent(make_results, plate):
    results, _ = make_results()
    assert plate.draw(read(BARE), {}) is None
    if plate.key in NEED_ARRAYS:
        assert plate.draw(read(results), {}) is None


@pytest.mark.parametrize("plate", FIGURES, ids=lambda plate: plate.key)
@pytest.mark.parametrize(
    "keep", [("base",), ("base", "launch"), ("stronger", "stronger.true_clock"), ("base", "stronger")]
)
def test_few_rows(make_results, plate, keep):
    results, arrays = make_results()
    results["rows"] = [row for row in results["rows"] if row["name"] in keep]
    arrays = {key: value for key, value in arrays.items() if key.partition("/")[2] in keep}
    figure = plate.draw(read(results), arrays)
    if figure is not None:
        png(figure, dpi=20)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_holes_anywhere(make_results, seed):
    results, arrays = make_results()
    results, rng = copy.deepcopy(results), np.random.default_rng(seed)
    hole = [None, math.nan, math.inf]
    for row in results["rows"]:
        for name in row["metrics"]:
            if rng.random() < 0.3:
                row["metrics"][name] = hole[rng.integers(3)]
        for against in ("vs_base", "vs_parent"):
            for parts in (row[against] or {}).values():
                parts[rng.integers(3)] = hole[rng.integers(3)] if rng.random() < 0.4 else 0.0
    arrays = {key: value for key, value in arrays.items() if rng.random() < 0.7}
    plots = [plate for plate in FIGURES if not plate.pixels]
    for plate in rng.choice(np.asarray(plots, dtype=object), 2):
        figure = plate.draw(read(results), arrays)
        if figure is not None:
            png(figure, dpi=20)


def test_arrays_that_do_not_fit_are_left_out(make_results):
    results, arrays = make_results("gray")
    for key in list(arrays):
        if key.startswith(("times/", "ratio/", "nearest/")):
            arrays[key] = arrays[key][:5]
    drawn = {plate.key: plate.draw(read(results), arrays) for plate in FIGURES if plate.key in NEED_ARRAYS}
    assert drawn["gains"] is None
    assert drawn["energy"] is None
    assert len(drawn["samples"].axes[0].images) == 1
    assert not drawn["samples"].axes[0].patches, "without ratios nothing is called a copy"


def test_copies_are_framed(make_results):
    results, arrays = make_results("gray")
    figure = sample_grid(read(results), arrays, ["base"])
    (axes,) = figure.axes
    assert len(axes.patches) == int((arrays["ratio/base"][:12] < results["threshold"]).sum()) > 0
    assert sample_scatter(read(results), arrays) is None


def test_the_forest_has_every_row_but_families_and_floors(make_results):
    results, arrays = make_results()
    copies, distance = change_forest(read(results), arrays).axes
    written = words(copies)
    assert {"launch", "stronger", "same steps, true clock", "empirical"} <= set(written)
    assert not any("dose" in word or "held out" in word for word in written)
    for axes, name, scale in ((copies, "f_mem", 100), (distance, "fd_raw", 1)):
        points = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 1]
        changes = [scale * row["vs_base"][name][0] for row in results["rows"] if row["vs_base"]]
        inside = [change for change in changes if axes.get_xlim()[0] <= change <= axes.get_xlim()[1]]
        assert sorted(points) == pytest.approx(sorted(inside))
        assert len(inside) >= 3


def test_quality_against_memorization_has_every_row_but_families(make_results):
    results, arrays = make_results()
    figure = quality_memorization(read(results), arrays)
    rows = [row for row in results["rows"] if row["kind"] != "family"]
    shown = {(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[-1].lines if len(line.get_xdata()) == 1}
    assert shown == {(100 * row["metrics"]["f_mem"], row["metrics"]["fd_raw"]) for row in rows}
    named = {word.replace("\n", " ") for axes in figure.axes for word in words(axes)}
    assert {"base", "launch", "stronger", "empirical", "training data"} <= named


def test_a_schedule_has_one_colour_and_its_control_a_lighter_one(make_results):
    results, _ = make_results()
    tint = colours(read(results))
    assert len({tint[name] for name in ("base", "launch", "stronger")}) == 3
    assert tint["stronger.true_clock"] not in (tint["stronger"], tint["launch"])
    assert not any("~" in name for name in tint)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_labels_at_line_ends_keep_apart_and_in_order(heights):
    wanted = np.sort(np.asarray(heights))
    found = _spread(wanted, 0.05)
    assert np.all(np.diff(found) >= 0.05 - 1e-9)
    if np.all(np.diff(wanted) >= 0.05):
        np.testing.assert_allclose(found, wanted, atol=1e-9)
