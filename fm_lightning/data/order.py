"""The order in which rows are served: the source's own where it is random, else a fixed random one, class by class alike.

Subsets, slices and floors take the first rows, or a stretch of them. Of sorted rows that would be one class; of rows in
one of the orders below it is a fair draw, and the first n are among the first n + 1.
"""

from __future__ import annotations

import numpy as np

CHANCE = 5.0  # standard deviations: what 41 random columns of 200 000 rows do not reach


def fixed_order(n: int) -> np.ndarray:
    """``[n]`` int64, one random permutation for ever: no run's seed changes who is trained on."""
    # Raw PCG64 words: numpy promises this stream for ever, but not Generator.permutation's.
    return np.random.PCG64(0).random_raw(n).argsort(kind="stable")


def stratified_order(labels: np.ndarray | None, n: int) -> np.ndarray:
    """``[n]`` int64, a fixed random permutation any stretch of which holds the classes by their shares.

    The j-th of a class of c rows stands at ``(j + 1/2) / c`` of the way, so that a stretch has a class's share of rows to
    within one.

    Args:
        labels: ``[n]`` integers; None: no classes are known.
        n: number of rows.
    """
    order = fixed_order(n)
    if labels is None:
        return order
    drawn = np.unique(labels, return_inverse=True)[1][order]
    counts = np.bincount(drawn)
    by_class = drawn.argsort(kind="stable")
    rank = np.empty(n, dtype=np.int64)  # within the class
    rank[by_class] = np.arange(n) - (counts.cumsum() - counts)[drawn[by_class]]
    ties = np.random.PCG64(1).random_raw(n)  # equal classes stand at equal places: in random turns
    return order[np.lexsort((ties, (rank + 0.5) / counts[drawn]))]


def in_random_order(labels: np.ndarray) -> bool:
    """Whether rows with these labels ``[n]`` stand in an order that chance could have made.

    No, if each class stands in one run, or if there are fewer runs of equal labels than a random permutation has by more
    than five standard deviations (the runs test for several classes; Wald & Wolfowitz 1940, Mood 1940). Taking turns is
    no order that matters. Labels that hardly repeat (names, numbers of rows) say nothing: yes.
    """
    n = len(labels)
    counts = np.unique(labels, return_counts=True)[1].astype(np.float64)
    if len(counts) < 2 or n < 2 * len(counts):
        return True
    runs = 1 + int((labels[1:] != labels[:-1]).sum())
    if runs == len(counts):
        return False
    squares, cubes = float((counts**2).sum()), float((counts**3).sum())
    expected = n + 1 - squares / n
    variance = (squares * (squares + n * (n + 1)) - 2 * n * cubes - n**3) / (n**2 * (n - 1))
    return expected - runs <= CHANCE * max(variance, 0.0) ** 0.5
