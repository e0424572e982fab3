"""Single bits flipped at random places of a file, as a disk or a copy may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np


def flipped(path: Path, count: int = 24, seed: int = 0) -> Iterator[int]:
    """Flips one bit of the file at a time and restores it afterwards; yields the place of the byte."""
    whole = path.read_bytes()
    rng = np.random.default_rng(seed)
    try:
        for bit in rng.choice(8 * len(whole), size=min(count, 8 * len(whole)), replace=False):
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << int(bit % 8)
            path.write_bytes(changed)
            yield int(bit // 8)
    finally:
        path.write_bytes(whole)
