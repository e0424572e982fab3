"""SiT-S/2 compared with diffusers' DiT of the same size: forward and training step on a CPU.

    python -m benchmarks.sit [--rounds 20] [--batch 2] [--smoke] [--json FILE]

The two are one function of the latents but for the time's frequencies; diffusers embeds time and class in every block.
Training: loss, backward, AdamW. Judged are the minima of alternating calls in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import alternate, arguments, finish, ratio, target
from fm_lightning.nets import SiT

BOUND = 1.05  # of diffusers' time
CLASSES = 1000


def networks(smoke: bool) -> dict[str, nn.Module]:
    """Ours and theirs, S/2 on 4x32x32 latents."""
    from diffusers import DiTTransformer2DModel  # a second to import

    torch.manual_seed(0)
    ours = SiT((4, 32, 32), "S/2", depth=2 if smoke else None)
    with torch.no_grad():
        for parameter in ours.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    depth, heads = len(ours.blocks), 6
    theirs: Any = DiTTransformer2DModel(heads, 384 // heads, num_layers=depth, sample_size=32, patch_size=2)
    return {"SiT": ours, "diffusers": theirs}


def forward(nets: Mapping[str, nn.Module], x: Tensor, t: Tensor, y: Tensor) -> dict[str, Callable[[], Any]]:
    """One evaluation as in sampling: one time for all."""

    def call(net: nn.Module) -> Callable[[], Any]:
        net.eval()

        @torch.no_grad()
        def run() -> None:
            net(x, t, y)

        return run

    return {name: call(net) for name, net in nets.items()}


def training(nets: Mapping[str, nn.Module], x: Tensor, t: Tensor, y: Tensor) -> dict[str, Callable[[], Any]]:
    """One optimizer step each."""

    def call(net: nn.Module) -> Callable[[], Any]:
        optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-6, fused=True)
        net.train()

        def run() -> None:
            out = net(x, t, y)
            loss = (out if isinstance(out, Tensor) else out.sample).square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return run

    return {name: call(net) for name, net in nets.items()}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--batch", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    nets = networks(given.smoke)
    rounds = 3 if given.smoke else given.rounds
    x, y = torch.randn(given.batch, 4, 32, 32), torch.arange(given.batch) % CLASSES
    table, targets = [], []
    for what, calls in {
        "forward": forward(nets, x, torch.full((1,), 0.3).expand(given.batch), y),
        "training step": training(nets, x, torch.rand(given.batch), y),
    }.items():
        times = alternate(calls, rounds)
        row = {"what": what, "batch": given.batch, **ratio(times["SiT"], times["diffusers"])}
        table.append(row | {name: t.summary for name, t in times.items()})
        print(
            f"{what}, batch {given.batch}: SiT {times['SiT'].best:.3f} s, diffusers {times['diffusers'].best:.3f} s, ratio "
            f"{row['ratio']:.3f} (processor time {row['cpu_ratio']:.3f}, median of rounds {row['median_ratio']:.3f})",
            flush=True,
        )
        targets.append(target(f"SiT-S/2 {what}: time over diffusers' DiT", row["ratio"], BOUND))
    finish("sit", table, targets, given.json, threads=given.threads)


if __name__ == "__main__":
    main()
