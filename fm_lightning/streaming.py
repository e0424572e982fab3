"""Means under a softmax, streamed over the points in blocks: shared by kernel means and the closed-form velocity."""

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
    summed = weight = peak = torch.tensor(0.0)
    for i, (logits, rows) in enumerate(blocks):
        # The largest logit is subtracted, not the logarithm of the sum: next to logits of 1e12, as of a sharp kernel,
        # rounding loses the log 2 by which two equal points outweigh one, and the weights would not add up to 1.
        top = logits.detach().amax(1, keepdim=True).clamp_min_(torch.finfo(logits.dtype).min)  # a block may be -inf
        before, peak = peak, torch.maximum(peak, top) if i else top
        new = (logits - peak).exp() if logits.requires_grad else logits.sub_(peak).exp_()
        if i:
            fade = (before - peak).exp_()
            weight, summed = weight * fade + new.sum(1, keepdim=True), summed * fade + new @ rows
        else:
            weight, summed = new.sum(1, keepdim=True), new @ rows
    return summed / weight
