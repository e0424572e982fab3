"""Rows of a comparison: who is in the table, and from which noise."""

import pytest
import torch

from fm_lightning.comparison.rows import BASE, Row, control_rows, plain_row, schedule_rows
from fm_lightning.comparison.sampling import sample
from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, SSC, Constant, EmpiricalVelocity, Schedule, integrate, rms_distance
from fm_lightning.noise import noise

SHAPED = {"shaped": Schedule(KTS(0.02, 0.02), steps=20), "ssc": Schedule(SSC(0.1, 1), steps=20)}


def velocity(x, t, y=None):
    return torch.sin(3 * x) + t[:, None]


def start(n, first=0):
    seeds = torch.arange(first, first + n)
    return seeds, noise(seeds, (5,), 0)


def test_base_comes_first_and_is_added_where_it_is_missing():
    rows = schedule_rows(SHAPED)
    assert list(rows) == [BASE, "shaped", "ssc"]
    assert rows[BASE].schedule == Schedule(steps=20), "the plain version of the first schedule"
    own = schedule_rows({"shaped": SHAPED["shaped"], BASE: Schedule(steps=7)})
    assert list(own) == [BASE, "shaped"]
    assert own[BASE].schedule.steps == 7


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "a b"])
def test_names_that_could_be_mistaken_are_refused(name):
    with pytest.raises(UserError, match="expected one without"):
        schedule_rows({name: Schedule()})


def test_each_controlled_schedule_is_followed_by_its_controls():
    rows = control_rows(schedule_rows(SHAPED), ["shaped"], velocity, start(64)[1], None)
    assert list(rows) == [
        BASE,
        "shaped",
        *(f"shaped.{c}" for c in ("true_clock", "early_stop", "constant_gain", "fewer_steps", "noise")),
        "ssc",
    ]
    assert all(row.of == "shaped" and row.kind == "control" for name, row in rows.items() if "." in name)
    gain = rows["shaped.constant_gain"].schedule.gain
    assert gain == Constant(pytest.approx(SHAPED["shaped"].total_gain))


def test_the_noise_control_is_as_far_from_base_as_the_schedule():
    rows = control_rows(schedule_rows(SHAPED), ["shaped"], velocity, start(256, 1000)[1], None)
    seeds, x0 = start(4000)
    out = sample(rows, velocity, x0, None, seeds, base_seed=0, count=len(seeds))
    shaped = rms_distance(out["shaped"], out[BASE])
    noisy = rms_distance(out["shaped.noise"], out[BASE])
    assert noisy == pytest.approx(shaped, rel=0.1)
    assert shaped > 0.01


def test_schedules_without_a_gain_or_unknown_ones_have_no_controls():
    rows = schedule_rows({"plain50": Schedule(steps=50)})
    with pytest.raises(UserError, match="has no gain"):
        control_rows(rows, ["plain50"], velocity, start(4)[1], None)
    with pytest.raises(UserError, match="other"):
        control_rows(rows, ["other"], velocity, start(4)[1], None)


def test_every_row_starts_from_the_same_noise_and_drops_padding():
    data = torch.randn(6, 5)
    rows = schedule_rows(SHAPED)
    rows["field"] = Row("field", rows[BASE].schedule, velocity=EmpiricalVelocity(data))
    rows["floor"] = Row("floor", rows[BASE].schedule, images=data)
    seeds, x0 = start(8)
    out = sample(rows, velocity, x0, None, seeds, base_seed=0, count=7)
    assert list(out) == list(rows)
    assert {len(t) for name, t in out.items() if name != "floor"} == {7}
    for name in (BASE, *SHAPED):
        alone = integrate(velocity, x0, rows[name].schedule)[:7]
        assert torch.equal(out[name].x1, alone.x1)
        assert torch.equal(out[name].energy, alone.energy)
    assert out["floor"].nfe == 0
    assert torch.cdist(out["field"].x1, data).min(1).values.max() < 1e-4


@pytest.mark.parametrize("batch", [3, 4, 20])
def test_a_floor_shows_each_image_once(batch):
    data, labels = torch.randn(7, 5), torch.arange(20) % 3
    row = {"floor": Row("floor", Schedule(), images=data, first_seed=100)}
    seeds = torch.cat([torch.arange(100, 118), torch.tensor([-1, -1])])
    parts = [
        sample(row, velocity, torch.zeros(len(s), 5), y, s, base_seed=0, count=len(s))["floor"]
        for s, y in zip(seeds.split(batch), labels.split(batch))
    ]
    assert torch.equal(torch.cat([t.x1 for t in parts]), data)
    assert torch.equal(torch.cat([t.seeds for t in parts]), seeds[:7])
    assert torch.equal(torch.cat([t.labels for t in parts]), labels[:7])


OTHERWISE = Schedule(KTS(0.02, 0.02), steps=8, solver="midpoint")


def test_a_schedule_is_judged_against_its_own_plain_sampling():
    rows = schedule_rows({"base": Schedule(steps=4), "kts": Schedule(KTS(0.02, 0.02), steps=4), "mid": OTHERWISE})
    assert plain_row(rows, "kts") == BASE
    assert plain_row(rows, "mid") == BASE  # for want of a better one
    controlled = control_rows(rows, ["kts", "mid"], velocity, start(4)[1], None)
    assert "kts_plain" not in controlled
    assert plain_row(controlled, "mid") == "mid_plain"
    assert controlled["mid_plain"].schedule == Schedule(steps=8, solver="midpoint")
    assert [name for name in controlled if "." not in name] == ["base", "kts", "mid_plain", "mid"]


def test_plain_sampling_that_is_there_is_not_added_again():
    rows = schedule_rows({"base": Schedule(), "mid": OTHERWISE, "other": Schedule(steps=8, solver="midpoint")})
    controlled = control_rows(rows, ["mid"], velocity, start(4)[1], None)
    assert plain_row(controlled, "mid") == "other"
    assert "mid_plain" not in controlled


def test_schedules_that_sample_alike_share_their_plain_sampling():
    rows = schedule_rows({"base": Schedule(), "mid": OTHERWISE, "also": Schedule(KTS(0.01, 0), 8, "midpoint")})
    controlled = control_rows(rows, ["mid", "also"], velocity, start(4)[1], None)
    assert plain_row(controlled, "mid") == plain_row(controlled, "also") == "mid_plain"
    assert "also_plain" not in controlled
