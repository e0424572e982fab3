"""Counts tensor operations: what a loop does besides calling the network, independent of the machine's load."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# These move no data and start no kernel.
_FREE = (
    "view",
    "_unsafe_view",
    "reshape",
    "expand",
    "split",
    "unbind",
    "detach",
    "alias",
    "slice",
    "select",
    "t",
    "permute",
)


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name not in _FREE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def operations(call: Callable[[], Any]) -> Counter[str]:
    """Operations that a call starts, by name; views are not counted."""
    with _Counting() as mode:
        call()
    return mode.counts


def per_step(loop: Callable[[int], Any]) -> Counter[str]:
    """Operations that one more step costs: ``loop(steps)`` with 12 steps, less those with 2, over 10."""
    more = operations(lambda: loop(12))
    more.subtract(operations(lambda: loop(2)))
    return Counter({name: count // 10 for name, count in more.items() if count // 10})
