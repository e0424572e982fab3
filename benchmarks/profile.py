"""Where sampling's time goes, and how near it is to what the arithmetic allows.

    python -m benchmarks.profile [--json FILE]

Shares of self time by kind of operation, from torch's profiler; the rate of the network's multiplications against that of one
large matrix product on the same threads, and the rate at which memory is read and written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.networks import cifar_unet, digits_mlp, small_unet
from benchmarks.timing import alternate, arguments, finish
from fm_lightning.flow import KTS, Schedule, integrate

KINDS = {
    "matrix products and convolutions": ("mm", "conv", "linear", "gemm", "bmm"),
    "attention": ("attention", "flash", "softmax"),
    "norms of the network": ("layer_norm", "group_norm", "batch_norm"),
    "activations": ("silu",),
    "energy (vector norm)": ("linalg_vector_norm",),
    "copies and concatenations": ("copy", "cat", "clone", "contiguous", "upsample"),
}


def kind(name: str) -> str:
    """To which kind an operation belongs."""
    return next((kind for kind, words in KINDS.items() if any(word in name for word in words)), "all else")


def where_time_goes(name: str, net: nn.Module, x0: Tensor, steps: int, peaks: dict[str, float]) -> dict[str, Any]:
    """Shares of self time, and the network's rate of arithmetic in units of a large product's."""
    schedule = Schedule(KTS(), steps=steps)
    integrate(net, x0, schedule)
    cuda = x0.is_cuda
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as record:
        integrate(net, x0, schedule)
    spent: dict[str, float] = {}
    for event in record.key_averages():
        time = event.self_device_time_total if cuda else event.self_cpu_time_total
        spent[kind(event.key)] = spent.get(kind(event.key), 0) + time
    total = sum(spent.values())
    shares = {key: value / total for key, value in sorted(spent.items(), key=lambda item: -item[1])}
    t = torch.rand(len(x0), device=x0.device)
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            net(x0, t)
        seconds = alternate({"net": lambda: net(x0, t)}, 5)["net"].best
    rate = counter.get_total_flops() / seconds / 1e9
    row = {
        "network": name,
        "batch": len(x0),
        "shares": shares,
        "gflop_per_sample": counter.get_total_flops() / len(x0) / 1e9,
        "gflops": rate,
        "share_of_product_rate": rate / peaks["gflops"],
    }
    shown = ", ".join(f"{key} {value:.0%}" for key, value in shares.items() if value >= 0.005)
    print(f"{name} x {len(x0)}: {shown}; {rate:.1f} GFLOP/s, {row['share_of_product_rate']:.0%} of a large product's")
    return row


def limits(device: str) -> dict[str, float]:
    """Rates of a large float32 matrix product (GFLOP/s) and of adding large tensors (GB/s moved)."""
    n, m = (8192, 2**28) if device == "cuda" else (1536, 2**24)
    a, b = torch.randn(n, n, device=device), torch.randn(m, device=device)
    c, d = torch.empty_like(a), torch.empty_like(b)
    calls: dict[str, Callable[[], Any]] = {
        "product": lambda: torch.mm(a, a, out=c),
        "memory": lambda: torch.add(b, 1.0, out=d),
    }
    times = alternate(calls, 8)
    return {"gflops": 2 * n**3 / times["product"].best / 1e9, "gbytes": 8 * m / times["memory"].best / 1e9}


def main() -> None:
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    peaks = limits("cpu")
    print(f"large float32 product {peaks['gflops']:.0f} GFLOP/s, memory {peaks['gbytes']:.1f} GB/s")
    rows: list[dict[str, Any]] = [{"what": "limits, CPU", **peaks}]
    steps = 2 if given.smoke else 5
    few = 8 if given.smoke else 1
    rows.append(where_time_goes("digits MLP", digits_mlp(), torch.randn(2000 // few, 1, 8, 8), steps, peaks))
    rows.append(where_time_goes("small U-Net", small_unet(), torch.randn(16 // few, 3, 32, 32), steps, peaks))
    if not given.smoke:
        rows.append(where_time_goes("CIFAR U-Net", cifar_unet(), torch.randn(4, 3, 32, 32), 1, peaks))
    if torch.cuda.is_available():
        peaks = limits("cuda")
        rows.append({"what": "limits, GPU", **peaks})
        net = cifar_unet().cuda().to(memory_format=torch.channels_last)
        rows.append(where_time_goes("CIFAR U-Net, GPU", net, torch.randn(512, 3, 32, 32).cuda(), 5, peaks))
    finish("profile", rows, [], given.json, threads=given.threads)


if __name__ == "__main__":
    main()
