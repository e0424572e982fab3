"""Noise that belongs to the seed: sample 4711 starts from the same noise on 1 or 64 devices, at any batch size.

Every row is drawn from its own counter-based generator (Philox, Salmon et al. 2011) whose key is
``(base_seed, seed)``; the purpose of the draw (initial noise, end noise) is the counter's highest word, so that two
purposes never share a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

INITIAL, END, HELD_OUT, INJECTED, LABEL, DIFFUSION = 0, 1, 2, 3, 4, 5  # purposes
PROBES = 16  # the signs of Hutchinson's divergence estimate
PROFILE = 17  # the loss over time


def noise(seeds: Tensor | Sequence[int], shape: Sequence[int], base_seed: int, purpose: int = INITIAL) -> Tensor:
    """Standard normal noise whose row i depends on ``seeds[i]`` and ``base_seed`` alone.

    Args:
        seeds: ``[B]`` int64; any integers.
        shape: the shape of one sample.
        base_seed: the run's seed.
        purpose: ``INITIAL`` for the noise that a trajectory starts from, ``END`` for noise added at its end,
            ``HELD_OUT`` for the validation loss (there the seed is a place in the held-out set), ``INJECTED`` for noise
            added once during sampling, ``DIFFUSION`` for that of an SDE's steps, ``PROBES`` for likelihoods,
            ``PROFILE`` for the loss over time.

    Returns:
        ``[B, *shape]`` float32 on the CPU.
    """
    # All at once: one by one, seeds on a device would make the host wait for each.
    seeds = seeds.tolist() if isinstance(seeds, torch.Tensor) else [int(s) for s in seeds]
    out = np.empty((len(seeds), int(np.prod(shape))), dtype=np.float32)
    for row, seed in zip(out, seeds):
        _generator(seed, base_seed, purpose).standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(out).reshape(len(seeds), *shape)


class NoiseStream:
    """One stream of standard normal noise per seed, drawn in order: draw i of a seed is the same in any batch.

    Args:
        seeds, shape, base_seed, purpose: as for ``noise``.
        draws: how many draws will be taken.
    """

    def __init__(
        self, seeds: Tensor | Sequence[int], shape: Sequence[int], base_seed: int, purpose: int, draws: int
    ) -> None:
        self.shape, self._left = tuple(shape), draws
        numbers = seeds.tolist() if isinstance(seeds, torch.Tensor) else [int(s) for s in seeds]
        self._generators = [_generator(seed, base_seed, purpose) for seed in numbers]
        self._ahead: list[Tensor] = []
        self._pool = ThreadPoolExecutor(1)  # draws what comes next while the network computes
        self._coming = self._pool.submit(self._next)

    def draw(self) -> Tensor:
        """The next draw, ``[B, *shape]`` float32 on the CPU."""
        if not self._ahead:
            self._ahead = self._coming.result()
            self._coming = self._pool.submit(self._next)
        return self._ahead.pop()

    def _next(self) -> list[Tensor]:
        """Several draws, the last one first: calling a generator takes as long as 200 numbers."""
        size = int(np.prod(self.shape))
        many = min(self._left, max(1, _AHEAD // max(1, size * len(self._generators))))
        out = np.empty((len(self._generators), many * size), dtype=np.float32)
        for row, generator in zip(out, self._generators):
            generator.standard_normal(out=row, dtype=np.float32)
        self._left -= many
        drawn = torch.from_numpy(out).reshape(len(out), many, *self.shape).movedim(1, 0)
        return list(drawn.unbind())[::-1]


_AHEAD = 1 << 17  # numbers


def uniform(seeds: Tensor, base_seed: int, purpose: int) -> Tensor:
    """``[B]`` float64 in [0, 1), one number for every seed, independent of the noise."""
    return torch.tensor([_generator(s, base_seed, purpose).random() for s in seeds.tolist()], dtype=torch.float64)


def _generator(seed: int, base_seed: int, purpose: int) -> np.random.Generator:
    key = np.array([base_seed & _WORD, seed & _WORD], dtype=np.uint64)
    counter = np.array([0, 0, 0, purpose], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


_WORD = (1 << 64) - 1


def step_seed(base_seed: int, step: int, purpose: str, *position: int) -> int:
    """The 64-bit seed of what one training step draws for one purpose, and at one position of its batch where it matters.

    Args:
        base_seed: the run's seed.
        step: the optimizer step.
        purpose: what is drawn, for example "bridge" or "flips"; different purposes are independent.
        position: for example the first sample of a device's share.
    """
    entropy = (base_seed & _WORD, step, *purpose.encode(), *position)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0])


def step_generator(base_seed: int, step: int, device: torch.device | str, purpose: str) -> torch.Generator:
    """A generator from ``step_seed``, the same on every rank: each draws the global batch, takes its part.

    Args:
        base_seed, step, purpose: as in ``step_seed``.
        device: where to draw; CPU and CUDA give different numbers.
    """
    return torch.Generator(device).manual_seed(step_seed(base_seed, step, purpose))


def epoch_order(base_seed: int, epoch: int, n: int) -> np.ndarray:
    """``[n]`` int64: the order in which an epoch visits n training samples."""
    return np.random.default_rng((base_seed & _WORD, epoch)).permutation(n)
