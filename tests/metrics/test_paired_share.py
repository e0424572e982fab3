"""Paired change of a share: its value, and what its interval covers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fm_lightning.errors import UserError
from fm_lightning.metrics import paired_share_change, wilson


def draw(n, gain, lose, both, rng):
    """before, after: each seed gains, loses, keeps or lacks the property."""
    kind = rng.choice(4, size=n, p=[gain, lose, both, 1 - gain - lose - both])
    return torch.from_numpy((kind == 1) | (kind == 2)), torch.from_numpy((kind == 0) | (kind == 2))


@pytest.mark.parametrize(
    ("gain", "lose", "both"), [(0.02, 0.08, 0.5), (0.1, 0.1, 0.3), (0.0, 0.3, 0.4), (0.01, 0.01, 0.9)]
)
@pytest.mark.parametrize("n", [50, 400])
def test_the_interval_covers_the_true_change(n, gain, lose, both):
    rng = np.random.default_rng(n)
    hits = []
    for _ in range(600):
        before, after = draw(n, gain, lose, both, rng)
        change = paired_share_change(after, before)
        assert change.value == pytest.approx(float(after.double().mean() - before.double().mean()), abs=1e-12)
        assert change.low <= change.value <= change.high
        hits.append(change.low <= gain - lose <= change.high)
    assert np.mean(hits) >= 0.92


def test_only_discordant_seeds_speak():
    """The same four counts in any order, and narrower than an unpaired interval where schedules agree."""
    before = torch.tensor([True] * 60 + [False] * 40)
    after = before.clone()
    after[:10] = False
    change = paired_share_change(after, before)
    assert change.value == pytest.approx(-0.1)
    assert change.high < 0
    low, high = wilson(50, 100)
    assert change.high - change.low < high - low
    order = torch.from_numpy(np.random.default_rng(0).permutation(100))
    assert paired_share_change(after[order], before[order]) == change


def test_exchange_changes_the_sign():
    before, after = draw(200, 0.1, 0.03, 0.4, np.random.default_rng(0))
    there, back = paired_share_change(after, before), paired_share_change(before, after)
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low), abs=1e-12)


def test_unlike_lengths_are_refused():
    with pytest.raises(UserError):
        paired_share_change(torch.ones(3, dtype=torch.bool), torch.ones(4, dtype=torch.bool))
