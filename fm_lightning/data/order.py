"""The order in which rows are served: the source's own if it is random, else a fixed random order, stratified by class.

Subsets, slices and floors take a stretch of rows. Of sorted rows that would be one class; in one of the orders below it
is a fair draw, and the first n are among the first n + 1.
"""

from __future__ import annotations

import numpy as np

CHANCE = 5.0  # standard deviations: more than 41 random columns of 200,000 rows reach


def fixed_order(n: int) -> np.ndarray:
    """Returns ``[n]`` int64, a random permutation that never changes: no run's seed changes the training set."""
    # Raw PCG64 words: NumPy guarantees this stream, but not that of Generator.permutation.
    return np.random.PCG64(0).random_raw(n).argsort(kind="stable")


def stratified_order(labels: np.ndarray | None, n: int) -> np.ndarray:
    """Returns ``[n]`` int64, a fixed random permutation any stretch of which holds the classes by their shares.

    The j-th of c rows of a class is placed at the fraction ``(j + 1/2) / c``, so that the rows of a class in a stretch
    differ from its share by less than one.

    Args:
        labels: ``[n]`` integers; None if no classes are known.
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
    ties = np.random.PCG64(1).random_raw(n)  # classes of equal size have equal places: break ties at random
    return order[np.lexsort((ties, (rank + 0.5) / counts[drawn]))]


def in_random_order(labels: np.ndarray) -> bool:
    """Whether the order of rows with these labels ``[n]`` could be random.

    It is not if each class is one run, or if there are fewer runs of equal labels than in a random permutation by more
    than five standard deviations (the runs test for several classes; Wald & Wolfowitz 1940, Mood 1940). Alternating classes
    count as random, and so do labels that hardly repeat (names, row numbers).
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
