"""What one more schedule's FID costs: ours beside torchmetrics' ``compute``, on the same sums, in one run.

    python benchmarks/frechet.py [--rounds 5] [--features 2048] [--json FILE]

torchmetrics takes the eigenvalues of a general matrix, a minute on two cores; so it runs once, between two halves of our
rounds. Ours is timed from the moments on, as theirs is, with the reference's root taken before; that root's own time, and
those of the steps which only we have (moments from kept features, the paired interval), stand beside it.
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
    parser.add_argument("--rounds", type=int, default=5, help="of ours, in each half")
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
    halves = [[timed(lambda: reference.distance(mean, cov)) for _ in range(arguments.rounds)]]
    theirs, value = timed(peer.compute)
    halves.append([timed(lambda: reference.distance(mean, cov)) for _ in range(arguments.rounds)])
    interval, _ = timed(lambda: reference.influence(fake, (mean, cov)))
    seconds = [s for half in halves for s, _ in half]
    ours = halves[0][0][1]
    found = {
        "features": arguments.features,
        "samples": SAMPLES,
        "torchmetrics_s": theirs,
        "ours_min_s": min(seconds),
        "ours_median_s": statistics.median(seconds),
        "ours_max_s": max(seconds),
        "share": statistics.median(seconds) / theirs,
        "relative_difference": abs(ours - float(value)) / abs(float(value)),
        "value": ours,
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
