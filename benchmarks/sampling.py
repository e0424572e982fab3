"""Sampling throughput over batch size, and the U-Net compared with torchcfm's with the same weights.

    python -m benchmarks.sampling [--smoke] [--compile] [--json FILE]

Peers: torchcfm's ``NeuralODE``-like sampling (torchdiffeq's Euler over the same network) and its ``UNetModelWrapper``, forward
and training step. On a GPU in bf16 with channels-last, and compiled too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torchdiffeq import odeint

from benchmarks.networks import CIFAR, digits_mlp, small_unet
from benchmarks.timing import alternate, arguments, finish, ratio, target
from fm_lightning.adapters import load_torchcfm
from fm_lightning.flow import KTS, Schedule, integrate
from fm_lightning.nets import UNet

try:
    from torchcfm.models.unet.unet import UNetModelWrapper
except ImportError:
    UNetModelWrapper = None

SMALL: dict[str, Any] = {
    "dim": (3, 32, 32),
    "num_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": (1, 2, 2),
    "attention_resolutions": "16",
    "num_heads": 2,
}
PAPER: dict[str, Any] = {
    "dim": (3, 32, 32),
    "num_channels": 128,
    "num_res_blocks": 2,
    "channel_mult": (1, 2, 2, 2),
    "attention_resolutions": "16",
    "num_heads": 4,
    "num_head_channels": 64,
}


@torch.no_grad()
def torchdiffeq_euler(net: Callable[..., Tensor], x0: Tensor, steps: int) -> Tensor:
    """What torchcfm's scripts sample with: ``odeint`` on a fixed grid."""
    times = torch.linspace(0, 1, steps + 1, device=x0.device)
    return odeint(lambda t, x: net(x, t.expand(len(x))), x0, times, method="euler")[-1]


def over_batch(
    name: str, nets: dict[str, Callable[..., Tensor]], shape: tuple[int, ...], batches: list[int], steps: int
) -> list[dict[str, Any]]:
    """Samples per second with KPE and a gain, for each way of running the network, compared with torchdiffeq's plain Euler."""
    rows = []
    device = next(next(iter(nets.values())).parameters()).device  # type: ignore[attr-defined]
    for batch in batches:
        x0 = torch.randn(batch, *shape, device=device)
        schedule = Schedule(KTS(), steps=steps)
        calls: dict[str, Callable[[], Any]] = {way: partial(integrate, net, x0, schedule) for way, net in nets.items()}
        eager = next(iter(nets.values()))
        calls["torchdiffeq"] = partial(torchdiffeq_euler, eager, x0, steps)
        times = alternate(calls, rounds=5, warm_up=1, seconds=10)
        rate = {way: batch * steps / t.best for way, t in times.items()}
        rows.append({"what": "over batch", "network": name, "batch": batch, "steps": steps, "evaluations_per_s": rate})
        rows[-1] |= {way: t.summary for way, t in times.items()}
        shown = ", ".join(f"{way} {r:,.0f}" for way, r in rate.items())
        print(f"{name:>12} x {batch:<6} sample evaluations a second: {shown}", flush=True)
    return rows


def against_torchcfm(
    name: str, options: dict[str, Any], device: str, batch: int, rounds: int, amp: bool
) -> list[dict[str, Any]]:
    """The same weights in both networks: forward, and a training step (forward, backward, Adam)."""
    theirs = UNetModelWrapper(**options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            if not parameter.any():
                parameter.normal_(std=0.01)
    ours = load_torchcfm(theirs.state_dict(), **options)
    ours, theirs = ours.to(device), theirs.to(device).eval()
    x, t = torch.randn(batch, *options["dim"], device=device), torch.rand(batch, device=device)
    with torch.no_grad():
        difference = float((ours(x, t) - theirs(t, x)).abs().max() / theirs(t, x).abs().max())
    fast = copy.deepcopy(ours).to(memory_format=torch.channels_last)
    x_fast = x.contiguous(memory_format=torch.channels_last)

    def forward(call: Callable[[], Tensor]) -> Callable[[], Any]:
        def run() -> None:
            with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=amp):
                call()

        return run

    def training(net: nn.Module, call: Callable[[], Tensor], fused: bool = False) -> Callable[[], Any]:
        optimizer = torch.optim.Adam(net.parameters(), 1e-6, fused=fused)

        def run() -> None:
            with torch.autocast(device, torch.bfloat16, enabled=amp):
                loss = call().float().square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return run

    passes = {
        "forward": {
            "torchcfm": forward(lambda: theirs(t, x)),
            "ours": forward(lambda: ours(x, t)),
            "ours, channels-last": forward(lambda: fast(x_fast, t)),
        },
        "training step": {
            "torchcfm": training(theirs, lambda: theirs(t, x)),
            "ours": training(ours, lambda: ours(x, t), fused=True),
            "ours, channels-last": training(fast, lambda: fast(x_fast, t), fused=True),
        },
    }
    rows = []
    for what, calls in passes.items():
        times = alternate(calls, rounds, seconds=40)
        row: dict[str, Any] = {"what": f"torchcfm: {what}", "network": name, "batch": batch}
        row["images_per_s"] = {who: batch / s.best for who, s in times.items()}
        row["speed_over_torchcfm"] = {
            who: 1 / ratio(s, times["torchcfm"])["ratio"] for who, s in times.items() if who != "torchcfm"
        }
        row |= {"largest_relative_difference": difference} | {who: s.summary for who, s in times.items()}
        shown = ", ".join(f"{who} {r:.1f}" for who, r in row["images_per_s"].items())
        gains = ", ".join(f"{v:.2f}x" for v in row["speed_over_torchcfm"].values())
        print(f"{name:>12} {what}: images/s {shown} ({gains}); velocities agree to {difference:.0e}", flush=True)
        rows.append(row)
    return rows


def ways(net: nn.Module, compiled: bool) -> dict[str, Callable[..., Tensor]]:
    """The network as it is and, optionally compiled; both with the same weights."""
    found: dict[str, Callable[..., Tensor]] = {"eager": net}
    if compiled:
        other = copy.deepcopy(net)
        other.compile(dynamic=False)
        found["compiled"] = other
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--compile", action="store_true", help="the compiled networks too (takes a minute on a CPU)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch._dynamo.config.cache_size_limit = 64  # one static shape per batch size
    cuda = torch.cuda.is_available()
    compiled = given.compile or cuda
    steps = 3 if given.smoke else 10
    table = over_batch(
        "digits MLP",
        ways(digits_mlp(), compiled),
        (1, 8, 8),
        [1, 32] if given.smoke else [1, 32, 250, 1000],
        steps,
    )
    table += over_batch(
        "small U-Net", ways(small_unet(), compiled), (3, 32, 32), [1, 4] if given.smoke else [1, 8, 32], min(steps, 3)
    )
    if UNetModelWrapper is None:
        print("torchcfm is not installed (pip install --no-deps torchcfm): that peer is left out")
    else:
        table += against_torchcfm("small", SMALL, "cpu", 2 if given.smoke else 8, 2 if given.smoke else 5, False)
        if not given.smoke:
            table += against_torchcfm("CIFAR", PAPER, "cpu", 2, 3, False)
        if cuda:
            table += against_torchcfm("CIFAR bf16", PAPER, "cuda", 128, 10, True)
    if cuda:
        net = UNet(**CIFAR).cuda().eval().to(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16):
            table += over_batch("CIFAR U-Net", ways(net, True), (3, 32, 32), [1, 16, 128, 1024], 10)
    targets = []
    for row in table:
        if row["what"].startswith("torchcfm"):
            best = max(row["speed_over_torchcfm"].values())
            what = f"{row['network']} U-Net, {row['what'].split(': ')[1]}: speed over torchcfm's"
            targets.append(target(what, best, 1, at_least=True))
    finish("sampling", table, targets, given.json, threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
