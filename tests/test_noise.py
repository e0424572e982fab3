"""Noise belongs to the seed: any batching, splitting or order gives the same rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.noise import DIFFUSION, END, INITIAL, NoiseStream, epoch_order, noise, step_seed

any_seed = st.integers(-(2**63), 2**63 - 1)


@settings(max_examples=100, deadline=None)
@given(
    seeds=st.lists(any_seed, min_size=1, max_size=12),
    base=st.integers(-(2**31), 2**63 - 1),
    shape=st.sampled_from([(1,), (5,), (3, 4, 4), (1, 7)]),
    data=st.data(),
)
def test_any_batching_gives_the_same_rows(seeds, base, shape, data):
    whole = noise(seeds, shape, base)
    assert whole.shape == (len(seeds), *shape)
    assert whole.dtype == torch.float32
    order = data.draw(st.permutations(range(len(seeds))))
    assert torch.equal(noise([seeds[i] for i in order], shape, base), whole[list(order)])
    cut = data.draw(st.integers(0, len(seeds)))
    assert torch.equal(torch.cat([noise(seeds[:cut], shape, base), noise(seeds[cut:], shape, base)]), whole)
    assert torch.equal(noise(torch.tensor(seeds), shape, base), whole)


def test_global_random_state_is_neither_read_nor_changed():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    before = noise([1, 2], (3,), 5)
    state, np_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    torch.rand(7)
    assert torch.equal(noise([1, 2], (3,), 5), before)
    torch.manual_seed(0)
    noise([1, 2], (3,), 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == np_state).all()  # noqa: NPY002


def test_it_is_standard_normal():
    z = noise(range(2000), (50,), 0).double()
    n = z.numel()
    assert abs(float(z.mean())) < 4.5 / math.sqrt(n)
    assert float(z.var()) == pytest.approx(1, abs=4.5 * math.sqrt(2 / n))
    assert float((z**4).mean()) == pytest.approx(3, abs=4.5 * math.sqrt(96 / n))
    assert float((z.abs() > 3).double().mean()) == pytest.approx(0.0026998, abs=6e-4)
    # every row is a sample of its own, and every column too
    assert float(z.mean(1).var()) * 50 == pytest.approx(1, abs=0.2)
    assert float(z.mean(0).var()) * 2000 == pytest.approx(1, abs=0.9)


PAIRS = {
    "next seed": (noise(range(400), (64,), 0), noise(range(1, 401), (64,), 0)),
    "next base seed": (noise(range(400), (64,), 0), noise(range(400), (64,), 1)),
    "seed and base seed exchanged": (noise([1] * 400, (64,), 2)[:1], noise([2], (64,), 1)),
    "other sign": (noise(range(1, 401), (64,), 0), noise([-s for s in range(1, 401)], (64,), 0)),
    "other purpose": (noise(range(400), (64,), 0, INITIAL), noise(range(400), (64,), 0, END)),
    "seed beyond 32 bits": (noise(range(400), (64,), 0), noise([s + 2**32 for s in range(400)], (64,), 0)),
    "base seed beyond 32 bits": (noise(range(400), (64,), 0), noise(range(400), (64,), 2**32)),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_what_differs_is_uncorrelated(pair):
    a, b = PAIRS[pair]
    n = a.numel()
    assert abs(float((a.double() * b.double()).mean())) < 5 / math.sqrt(n)
    assert not (a == b).all(1).any()
    # and not a shifted copy of the same stream
    for shift in range(1, 9):
        assert abs(float((a[:, shift:].double() * b[:, :-shift].double()).mean())) < 5.5 / math.sqrt(n * 0.85)


def test_rows_of_neighbouring_seeds_share_no_number():
    z = noise(range(300), (30,), 7).flatten()
    assert len(z.unique()) > 0.999 * len(z)


def test_the_batch_may_be_empty():
    assert noise([], (3, 4), 0).shape == (0, 3, 4)


def test_data_exports_the_same_function():
    data = pytest.importorskip("fm_lightning.data")
    assert torch.equal(data.noise([3, -1], (4,), 9), noise([3, -1], (4,), 9))


def test_every_base_seed_purpose_and_position_has_its_own_stream():
    seeds = [
        step_seed(b, s, p, *at)
        for b in (-1, 0, 1)
        for s in (0, 7)
        for p in ("bridge", "network")
        for at in ((), (0,), (16,))
    ]
    assert len(set(seeds)) == len(seeds)
    orders = [tuple(epoch_order(b, e, 50)) for b in (-1, 1, 2) for e in (0, 1)]
    assert len(set(orders)) == len(orders), "a seed below 0 is not its absolute value"
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_a_stream_is_the_same_in_any_batch_and_however_many_draws_are_made_at_once():
    many = NoiseStream(range(3000), (7, 10), 4, DIFFUSION, 9)  # 210,000 numbers a draw: one at a time
    few = NoiseStream(torch.tensor([2, 2999, 5]), (7, 10), 4, DIFFUSION, 5)  # all at once
    one = NoiseStream([5], (7, 10), 4, DIFFUSION, 1)
    first = None
    for _ in range(5):
        drawn = many.draw()
        assert drawn.shape == (3000, 7, 10)
        assert torch.equal(drawn[[2, 2999, 5]], few.draw())
        assert first is None or not torch.equal(drawn, first)
        first = drawn if first is None else first
    assert torch.equal(first[5:6], one.draw())
    assert torch.equal(first[5:6], noise([5], (7, 10), 4, DIFFUSION))
    assert NoiseStream([], (7,), 4, DIFFUSION, 2).draw().shape == (0, 7)
