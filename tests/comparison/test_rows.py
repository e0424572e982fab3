"""Rows of a comparison: who is in the table, and from which noise."""

import pytest
import torch

from fm_lightning.comparison.rows import BASE, Row, check_judged, describe, judged_rows, plain_row, schedule_rows
from fm_lightning.comparison.sampling import sample
from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, SSC, EmpiricalVelocity, Schedule, integrate, true_clock
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


@pytest.mark.parametrize(
    "name",
    ["", "a.b", "a/b", "a b", "a~b", "a\nb", "a\x00b", "a\u202eb", "\ud800", "x" * 61, "held_out", "copies"],
)
def test_names_that_could_be_mistaken_or_cannot_be_shown_are_refused(name):
    with pytest.raises(UserError, match=r"schedule name|is that of the row") as caught:
        schedule_rows({name: Schedule()})
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["$\\frac{$", "=1+1", "<b>", "名前", "a,b", "%s{0}"])
def test_any_other_name_is_text(name):
    assert name in schedule_rows({name: Schedule()})


def test_a_description_tells_every_manipulation():
    assert describe(Schedule()) == "no gain, 100 euler steps, uniform grid to t = 1"
    found = describe(Schedule(x0_scale=1.1, inject_noise=(0.9, 0.05), blend=0.02, end_noise=(0.0, 0.07)))
    assert found.endswith(
        "initial noise x 1.1, noise 0.05 put in at t = 0.9, 0.02 of the start blended in, end noise 0.07"
    )
    assert describe(Schedule(end_noise=0.1).with_noise(0.2)).endswith("end noise 0.1, end noise 0.2")


def test_each_judged_schedule_is_followed_by_its_steps_with_the_true_clock():
    rows = judged_rows(schedule_rows(SHAPED), ["shaped"])
    assert list(rows) == [BASE, "shaped", "shaped.true_clock", "ssc"]
    clock = rows["shaped.true_clock"]
    assert (clock.kind, clock.of) == ("control", "shaped")
    assert clock.schedule == true_clock(SHAPED["shaped"])
    assert rows["shaped"].plain == BASE


def test_base_and_unknown_names_cannot_be_judged():
    rows = schedule_rows({"plain50": Schedule(steps=50)} | SHAPED)
    with pytest.raises(UserError, match=r"'base', which is the base.*Choose among plain50, shaped, ssc"):
        check_judged(rows, ["base"])
    with pytest.raises(UserError, match="other"):
        check_judged(rows, ["other"])
    assert "plain50.true_clock" not in judged_rows(rows, ["plain50"]), "it has no gain, and so no clock of its own"


def test_keys_name_what_is_sampled():
    rows = schedule_rows(
        {"a": SHAPED["shaped"], "b": Schedule(KTS(0.02, 0.02), steps=20), "c": Schedule(KTS(0.02, 0.021), 20)}
    )
    assert rows["a"].key == rows["b"].key != rows["c"].key
    data = torch.randn(6, 5)
    floors = [Row("floor", Schedule(), images=data, content=content) for content in ("held_out:1", "held_out:2")]
    assert floors[0].key != floors[1].key
    assert floors[0].key == Row("floor", Schedule(steps=7), images=data, content="held_out:1").key, (
        "its schedule is not used"
    )


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
    controlled = judged_rows(rows, ["kts", "mid"])
    assert "kts_plain" not in controlled
    assert plain_row(controlled, "mid") == "mid_plain"
    assert controlled["mid_plain"].schedule == Schedule(steps=8, solver="midpoint")
    assert [name for name in controlled if "." not in name] == ["base", "kts", "mid_plain", "mid"]


def test_plain_sampling_that_is_there_is_not_added_again():
    rows = schedule_rows({"base": Schedule(), "mid": OTHERWISE, "other": Schedule(steps=8, solver="midpoint")})
    controlled = judged_rows(rows, ["mid"])
    assert plain_row(controlled, "mid") == "other"
    assert "mid_plain" not in controlled


def test_schedules_that_sample_alike_share_their_plain_sampling():
    rows = schedule_rows({"base": Schedule(), "mid": OTHERWISE, "also": Schedule(KTS(0.01, 0), 8, "midpoint")})
    controlled = judged_rows(rows, ["mid", "also"])
    assert plain_row(controlled, "mid") == plain_row(controlled, "also") == "mid_plain"
    assert "also_plain" not in controlled


def test_a_label_tells_every_manipulation():
    assert Row("base", Schedule(steps=20, solver="heun")).label("base") == "plain, 20 heun steps"
    noisy = Schedule(steps=20, end_noise=0.05, blend=0.1)
    assert Row("base", noisy).label("base") == "plain, 20 euler steps, 0.1 of the start blended in, end noise 0.05"
    shaped = Row("schedule", Schedule(KTS(0.02, 0.02), x0_scale=1.1))
    assert shaped.label("shaped") == "KTS α=0.02 β=0.02, initial noise x 1.1"
