"""Means under a softmax, streamed over the points in blocks: what kernel means and the closed-form velocity have in common."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def softmax_mean(blocks: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """``sum_n softmax_n(logits) rows_n`` over all blocks, for every query.

    Args:
        blocks: at least one of logits ``[Q, n]`` (overwritten, unless they carry a gradient) and the rows ``[n, D]`` that they
            weigh, of one dtype.

    Returns:
        ``[Q, D]``; nothing waits for the device.
    """
    mean = total = torch.tensor(0.0)
    for i, (logits, rows) in enumerate(blocks):
        part = logits.logsumexp(1, keepdim=True)
        before, total = total, torch.logaddexp(total, part) if i else part
        # Weights relative to the sum so far never exceed 1.
        if logits.requires_grad:
            new = (logits - total).exp() @ rows
            mean = mean * (before - total).exp() + new if i else new
        else:
            new = logits.sub_(total).exp_() @ rows
            mean = mean.mul_((before - total).exp_()).add_(new) if i else new
    return mean
