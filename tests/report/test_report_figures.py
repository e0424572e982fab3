"""Every figure on gray, RGB and 2-D data, with parts missing; matplotlib's global state stays untouched."""

from __future__ import annotations

import copy
import math

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from fm_lightning.report.figures import FIGURES, sample_grid, sample_scatter
from fm_lightning.report.labels import _spread
from fm_lightning.report.style import colours, png, svg

NEED_ARRAYS = {"samples", "toy", "control_samples", "most_copied", "gains", "energy", "kpe"}


@pytest.mark.parametrize("kind", ["rgb", "toy"])  # the page test draws gray
def test_every_figure_that_has_data_is_drawn(make_results, kind):
    results, arrays = make_results(kind)
    before = dict(matplotlib.rcParams)
    drawn = {plate.key: plate.draw(results, arrays) for plate in FIGURES}
    absent = {"toy"} if kind != "toy" else {"samples", "most_copied"}
    assert {key for key, figure in drawn.items() if figure is None} == absent
    assert dict(matplotlib.rcParams) == before
    assert all(isinstance(figure, Figure) for figure in drawn.values() if figure is not None)


def test_figures_are_the_same_bytes_each_time(make_results):
    results, arrays = make_results()
    against = next(plate for plate in FIGURES if plate.key == "against")
    assert svg(against.draw(results, arrays)) == svg(against.draw(results, arrays))
    assert png(against.draw(results, arrays), dpi=40).startswith(b"\x89PNG")


@pytest.mark.parametrize("plate", FIGURES, ids=lambda plate: plate.key)
def test_none_where_the_data_is_absent(make_results, plate):
    results, _ = make_results()
    bare = {"schema": 1, "rows": [{"name": "base", "kind": "base", "metrics": {}}]}
    assert plate.draw(bare, {}) is None
    if plate.key in NEED_ARRAYS:
        assert plate.draw(results, {}) is None


@pytest.mark.parametrize("plate", FIGURES, ids=lambda plate: plate.key)
@pytest.mark.parametrize("keep", [("base",), ("base", "ssc"), ("balanced", "balanced/noise")])
def test_few_rows(make_results, plate, keep):
    results, arrays = make_results()
    results["rows"] = [row for row in results["rows"] if row["name"] in keep]
    arrays = {key: value for key, value in arrays.items() if key.endswith(keep) or key == "most_copied/images"}
    plate.draw(results, arrays)


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_holes_anywhere(make_results, seed):
    results, arrays = make_results()
    results, rng = copy.deepcopy(results), np.random.default_rng(seed)
    hole = [None, math.nan, math.inf, "text"]
    for row in results["rows"]:
        for name in row["metrics"]:
            if rng.random() < 0.3:
                row["metrics"][name] = hole[rng.integers(4)]
        for against in ("vs_base", "vs_parent"):
            for parts in (row[against] or {}).values():
                parts[rng.integers(3)] = hole[rng.integers(4)] if rng.random() < 0.4 else 0.0
    arrays = {key: value for key, value in arrays.items() if rng.random() < 0.7}
    plots = [plate for plate in FIGURES if not plate.pixels]
    for plate in rng.choice(np.asarray(plots, dtype=object), 2):
        figure = plate.draw(results, arrays)
        if figure is not None:
            png(figure, dpi=20)


def test_arrays_that_do_not_fit_are_left_out(make_results):
    results, arrays = make_results()
    arrays = dict(arrays)
    for key in list(arrays):
        if key.startswith(("times/", "ratio/", "nearest/")):
            arrays[key] = arrays[key][:5]
    for plate in FIGURES:
        if plate.key in NEED_ARRAYS:
            plate.draw(results, arrays)


def test_copies_are_framed(make_results):
    results, arrays = make_results()
    figure = sample_grid(results, arrays, ["base"])
    (axes,) = figure.axes
    assert len(axes.patches) == int((arrays["ratio/base"][:12] < results["threshold"]).sum()) > 0
    assert sample_scatter(results, arrays) is None


def test_a_schedule_has_one_colour_and_its_controls_a_lighter_one(make_results):
    results, _ = make_results()
    tint = colours(results)
    shaped = [row["name"] for row in results["rows"] if row["kind"] == "schedule"]
    assert len({tint[name] for name in shaped}) == len(shaped)
    assert tint["balanced/noise"] != tint["balanced"]
    assert tint["balanced/noise"] == tint["balanced/early_stop"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_labels_at_line_ends_keep_apart_and_in_order(heights):
    wanted = np.sort(np.asarray(heights))
    found = _spread(wanted, 0.05)
    assert np.all(np.diff(found) >= 0.05 - 1e-9)
    if np.all(np.diff(wanted) >= 0.05):
        np.testing.assert_allclose(found, wanted, atol=1e-9)
