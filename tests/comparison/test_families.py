"""Families: what a dose of each does to a base schedule, and its cost compared with base."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fm_lightning.comparison.families import BLEND, CONSTANT_GAIN, LATE_BRAKE, Family, families, own_doses
from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, SSC, Constant, Diffusion, Schedule, integrate, integrate_many
from fm_lightning.noise import noise

BASES = {
    "plain": Schedule(),
    "one step": Schedule(steps=1),
    "seven": Schedule(steps=7, grid="cosine"),
    "heun": Schedule(steps=20, solver="heun"),
    "own grid": Schedule(grid=[0, 0.1, 0.3, 0.55, 0.8, 0.97, 1]),
    "stopped": Schedule(steps=30, t_end=0.8, told_time="floor999"),
    "dopri5": Schedule(steps=10, solver="dopri5"),
    "gain": Schedule(gain=Constant(1.02), end_noise=0.1, x0_scale=0.9, blend=0.05),
}


def field(x, t, y=None):
    return -0.5 * x + torch.sin(3 * t)[:, None]


def by_name(base):
    return {family.name: family for family in families(base)}


@pytest.mark.parametrize("base", BASES.values(), ids=BASES)
def test_every_dose_can_be_sampled_and_the_larger_the_further_from_base(base):
    x0 = noise(range(64), (3,), 0).double()
    for family in families(base):
        schedules = {str(dose): family.at(base, dose) for dose in (0.0, *family.doses)}
        assert schedules["0.0"] == base
        rows = integrate_many(field, x0, schedules)
        away = [float((row.x1 - rows["0.0"].x1).square().mean()) for row in rows.values()]
        assert away == sorted(away), family.name
        assert away[1] > 0, family.name


def test_what_exists_depends_on_the_base():
    everything = {
        "noise", "blend", "early stop", "late brake", "noise at .9", "fewer steps", "constant gain", "noise temperature",
    }  # fmt: skip
    assert set(by_name(Schedule())) == everything
    assert set(by_name(Schedule(solver="dopri5"))) == everything - {"noise at .9", "fewer steps"}
    assert set(by_name(Schedule(steps=2))) == everything - {"fewer steps"}
    assert set(by_name(Schedule(inject_noise=(0.5, 0.1)))) == everything - {"noise at .9"}
    cheap = {family.name for family in families(Schedule()) if family.cheap}
    assert cheap == {"noise", "blend", "early stop", "late brake", "noise at .9"}


def test_three_doses_of_each_cost_what_they_should():
    """On top of the 100 evaluations of base; the velocity where a dose leaves it is its own."""
    base, extra = Schedule(), {}
    for family in families(base):
        calls = 0

        def counted(x, t, y=None):
            nonlocal calls
            calls += 1
            return field(x, t)

        doses = family.doses[1:4]
        integrate_many(counted, torch.zeros(2, 3), {str(d): family.at(base, d) for d in (0.0, *doses)})
        extra[family.name] = calls - 100
    assert extra == {
        "noise": 0, "blend": 0, "early stop": 0, "late brake": 27, "noise at .9": 30,
        "fewer steps": 39 + 24 + 16, "constant gain": 297, "noise temperature": 300,
    }  # fmt: skip


def test_an_early_stop_is_the_same_way_cut():
    """Between two edges of the base's grid: the last step is shorter, and ends where base would be at that time."""
    base = Schedule(steps=10)
    stopped = by_name(base)["early stop"].at(base, 0.13)
    torch.testing.assert_close(stopped.edges, torch.tensor([*(i / 10 for i in range(9)), 0.87], dtype=torch.float64))
    x0 = torch.randn(5, 3, dtype=torch.float64)
    states = {}
    whole = integrate(field, x0, base, probe=lambda i, t, x, v: states.update({i: x}))
    assert len(whole.energy) == 10
    want = states[8] + 0.07 * field(states[8], torch.full((5,), 0.8, dtype=torch.float64))
    torch.testing.assert_close(integrate(field, x0, stopped).x1, want, atol=1e-14, rtol=0)
    # A cut at an edge leaves no step of length zero.
    assert by_name(base)["early stop"].at(base, 0.1).steps == 9


@pytest.mark.parametrize(("steps", "late"), [(100, 0.9), (10, 0.9), (7, 6 / 7), (4, 0.75), (1, 0.0)])
def test_late_means_the_last_edge_at_or_before_nine_tenths(steps, late):
    base = Schedule(steps=steps)
    assert by_name(base)["late brake"].at(base, 0.5).gain.after == pytest.approx(late)
    assert [s.gains[0] for s in by_name(base)["late brake"].at(base, 0.5).plan()][-1] == 0.5
    assert by_name(base)["noise at .9"].at(base, 0.1).plan()[-1 if steps < 10 else steps * 9 // 10].noise == 0.1


def test_steps_are_whole():
    for base in (Schedule(), Schedule(steps=7), BASES["own grid"]):
        family = by_name(base)["fewer steps"]
        existing = family.existing(base)
        assert existing[0] == 0
        assert len(existing) == base.steps
        assert set(family.doses) <= set(existing)
        for dose in existing:
            if dose <= family.doses[-1]:
                assert 1 / family.at(base, dose).steps - 1 / base.steps == pytest.approx(dose)


def test_doses_add_to_what_the_base_does():
    base = BASES["gain"]
    got = by_name(base)
    assert got["noise"].at(base, 0.1).end_noise == (0.1, 0.1), "a draw of its own"
    assert got["blend"].at(base, 0.1).blend == pytest.approx(1 - 0.95 * 0.9)
    assert got["noise temperature"].at(base, 0.1).x0_scale == pytest.approx(0.99)
    assert float(got["constant gain"].at(base, 0.1).eta(torch.tensor(0.5))) == pytest.approx(1.02 * 0.9)


def test_a_family_of_one_s_own():
    shrunk = Family("start shrunk", lambda base, dose: replace(base, x0_scale=1 - dose), (0.1, 0.2, 0.3))
    assert shrunk.at(Schedule(), 0.2) == Schedule(x0_scale=0.8)
    with pytest.raises(UserError, match=r"Pass 0 to 0\.3"):
        shrunk.at(Schedule(), 0.31)
    with pytest.raises(UserError, match="out of range"):
        BLEND.at(Schedule(), -0.1)
    for doses in ((0.1, 0.2), (0.0, 0.1, 0.2), (0.2, 0.1, 0.3)):
        with pytest.raises(UserError, match="ascending from above 0"):
            Family("mine", lambda base, dose: base, doses)


def test_a_schedule_s_own_doses():
    kts = Schedule(gain=KTS(0.02, 0.02), steps=50)
    assert own_doses(kts) == {
        0.5: replace(kts, gain=KTS(0.01, 0.01)),
        1.5: replace(kts, gain=KTS(0.03, 0.03)),
        2.0: replace(kts, gain=KTS(0.04, 0.04)),
    }
    assert set(own_doses(Schedule(gain=KTS(0.02, 0.04)))) == {0.5}, "a gain that would reverse is left out"
    assert own_doses(Schedule(gain=SSC(0.1, 1.0)))[0.5].gain == SSC(0.05, 1.0)
    assert own_doses(Schedule()) == {}


def test_what_samples_by_chance_or_begins_later_has_the_families_that_exist_for_it():
    later = Schedule(steps=20, t_start=0.1)
    for base in (Schedule(steps=20, diffusion=Diffusion()), later):
        for family in families(base):
            for dose in family.doses:
                made = family.at(base, dose)
                assert (made.t_start, made.diffusion) == (base.t_start, base.diffusion)
    names = {family.name for family in families(Schedule(steps=20, diffusion=Diffusion()))}
    assert {family.name for family in families(later)} - names == {LATE_BRAKE.name, CONSTANT_GAIN.name}


def test_a_ladder_divides_the_coarse_doses_and_begins_where_doses_exist():
    family = Family("mine", lambda base, dose: base, (0.1, 0.2, 0.4))
    ladder = family.ladder(Schedule())
    assert len(ladder) == 25
    assert {0.0, 0.1, 0.2, 0.4} <= set(ladder)
    assert list(ladder) == sorted(ladder)
    assert replace(family, least=0.1).ladder(Schedule()) == (0.0, *(dose for dose in ladder if dose >= 0.1))
    steps = by_name(Schedule())["fewer steps"]
    assert [round(1 / (dose + 0.01)) for dose in steps.ladder(Schedule())] == list(range(100, 9, -1))


@pytest.mark.parametrize("t_start", [0.0, 0.2])
def test_doses_are_shares_of_the_time_that_is_sampled(t_start):
    base = Schedule(steps=20, t_start=t_start, t_end=0.9)
    stopped = by_name(base)["early stop"].at(base, 0.1)
    assert stopped.t_end == pytest.approx(t_start + 0.9 * (0.9 - t_start))
    assert (stopped.t_start, float(stopped.edges[0])) == (t_start, t_start)
    late = t_start + 0.9 * (0.9 - t_start)
    assert by_name(base)["late brake"].at(base, 0.5).gain.after == pytest.approx(late)
    assert by_name(base)["noise at .9"].at(base, 0.1).inject_noise[0] == pytest.approx(late)
