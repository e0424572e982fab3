"""What loaders serve: each sample and each seed exactly once, the same for any number of devices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fm_lightning.data.batches import PADDING, HeldOutBatches, SeedBatches, Share, TrainingBatches
from fm_lightning.errors import UserError

sizes = st.integers(1, 40)
worlds = st.integers(1, 5)


def training(n, total, world=1, rank=0, accumulate=1, first=0, steps=12, seed=0):
    return TrainingBatches(
        fetch=lambda index: (index, None),
        n=n,
        total=total,
        accumulate=accumulate,
        share=Share(rank, world),
        base_seed=seed,
        first_step=lambda: first,
        steps=steps,
    )


def global_batches(n, total, world, accumulate, **kwargs):
    """step -> the step's samples in their places, put together from all ranks."""
    out = {}
    for rank in range(world):
        for batch in training(n, total, world, rank, accumulate, **kwargs):
            whole = out.setdefault(batch.step, torch.full((total,), -1))
            place = slice(batch.offset, batch.offset + len(batch.x))
            assert (whole[place] == -1).all(), "two ranks took the same place"
            assert batch.total == total
            whole[place] = batch.x
    return out


@given(n=sizes, each=st.integers(1, 4), world=st.integers(1, 4), accumulate=st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_global_batches_do_not_depend_on_devices_and_accumulation(n, each, world, accumulate):
    total = each * world * accumulate
    one = global_batches(n, total, 1, 1)
    many = global_batches(n, total, world, accumulate)
    assert one.keys() == many.keys() == set(range(12))
    for step in one:
        assert torch.equal(one[step], many[step])


@given(n=sizes, total=st.integers(1, 60), seed=st.integers(-5, 5))
@settings(max_examples=40, deadline=None)
def test_each_pass_has_each_sample_once_also_where_a_batch_is_larger_than_the_data(n, total, seed):
    steps = 2 * n // total + 2
    stream = torch.cat([batch.x for batch in training(n, total, steps=steps, seed=seed)])
    for e in range(len(stream) // n):
        assert stream[e * n : (e + 1) * n].sort().values.tolist() == list(range(n))


def test_passes_and_seeds_differ():
    first, second, other = (
        torch.cat([b.x for b in training(50, 50, steps=2, seed=seed)]).split(50)[part]
        for seed, part in ((0, 0), (0, 1), (1, 0))
    )
    assert not torch.equal(first, second)
    assert not torch.equal(first, other)


@given(n=sizes, each=st.integers(1, 3), world=st.integers(1, 3), accumulate=st.integers(1, 3), first=st.integers(0, 25))
@settings(max_examples=40, deadline=None)
def test_a_resumed_run_goes_on_where_it_stopped(n, each, world, accumulate, first):
    total = each * world * accumulate
    whole = global_batches(n, total, world, accumulate, steps=30)
    rest = global_batches(n, total, world, accumulate, first=first, steps=30)
    assert rest.keys() == set(range(first, 30))
    assert all(torch.equal(rest[step], whole[step]) for step in rest)


def test_the_next_epoch_begins_after_the_last_step():
    assert [b.step for b in training(10, 5, first=30, steps=3)] == [30, 31, 32]


@pytest.mark.parametrize(("total", "world", "accumulate", "remedy"), [(10, 4, 1, 12), (10, 2, 2, 12), (3, 2, 1, 4)])
def test_a_batch_that_cannot_be_shared_is_refused(total, world, accumulate, remedy):
    with pytest.raises(UserError, match=f"Use batch_size={remedy}$"):
        training(100, total, world=world, accumulate=accumulate)


@given(n=sizes, batch=st.integers(1, 12), world=worlds, first=st.sampled_from([0, 10_000_000]))
@settings(max_examples=60, deadline=None)
def test_each_seed_once_and_equally_many_batches(n, batch, world, first):
    ranks = [list(SeedBatches(first, n, batch, Share(rank, world))) for rank in range(world)]
    assert {len(r) for r in ranks} == {len(SeedBatches(first, n, batch, Share(0, world)))}
    seeds = []
    for r in ranks:
        for served in r:
            assert served.seeds.shape == (batch,)
            assert (served.seeds[served.valid :] == PADDING).all()
            assert (served.seeds[: served.valid] != PADDING).all()
            seeds += served.seeds[: served.valid].tolist()
    assert sorted(seeds) == list(range(first, first + n))


@given(n=sizes, batch=st.integers(1, 12), world=worlds)
@settings(max_examples=60, deadline=None)
def test_each_held_out_sample_once_and_equally_many_batches(n, batch, world):
    data = torch.arange(n) * 10
    ranks = [
        list(HeldOutBatches(lambda index: (data[index], None), n, batch, Share(rank, world))) for rank in range(world)
    ]
    assert {len(r) for r in ranks} == {len(HeldOutBatches(lambda i: (i, None), n, batch, Share(0, world)))}
    positions = []
    for r in ranks:
        for served in r:
            assert len(served.x) == len(served.positions) == batch
            assert torch.equal(served.x, served.positions * 10)
            positions += served.positions[: served.valid].tolist()
    assert sorted(positions) == list(range(n))


def test_a_rank_may_have_padding_only():
    served = list(SeedBatches(0, 3, 4, Share(1, 2)))
    assert [batch.valid for batch in served] == [0]
    assert (served[0].seeds == PADDING).all()
