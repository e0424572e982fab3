"""Shelf: weights that stay in memory between batches, so that small networks are not read again for every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from torch import Tensor

HELD_BYTES = 1 << 30  # of all weights on a shelf; larger networks are read for every batch

T = TypeVar("T")


class Shelf(Generic[T]):
    """Keeps what was used last, up to ``HELD_BYTES``.

    Args:
        tensors: a thing's tensors, by whose bytes it counts.
    """

    def __init__(self, tensors: Callable[[T], Mapping[str, Tensor]]) -> None:
        self._tensors = tensors
        self._held: dict[str, T] = {}  # least recently used first

    def get(self, name: str, load: Callable[[], T]) -> T:
        """The thing of that name, loaded where it is not held."""
        found = self._held.pop(name) if name in self._held else load()
        self._held[name] = found
        while sum(x.nbytes for held in self._held.values() for x in self._tensors(held).values()) > HELD_BYTES:
            del self._held[next(iter(self._held))]
        return found
