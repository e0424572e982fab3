"""The frontier: what is drawn where, from a real comparison; the picture of box and curves is the verdict's condition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fm_lightning.comparison.results import Results
from fm_lightning.report.frontier import frontier
from fm_lightning.report.outcomes import OUTCOMES
from fm_lightning.verdicts.margins import Margin

read = Results.from_dict


@pytest.fixture
def drawn(make_results):
    results, _ = make_results()
    figure = frontier(read(results), {})
    (axes,) = figure.axes
    rows = {row["name"]: row["metrics"] for row in results["rows"]}
    (verdict,) = results["verdicts"]

    def at(name):
        metrics = rows[name]
        return 100 * metrics["f_mem"], metrics[f"quality_{verdict['measure']}"] / verdict["base_quality"]

    return results, verdict, axes, at


def with_gid(axes, gid):
    return [artist for artist in axes.get_children() if artist.get_gid() == gid]


def test_each_family_is_the_parabola_through_its_three_doses(drawn):
    results, _, axes, at = drawn
    families = results["judged"]["stronger"]["families"]
    assert sum(map(len, families.values())) >= 4
    for family, places in families.items():
        curves = with_gid(axes, f"curve/{family}")
        assert len(curves) == len(places)
        for curve, names in zip(curves, places):
            x, y = curve.get_data()
            nodes = sorted(at(name) for name in names)
            assert (min(x), max(x)) == pytest.approx((nodes[0][0], nodes[-1][0])), "solid in its range"
            fit = np.polyfit(*zip(*nodes), 2)
            np.testing.assert_allclose(y, np.polyval(fit, x), atol=1e-6)
            assert curve.get_linewidth() > 1.5


def test_fewer_copies_lie_to_the_left_and_everything_that_counts_is_inside(drawn):
    _, verdict, axes, at = drawn
    left, right = axes.get_xlim()
    assert -2 <= left < right <= 102
    assert all(0 <= tick <= 100 for tick in axes.get_xticks()), "no share below 0 or above 100% is marked"
    low, high = axes.get_ylim()
    for name in ("base", "stronger"):
        x, y = at(name)
        assert left < x < right
        assert low < y < high
    assert at("base")[1] == pytest.approx(1.0)
    assert OUTCOMES[verdict["outcome"]].words in axes.get_title(loc="left")


def test_lines_are_labelled_where_they_end(drawn):
    results, _, axes, _ = drawn
    named = [text.get_text() for text in axes.texts]
    reached = [family for family, places in results["judged"]["stronger"]["families"].items() for _ in places]
    assert sorted(named) == sorted([*reached, "base", "stronger"])
    renderer = axes.figure.canvas.get_renderer()
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    frame = axes.figure.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_the_schedule_has_its_own_dose_curve_from_base_on(drawn):
    _, _, axes, at = drawn
    (own,) = with_gid(axes, "own")
    names = ["base", "stronger~own~0", "stronger", "stronger~own~1", "stronger~own~2"]
    np.testing.assert_allclose(np.stack(own.get_data(), axis=1), [at(name) for name in names])


def test_the_box_is_the_margin(drawn):
    _, verdict, axes, at = drawn
    (box,) = with_gid(axes, "margin")
    middle = box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2
    assert middle == pytest.approx(at("stronger"))
    assert box.get_width() == pytest.approx(2 * 100 * verdict["margin"]["memorized"])
    assert box.get_height() == pytest.approx(2 * verdict["margin"]["quality"] / verdict["base_quality"])


@given(slope=st.floats(-50, 50), residual=st.floats(-5, 5), copies=st.floats(1e-3, 0.05), quality=st.floats(1e-3, 1))
def test_a_line_clears_the_box_from_above_just_where_the_residual_is_beyond_the_margin(
    slope, residual, copies, quality
):
    lowest = min(
        -residual + slope * corner for corner in (-copies, copies)
    )  # of the line, over the box, from its middle
    margin = Margin(copies, quality).at(slope)
    if abs(residual + margin) > 1e-9:
        assert (lowest > quality) == (residual < -margin)


def test_several_schedules_have_a_panel_each_and_those_without_a_distance_none(make_results):
    results, _ = make_results()
    (verdict,) = results["verdicts"]
    for extra in range(1, 5):
        name = f"copy{extra}"
        results["rows"].append({**next(r for r in results["rows"] if r["name"] == "stronger"), "name": name})
        results["judged"][name] = results["judged"]["stronger"]
        results["verdicts"].append({**verdict, "schedule": name})
    assert len(visible(frontier(read(results), {}))) == 5
    results["verdicts"][0] = {**verdict, "measure": None}
    results["verdicts"][1] = {**verdict, "schedule": "gone"}
    results["verdicts"][2] = {**results["verdicts"][2], "base_quality": 0.0}
    assert len(visible(frontier(read(results), {}))) == 2
    results["verdicts"] = [{**verdict, "base_quality": None}]
    assert frontier(read(results), {}) is None


def test_a_schedule_that_does_not_lower_memorization_stands_without_curves(make_results):
    results, _ = make_results()
    results["verdicts"][0] |= {"outcome": "not lowered", "families": []}
    results["judged"]["stronger"]["families"] = {"noise": []}
    (axes,) = frontier(read(results), {}).axes
    assert sorted(text.get_text() for text in axes.texts) == ["base", "stronger"]


def visible(figure):
    return [axes for axes in figure.axes if axes.get_visible()]
