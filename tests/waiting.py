"""Finds where the host would wait for a GPU, on a machine that has none.

Tensors are torch's fake ones, which know their device, here "cuda", and hold no numbers; every operation is looked at.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Their result decides a shape or a branch on the host.
ASKING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique", "_unique2", "unique_dim"}


class _Watch(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        on_gpu = any(x.is_cuda for x in given)
        if on_gpu and name in ASKING:
            self.waits[name] += 1
        if name == "_local_scalar_dense":
            return 1  # for any question: "all finite", say
        if on_gpu and name in ("index", "index_put", "index_put_") and any(x.dtype == torch.bool for x in given[1:]):
            self.waits["index by a mask"] += 1
        found = func(*args, **kwargs)
        # A copy between host and device waits, in either direction, unless told not to.
        moved = {"_to_copy": (given[:1], found), "copy_": (given[1:], given and given[0])}.get(name)
        told = kwargs.get("non_blocking") or any(value is True for value in args[2:])
        if moved and moved[0] and moved[0][0].device.type != moved[1].device.type and not told:
            self.waits[f"copy to {moved[1].device.type}"] += 1
        return found


@contextmanager
def waits() -> Iterator[Counter[str]]:
    """What waits in the block, by name; device="cuda" may be used in it."""
    watch = _Watch()
    with warnings.catch_warnings(), FakeTensorMode(allow_non_fake_inputs=True), watch:
        warnings.simplefilter("ignore", UserWarning)  # of fake tensors without memory
        yield watch.waits
