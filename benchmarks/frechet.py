"""What one more schedule's FID costs: ours beside torchmetrics' ``compute``, in turns, in one run.

    python benchmarks/frechet.py [--rounds 3] [--features 2048] [--json FILE]      # OMP_NUM_THREADS=1 on a busy machine

Both start from the moments; ours has the reference's root from before. That root's own time, and those of the steps which
only we have (moments from kept features, the paired interval), stand beside it. Judged is the ratio of the minima.

Two threads of a BLAS that share their cores with other work wait for each other at every step of an eigenproblem: both
sides then take many times longer, and the general matrix of torchmetrics suffers most.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from fm_lightning.metrics import GaussianReference, moments

SAMPLES = 5000


class Given(nn.Module):
    """An extractor for torchmetrics whose images are the features."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, x: Tensor) -> Tensor:
        return x


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    found = call()
    return time.perf_counter() - begin, found


def inception_like(n: int, d: int, scale: float, generator: torch.Generator) -> Tensor:
    """``[n, D]`` float32: non-negative, correlated, with a spectrum that falls like a power, as Inception's does."""
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(1)) / d**0.5
    spectrum = torch.arange(1, d + 1) ** -0.5
    return (0.4 + scale * (torch.randn(n, d, generator=generator) * spectrum) @ mix).relu()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--features", type=int, default=2048)
    parser.add_argument("--json", help="also write the numbers here")
    arguments = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    real, fake = (inception_like(SAMPLES, arguments.features, scale, generator) for scale in (5.0, 6.0))

    peer = FrechetInceptionDistance(Given(arguments.features)).set_dtype(torch.float64)
    peer.update(real, real=True)
    peer.update(fake, real=False)
    # The features' own type would round the peer's answer to seven digits.
    peer.orig_dtype = torch.float64

    root, reference = timed(lambda: GaussianReference(*moments(real)))
    taken, (mean, cov) = timed(lambda: moments(fake))
    reference.distance(mean, cov)  # warm-up
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        second, value = timed(lambda: reference.distance(mean, cov))
        ours.append(second)
        peer._computed = None  # torchmetrics would remember its answer
        second, peers = timed(peer.compute)
        theirs.append(second)
    interval, _ = timed(lambda: reference.influence(fake, (mean, cov)))
    found = {
        "features": arguments.features,
        "samples": SAMPLES,
        "rounds": arguments.rounds,
        "torchmetrics_min_s": min(theirs),
        "torchmetrics_median_s": statistics.median(theirs),
        "ours_min_s": min(ours),
        "ours_median_s": statistics.median(ours),
        "ratio_of_minima": min(ours) / min(theirs),
        "relative_difference": abs(value - float(peers)) / abs(float(peers)),
        "value": value,
        "reference_root_once_s": root,
        "moments_s": taken,
        "interval_s": interval,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "processor": platform.processor() or platform.machine(),
    }
    for name, number in found.items():
        print(f"{name:24} {number:.4g}" if isinstance(number, float) else f"{name:24} {number}")
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
