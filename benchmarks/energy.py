"""Energy at no cost: integration with KPE and a gain compared with a bare Euler loop over the same network, and with the release.

    python -m benchmarks.energy [--rounds 60] [--smoke] [--json FILE]

The free network returns what it was given: what is left is the loop itself, in microseconds a step.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.baselines import bare_euler, release_sample_with_kpe
from benchmarks.networks import cifar_unet, digits_mlp, small_unet
from benchmarks.operations import per_step
from benchmarks.timing import alternate, arguments, finish, ratio, target
from fm_lightning.flow import KTS, Schedule, integrate

LIMIT = 1.02  # of the bare loop's time
TRAJECTORIES = 100


def shaped(velocity: Callable[..., Tensor], x0: Tensor, steps: int) -> Any:
    """Ours: samples, energies, a gain."""
    return integrate(velocity, x0, Schedule(KTS(), steps=steps))


def against_bare(
    name: str, net: Callable[..., Tensor], x0: Tensor, steps: int, rounds: int, seconds: float = 90
) -> dict[str, Any]:
    """Time, and operations that are not the network's, with and without energy and gain."""
    times = alternate(
        {"ours": lambda: shaped(net, x0, steps), "bare": lambda: bare_euler(net, x0, steps)}, rounds, 2, seconds
    )

    def free(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return x

    loop = alternate({"ours": lambda: shaped(free, x0, steps), "bare": lambda: bare_euler(free, x0, steps)}, rounds, 2)
    counts = {who: per_step(partial(f, free, x0[:2])) for who, f in (("ours", shaped), ("bare", bare_euler))}
    net_count = sum((per_step(lambda n: bare_euler(net, x0[:2], n)) - counts["bare"]).values())
    row = {
        "network": name,
        "batch": len(x0),
        "steps": steps,
        **ratio(times["ours"], times["bare"]),
        "ours": times["ours"].summary,
        "bare": times["bare"].summary,
        "loop_us_per_step": {who: 1e6 * t.best / steps for who, t in loop.items()},
        # The loop's own extra time over the bare loop's whole time: the same question with less noise in it.
        "ratio_by_difference": 1 + (loop["ours"].best - loop["bare"].best) / times["bare"].best,
        "operations_per_step": {"network": net_count, **{who: dict(c) for who, c in counts.items()}},
    }
    us = {who: 1e6 * t.best / steps for who, t in loop.items()}
    print(
        f"{name:>14} x {len(x0):<5} {1e3 * times['bare'].best / steps:8.2f} ms/step bare   ratio {row['ratio']:.4f} "
        f"(cpu time {row['cpu_ratio']:.4f}, median {row['median_ratio']:.4f}, by difference {row['ratio_by_difference']:.4f})"
        f"   loop {us['bare']:.0f} -> {us['ours']:.0f} us/step   operations: network {net_count}, bare "
        f"{_show(counts['bare'])}, ours {_show(counts['ours'])}",
        flush=True,
    )
    return row


def against_release(
    name: str, net: Callable[..., Tensor], x0: Tensor, steps: int, rounds: int, seconds: float
) -> dict[str, Any]:
    """Samples and energies of some trajectories: ours in the one pass, the release's in a second one by one."""
    _, energies = release_sample_with_kpe(net, x0[:4], steps)
    ours = integrate(net, x0[:4], Schedule(steps=steps)).kpe
    error = float((ours.cpu() / torch.tensor(energies) - 1).abs().max())
    times = alternate(
        {
            "ours": lambda: integrate(net, x0, Schedule(steps=steps)),
            "release": lambda: release_sample_with_kpe(net, x0, steps),
        },
        rounds,
        warm_up=0,
        seconds=seconds,
    )
    row = {
        "network": name,
        "trajectories": len(x0),
        "steps": steps,
        "release_over_ours": times["release"].best / times["ours"].best,
        "largest_relative_difference": error,
        "ours": times["ours"].summary,
        "release": times["release"].summary,
    }
    print(
        f"{name:>14}   KPE of {len(x0)} trajectories, {steps} steps: ours {times['ours'].best:.3f} s, release "
        f"{times['release'].best:.3f} s, {row['release_over_ours']:.0f}x; energies agree to {error:.1e}",
        flush=True,
    )
    return row


def never_waits(net: Callable[..., Tensor], x0: Tensor) -> bool:
    """Runs a trajectory's steps with CUDA's synchronisation errors on; raises where the host waits within them.

    ``integrate`` waits twice by design, outside the loop: the plan's last look (all finite?) and copying constants.
    """
    steps = 10

    def probe(i: int, t: float, x: Tensor, v: Tensor) -> None:
        torch.cuda.set_sync_debug_mode("error" if i < steps - 1 else "default")

    try:
        integrate(net, x0, Schedule(KTS(), steps=steps), probe=probe)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return True


def _show(counts: Counter[str]) -> str:
    return f"{sum(counts.values())} ({', '.join(sorted(counts))})"


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    given = parser.parse_args()
    rounds = 3 if given.smoke else given.rounds
    torch.set_num_threads(given.threads)
    compared, released = [], []
    mlp, unet = digits_mlp(), small_unet()
    compared.append(against_bare("digits MLP", mlp, torch.randn(2000, 1, 8, 8), 4 if given.smoke else 10, rounds))
    compared.append(against_bare("small U-Net", unet, torch.randn(16, 3, 32, 32), 2 if given.smoke else 4, rounds))
    steps, few = (5, 8) if given.smoke else (100, TRAJECTORIES)
    released.append(against_release("digits MLP", mlp, torch.randn(few, 1, 8, 8), steps, 2, 30))
    released.append(against_release("small U-Net", unet, torch.randn(few, 3, 32, 32), min(steps, 5), 2, 30))
    waits = None
    if torch.cuda.is_available():
        net = cifar_unet().cuda().to(memory_format=torch.channels_last)
        x0 = torch.randn(256, 3, 32, 32, device="cuda").contiguous(memory_format=torch.channels_last)
        with torch.autocast("cuda", torch.bfloat16):
            compared.append(against_bare("CIFAR U-Net", net, x0, 10, rounds, 60))
            released.append(against_release("CIFAR U-Net", net, x0[:TRAJECTORIES], 10, 3, 60))
            waits = not never_waits(net, x0)
    targets = [target(f"{r['network']}: time over bare Euler loop", r["ratio"], LIMIT) for r in compared]
    finish(
        "energy", compared + released, targets, given.json, host_waits_in_loop=waits, note="1 CPU thread; GPU in bf16"
    )


if __name__ == "__main__":
    main()
