"""The Fréchet distance of one more schedule, beside torchmetrics' ``compute`` on the same 2 048 features.

The reference's root is taken once and is not part of a further schedule's cost; both sides have their moments already.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from benchmarks.timing import Times, arguments, clocked, finish, ratio, target
from fm_lightning.metrics import GaussianReference, moments

SHARE = 0.1


class Features(nn.Module):
    """Hands features through where torchmetrics expects a network."""

    num_features = 2048

    def forward(self, x: Tensor) -> Tensor:
        return x


def main() -> None:
    parser = arguments(__doc__)
    given = parser.parse_args()
    torch.set_num_threads(max(2, given.threads))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 64 if given.smoke else 2048
    generator = torch.Generator().manual_seed(0)
    real, fake = (
        torch.rand(2 * size, size, generator=generator) @ torch.randn(size, size, generator=generator) for _ in "ab"
    )
    Features.num_features = size
    peer = FrechetInceptionDistance(feature=Features()).to(device)
    peer.update(real.to(device), real=True)
    peer.update(fake.to(device), real=False)
    (mean, cov), (real_mean, real_cov) = ([m.to(device) for m in moments(x)] for x in (fake, real))
    reference = GaussianReference(real_mean, real_cov)
    ours_value = reference.distance(mean, cov)
    found: list[Tensor] = []
    theirs, ours = Times([], []), Times([], [])
    for times, call, rounds in (
        (ours, lambda: reference.distance(mean, cov), 2),
        (theirs, lambda: found.append(peer.compute()), 1),  # about a minute on two cores
        (ours, lambda: reference.distance(mean, cov), 2),
    ):
        for _ in range(rounds):
            wall, processor = clocked(call)
            times.wall.append(wall)
            times.cpu.append(processor)
    difference = abs(ours_value - float(found[0])) / float(found[0])
    row = {"what": "one more schedule", "features": size, "relative_difference": difference, "distance": ours_value}
    speed = ratio(ours, theirs)
    row |= speed | {"ours": ours.summary, "torchmetrics": theirs.summary}
    print(
        f"{size} features: ours {ours.best:.2f} s, torchmetrics {theirs.best:.2f} s, difference {difference:.1e}",
        flush=True,
    )
    targets = [
        target("2 048 features: one more schedule over torchmetrics' compute", speed["ratio"], SHARE),
        target("2 048 features: relative difference from torchmetrics", difference, 1e-6),
    ]
    finish("frechet", [row], targets, given.json)


if __name__ == "__main__":
    main()
