"""Rows of several tensors are indexed as their concatenation is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fm_lightning.data.latents.rows import Rows
from fm_lightning.metrics import nearest
from fm_lightning.metrics.neighbours.reference import Reference

sizes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def rows(sizes, dtype=torch.float16):
    whole = torch.arange(sum(sizes) * 6).reshape(-1, 2, 3).to(dtype)
    return whole, Rows(whole.split(sizes))


@given(sizes, st.data())
def test_slices_and_indices(sizes, data):
    whole, divided = rows(sizes)
    n = len(whole)
    assert (len(divided), divided.shape, divided.dtype) == (n, tuple(whole.shape), whole.dtype)
    ends = st.none() | st.integers(-n - 2, n + 2)
    cut = slice(data.draw(ends), data.draw(ends), data.draw(st.none() | st.integers(1, 3)))
    assert torch.equal(divided[cut], whole[cut])
    index = torch.tensor(data.draw(st.lists(st.integers(-n, n - 1), max_size=9)), dtype=torch.int64)
    assert torch.equal(divided[index], whole[index])
    assert torch.equal(divided[index.numpy()], whole[index])


@given(sizes, st.data())
def test_parts_and_sums_read_nothing(sizes, data):
    whole, divided = rows(sizes)
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    part = divided.part(start, stop)
    assert torch.equal(part[:], whole[start:stop])
    assert {t.untyped_storage().data_ptr() for t in part.tensors} <= {whole.untyped_storage().data_ptr()}
    assert torch.equal((part + divided)[:], torch.cat([whole[start:stop], whole]))


def test_beyond_the_end():
    _, divided = rows([2, 3])
    for index in ([5], [-6]):
        with pytest.raises(IndexError, match="of 5"):
            divided[torch.tensor(index)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_neighbours_are_searched_in_them(dtype):
    whole = torch.randn(23, 4, 2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    queries = torch.randn(7, 4, 2, 3, generator=torch.Generator().manual_seed(1))
    reference = Reference(Rows(whole.split([9, 1, 13])), encode=lambda x: (x.float() - 3) * 2)
    distances, indices = nearest(queries, reference, 3)
    every = torch.cdist(queries.double().flatten(1), ((whole.float() - 3) * 2).double().flatten(1))
    expected = every.sort(1)
    assert torch.equal(indices, expected.indices[:, :3])
    np.testing.assert_allclose(distances, expected.values[:, :3], rtol=1e-6)
    assert torch.equal(reference.take(torch.tensor([20, 3])), (whole[[20, 3]].float() - 3) * 2)
