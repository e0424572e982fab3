"""A hash changes with everything that it names, and with nothing else."""

from __future__ import annotations

import torch
from torch import nn

from fm_lightning.hashes import file_hash, tensor_hash, text_hash, weights_hash


def test_tensors_differ_by_name_type_shape_order_and_bytes():
    x = torch.arange(6.0)
    tensors = [
        [("a", x)],
        [("b", x)],
        [("a", x.double())],
        [("a", x.reshape(2, 3))],
        [("a", x + 1)],
        [("a", x), ("b", x)],
        [("b", x), ("a", x)],
        [],
    ]
    assert len({tensor_hash(some) for some in tensors}) == len(tensors)
    assert tensor_hash([("a", x)]) == tensor_hash([("a", torch.arange(12.0)[:6].clone().requires_grad_())])
    assert len(tensor_hash([("a", torch.tensor(1, dtype=torch.bfloat16)), ("b", torch.zeros(0))])) == 16


def test_buffers_of_no_checkpoint_count():
    net = nn.Linear(2, 2)
    before = weights_hash(net)
    net.register_buffer("scale", torch.ones(1), persistent=False)
    assert weights_hash(net) != before


def test_texts_and_files(tmp_path):
    assert text_hash(1, "a") != text_hash("1", "a")
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a").startswith("ba7816bf8f01cfea")
