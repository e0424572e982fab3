"""Samples work without Lightning, and count what training and the other splits have in common."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fm_lightning.comparison.plan import SamplingPlan
from fm_lightning.data import Samples, Split
from fm_lightning.data.copies import Copies, count_copies
from fm_lightning.errors import UserError
from fm_lightning.flow import KTS, Schedule


def test_samples_need_no_lightning():
    code = """
import sys, torch
from fm_lightning.comparison.plan import SamplingPlan
from fm_lightning.data import Samples, Split

class Points(Samples):
    shape = (2,)
    def load(self):
        self.train_split, self.held_out_split, self.real_split = (Split(torch.randn(n, 2)) for n in (5, 6, 7))

data = Points()
data.prepare()
assert data.reference().shape == (5, 2) and data.fingerprint and not data.has_pixels
assert "lightning" not in sys.modules, "Lightning was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


class Given(Samples):
    shape = (3,)

    def __init__(self, train, held_out, real):
        super().__init__()
        self.splits = [Split(x) for x in (train, held_out, real)]

    def load(self):
        self.train_split, self.held_out_split, self.real_split = self.splits


def prepared(*splits):
    data = Given(*splits)
    data.prepare()
    return data


@pytest.fixture
def x():
    return torch.randn(40, 3, generator=torch.Generator().manual_seed(0))


def test_copies_are_counted_in_one_line(x, capsys):
    data = prepared(torch.cat([x[:10], x[:2]]), torch.cat([x[8:12], x[10:11]]), x[7:20].clone())
    assert data.copies == Copies(train=2, held_out=1, held_out_in_train=2, real_in_train=3)
    assert data.real_seen_in_training == 3 / 13
    assert capsys.readouterr().out == (
        "Copies, byte for byte: 2 of 12 training samples repeat others; 1 of 5 held-out samples repeat others; "
        "2 of 5 held-out samples are training samples; 3 of 13 real samples are training samples.\n"
    )
    prepared(x[:10], x[10:20], x[20:])
    assert not capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64, torch.bool])
def test_copies_of_any_type_and_size(dtype):
    x = torch.randint(0, 200, (6, 300), generator=torch.Generator().manual_seed(0)).to(dtype)
    near = x[:2].clone()
    near[:, 0] = ~near[:, 0] if dtype == torch.bool else 201  # equal in the bytes that are compared first
    copies, seen = count_copies(x, torch.cat([x[:1], near]), x[3:].t().contiguous().t())
    assert copies == Copies(held_out_in_train=1, real_in_train=3)
    assert seen.all()
    copies, seen = count_copies(x[:2], x.int()[:2] + 1, x)
    assert copies.real_in_train == 2
    assert seen.tolist() == [True, True, False, False, False, False]


def test_verdicts_compare_with_what_training_did_not_see():
    x = torch.randn(400, 3, generator=torch.Generator().manual_seed(0))

    def reference(train, held_out, real):
        held_out, rows, seen = prepared(train, held_out, real).verdict_reference
        return held_out, None if rows is None else rows.tolist(), seen

    assert reference(x[:50], x[50:60], x[60:]) == (False, None, 0.0)
    # The training images among the real ones are left out, ...
    assert reference(x[:50], x[380:], x[:380]) == (False, list(range(50, 380)), 0.0)
    # ... and where they are most of the real ones, held-out images take their place, if there are 100.
    assert reference(x[:200], x[300:], x[:210]) == (True, None, 0.0)
    assert reference(x[:200], x[301:], x[:210]) == (False, None, 200 / 210)
    assert reference(x[:200], x[301:], x[:300]) == (False, list(range(200, 300)), 0.0)
    assert reference(x[:200], x[100:200].clone(), x[:200]) == (False, None, 1.0), (
        "held-out images that are no such thing"
    )


@pytest.mark.parametrize("array", [torch.Tensor.double, torch.Tensor.numpy, lambda x: x.double().numpy()])
def test_a_reference_of_training_samples_is_refused_unless_it_is_the_training_split(x, array):
    whole = array(x)
    on_purpose = prepared(whole[:30], array(x[30:] + 1), whole)
    on_purpose.check_reference()
    assert on_purpose.real_seen_in_training == 0.75
    with pytest.raises(UserError, match="30 of 40 real samples are training samples"):
        prepared(array(x[:30]), array(x[30:] + 1), array(x.clone())).check_reference()
    prepared(array(x[:10]), array(x[10:20]), array(x.clone())).check_reference()


def test_only_verdicts_need_such_a_reference(x):
    schedules = {"base": Schedule(), "kts": Schedule(gain=KTS())}
    copies = prepared(x[:30], x[30:] + 1, x[5:30].clone())
    with pytest.raises(UserError, match="25 of 25 real samples"):
        SamplingPlan(lambda x, t, y: x, None, schedules, None, None, False).check_data(copies)
    SamplingPlan(lambda x, t, y: x, None, schedules, [], None, False).check_data(copies)
