"""Rows that are equal byte for byte, found by a hash of each.

Unlike the search for near-duplicates (``distinct``), which compares all rows with all, this takes one pass over them.
"""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor

DIGEST = 16  # bytes; two different rows among a million share one with a probability of 1e-27


def row_digests(rows: Tensor, mirrored: bool = False) -> np.ndarray:
    """``[n]`` of 16 bytes each, from the stored bytes of rows ``[n, ...]``; 0 and -0 are the same number.

    Args:
        rows: ``[n, ...]``, images ``[n, C, H, W]`` if ``mirrored``.
        mirrored: an image and its mirror image get the same digest, the smaller one of the two.
    """
    if mirrored:
        both = np.stack([row_digests(rows), row_digests(rows.flip(-1))])
        words = both.view(">u8").reshape(2, len(rows), 2)  # void cannot be ordered, big-endian words can
        first, second = words
        swap = (second[:, 0] < first[:, 0]) | ((second[:, 0] == first[:, 0]) & (second[:, 1] < first[:, 1]))
        return np.where(swap, both[1], both[0])
    rows = rows.detach().cpu().contiguous()
    rows = rows + 0.0 if rows.is_floating_point() else rows
    size = rows.element_size() * (rows.numel() // max(1, len(rows)))
    stored = rows.reshape(-1).view(torch.uint8).numpy().tobytes()
    found = (blake2b(stored[i : i + size], digest_size=DIGEST).digest() for i in range(0, len(rows) * size, size))
    return np.frombuffer(b"".join(found), dtype=f"V{DIGEST}")


def first_of_equal(digests: np.ndarray) -> Tensor:
    """``[n]`` int64: for each digest the index of the first that equals it.

    Example:
        >>> first_of_equal(row_digests(torch.tensor([[1, 2], [3, 4], [1, 2], [2, 1]]))).tolist()
        [0, 1, 0, 3]
    """
    words = digests.view("u8").reshape(len(digests), 2)
    _, first, inverse = np.unique(words, axis=0, return_index=True, return_inverse=True)
    return torch.from_numpy(first[inverse.reshape(-1)])
