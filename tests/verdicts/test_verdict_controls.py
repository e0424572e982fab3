"""The network that says what no schedule can, for docs/results/digits/controls.md, does what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from benchmarks.verdict_controls import MEMBERS, REDRAW, REPLACE, ControlNet
from fm_lightning.comparison.families import families
from fm_lightning.flow import Schedule, integrate
from fm_lightning.nets import ResidualMLP

WRITTEN = yaml.safe_load((Path(__file__).parents[2] / "docs/results/digits/controls.yaml").read_text())["model"]


@pytest.fixture(scope="module")
def nets():
    torch.manual_seed(0)
    control, plain = ControlNet([1, 8, 8], width=16, depth=1), ResidualMLP([1, 8, 8], width=16, depth=1)
    plain.load_state_dict(control.state_dict())
    return control.requires_grad_(False), plain.requires_grad_(False)


@pytest.fixture(scope="module")
def x0():
    return torch.randn(2000, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def written(name):
    return Schedule(grid=WRITTEN["test_schedules"][name]["grid"])


def test_it_is_the_plain_network_on_any_other_grid(nets, x0):
    control, plain = nets
    assert torch.equal(integrate(control, x0[:50]).x1, integrate(plain, x0[:50]).x1)


def test_a_tenth_of_the_samples_is_replaced_by_unseen_digits(nets, x0):
    control, plain = nets
    assert written("replaced").edges[-2] == REPLACE
    replaced, base = integrate(control, x0, written("replaced")).x1, integrate(plain, x0).x1
    distance, place = torch.cdist(replaced.flatten(1), control.unseen.flatten(1)).min(1)
    real = distance < 1e-2
    assert float(real.double().mean()) == pytest.approx(0.1, abs=0.02)
    assert len(place[real].unique()) > 100
    torch.testing.assert_close(replaced[~real], base[~real], atol=1e-3, rtol=0)


def test_drawn_again_is_sampling_from_the_noise_turned_round(nets, x0):
    control, plain = nets
    assert written("again").edges[1] == REDRAW
    again = integrate(control, x0[:50], written("again")).x1
    torch.testing.assert_close(again, integrate(plain, -x0[:50].flip(2, 3)).x1, atol=0.02, rtol=0)


def test_members_are_off_the_grids_of_families_that_exist():
    known = {family.name: family for family in families(Schedule())}
    assert set(MEMBERS.values()) == set(known)
    assert {*MEMBERS, "gain_1", "kts_0", "again", "replaced"} == set(WRITTEN["judge"]) == set(WRITTEN["test_schedules"])
    stop = known["early stop"].at(Schedule(), 0.038)
    torch.testing.assert_close(written("stop").edges, stop.edges)
    doses = {"noise": 0.07, "noise at .9": 0.07, "noise temperature": 0.07, "blend": 0.02, "constant gain": 0.07}
    for name, dose in (doses | {"late brake": 0.4, "early stop": 0.038, "fewer steps": 1 / 30 - 1 / 100}).items():
        assert min(abs(dose - coarse) for coarse in known[name].doses) > 1e-4
