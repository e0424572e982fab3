"""Means under a softmax, streamed over the points in blocks: what kernel means and the closed-form velocity have in common."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def softmax_mean(blocks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """``sum_n softmax_n(logits) rows_n`` over all blocks, for every query.

    Args:
        blocks: at least one of logits ``[Q, n]`` (overwritten) and the rows ``[n, D]`` that they weigh, of one dtype.

    Returns:
        ``[Q, D]``; nothing waits for the device.
    """
    total = mean = None
    for logits, rows in blocks:
        part = logits.logsumexp(1, keepdim=True)
        before, total = total, part if total is None else torch.logaddexp(total, part)
        # Weights relative to the sum so far never exceed 1.
        new = logits.sub_(total).exp_() @ rows
        mean = new if mean is None else mean.mul_((before - total).exp_()).add_(new)
    assert mean is not None
    return mean
