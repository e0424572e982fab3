"""What each switch is worth on a GPU: precision, channels-last, fused optimizer, compilation; and what bf16 costs in accuracy.

    python -m benchmarks.gpu_speed [--json FILE]
    python -m benchmarks.gpu_speed --smoke          # tiny sizes on a CPU: does it run?

Training steps of the CIFAR-10 U-Net (35.7 M) at batch 128: loss, backward, clipping, Adam. Neighbours compared with the matrix
product that they cannot do without, in the same precision.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bf16 import accuracy
from benchmarks.networks import cifar_unet, small_unet
from benchmarks.timing import alternate, arguments, finish, target
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest

MATMUL_SHARE = 0.6  # of the measured matrix-product rate, for neighbours

# Each adds one switch to the one before; the last takes channels-last away again.
SWITCHES: dict[str, dict[str, bool]] = {
    "float32": {},
    "tf32": {"tf32": True},
    "bf16": {"bf16": True},
    "bf16, channels-last": {"bf16": True, "last": True},
    "bf16, channels-last, fused Adam": {"bf16": True, "last": True, "fused": True},
    "bf16, channels-last, fused Adam, compiled": {"bf16": True, "last": True, "fused": True, "compiled": True},
    "bf16, fused Adam, compiled": {"bf16": True, "fused": True, "compiled": True},
}


def step(
    net: nn.Module, x: Tensor, bf16: bool = False, last: bool = False, fused: bool = False, compiled: bool = False
) -> Callable[[], Any]:
    """One optimizer step with these switches, on a network of its own."""
    net = copy.deepcopy(net).train()
    if last:
        net.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
    if compiled:
        net.compile()
    optimizer = torch.optim.Adam(net.parameters(), 1e-6, fused=fused)
    t = torch.rand(len(x), device=x.device)

    def run() -> None:
        with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
            loss = net(x, t).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    return run


def switches(net: nn.Module, x: Tensor, rounds: int, compiled: bool) -> Iterator[dict[str, Any]]:
    """Training throughput with each set of switches, in turns."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, chosen in SWITCHES.items():
        if compiled or not chosen.get("compiled"):
            tf32 = chosen.get("tf32", False)
            one = step(net, x, **{key: value for key, value in chosen.items() if key != "tf32"})
            calls[name] = _with_precision("high" if tf32 else "highest", one)
    times = alternate(calls, rounds, warm_up=3)
    first = times["float32"].best
    for name, t in times.items():
        row = {"what": "training", "switches": name, "images_per_s": len(x) / t.best, "times_float32": first / t.best}
        print(f"{name:>44}: {row['images_per_s']:9,.0f} images/s, {row['times_float32']:.2f}x", flush=True)
        yield row | t.summary


def _with_precision(precision: str, call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> None:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = precision == "high"
        call()

    return run


def neighbours(device: str, count: int, size: int, dtype: torch.dtype, rounds: int) -> dict[str, Any]:
    """Two nearest of ``count`` among ``count``, and a matrix product as large, in blocks as large as memory likes."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(count, size, generator=generator).to(device, dtype)
    queries = torch.randn(count, size, generator=generator).to(device)
    reference, a = Reference(rows), queries.to(dtype)
    block = max(1, 2**30 // count)

    def product() -> None:
        for part in a.split(block):
            part @ rows.T

    times = alternate({"nearest": lambda: nearest(queries, reference, 2), "product": product}, rounds, seconds=60)
    flop = 2 * count**2 * size
    rate = {name: flop / t.best / 1e12 for name, t in times.items()}
    share = rate["nearest"] / rate["product"]
    name = str(dtype).removeprefix("torch.")
    print(f"{count} x {count} x {size} in {name}: {times['nearest'].best:.3f} s, {share:.0%} of the product's rate")
    row = {"what": "neighbours", "dtype": name, "count": count, "size": size, "tflops": rate, "share_of_product": share}
    return row | {who: t.summary for who, t in times.items()}


def main() -> None:
    parser = arguments(__doc__)
    given = parser.parse_args()
    cuda = torch.cuda.is_available()
    if not cuda and not given.smoke:
        parser.error("no GPU found, expected one; type --smoke for tiny sizes on a CPU")
    torch.set_num_threads(given.threads)
    device = "cuda" if cuda else "cpu"
    tiny = given.smoke
    net = (small_unet() if tiny else cifar_unet()).to(device)
    batch, rounds = (4, 2) if tiny else (128, 20)
    x = torch.randn(batch, 3, 32, 32, device=device)
    table = list(switches(net, x, rounds, compiled=not tiny))
    table.append(accuracy(net, x, 5 if tiny else 100))
    targets = []
    torch.set_float32_matmul_precision("highest")
    for dtype in (torch.float32, torch.bfloat16):
        row = neighbours(device, 500 if tiny else 50_000, 3072, dtype, 3)
        table.append(row)
        if cuda:
            what = f"neighbours 50k x 50k x 3072, {row['dtype']}: share of the matrix product's rate"
            targets.append(target(what, row["share_of_product"], MATMUL_SHARE, at_least=True))
    finish("gpu_speed", table, targets, given.json)


if __name__ == "__main__":
    main()
