"""What a step costs more: of an SDE compared with an ODE, and of a training that keeps two averages of the weights.

    python -m benchmarks.steps [--smoke] [--threads 1] [--json FILE]

Candidates take turns in one process. The averages are those of ``callbacks.PowerAverages``, compared with forward pass,
backward pass and AdamW of the quickstart's network.
"""

from __future__ import annotations

import copy
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from benchmarks.networks import digits_mlp, small_unet
from benchmarks.timing import Call, alternate, arguments, finish, ratio, target
from fm_lightning.callbacks import PowerAverages
from fm_lightning.flow import Diffusion, Schedule, integrate

BATCH = 128  # of the quickstart's training


def sde(name: str, net: nn.Module, shape: tuple[int, ...], batch: int, rounds: int, steps: int) -> dict[str, Any]:
    """Seconds of a step of Euler and of Euler-Maruyama; the last step of both is the same."""
    x0 = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    calls: dict[str, Call] = {
        "ODE": partial(integrate, net, x0, Schedule(steps=steps)),
        "SDE": partial(integrate, net, x0, Schedule(steps=steps, diffusion=Diffusion())),
    }
    times = alternate(calls, rounds, seconds=40)
    found = {"what": "SDE step over ODE step", "network": name, "batch": batch, "steps": steps} | ratio(
        times["SDE"], times["ODE"]
    )
    return found | {who: t.summary for who, t in times.items()}


def averages(rounds: int) -> dict[str, Any]:
    """Seconds of the update of both averages, and of the training step that it follows."""
    net = copy.deepcopy(digits_mlp()).train()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    x, t = torch.randn(BATCH, 1, 8, 8), torch.rand(BATCH)
    callback = PowerAverages()
    callback._weights = list(net.parameters())
    callback._averages = [[p.detach().clone() for p in net.parameters()] for _ in range(2)]
    trainer = SimpleNamespace(global_step=1, is_global_zero=True)

    def step() -> None:
        loss = net(x, t).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def update() -> None:
        trainer.global_step += 1
        callback.on_train_batch_end(cast(Any, trainer), cast(Any, None))

    times = alternate({"step": step, "update": update}, rounds, warm_up=5, seconds=40)
    found = {
        "what": "update of both averages over training step",
        "batch": BATCH,
        **ratio(times["update"], times["step"]),
    }
    return found | {who: t.summary for who, t in times.items()}


def main() -> None:
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    rounds = 3 if given.smoke else 20
    rows = [
        sde("small U-Net", small_unet(), (3, 32, 32), 8, rounds, 5 if given.smoke else 20),
        sde("digits MLP", digits_mlp(), (1, 8, 8), 250, rounds, 5 if given.smoke else 100),
        averages(10 if given.smoke else 300),
    ]
    for row in rows:
        print(
            f"{row.get('network', 'digits MLP'):>12} {row['what']}: {row['ratio']:.3f} (median {row['median_ratio']:.3f})"
        )
    unet, mlp, update = (row["ratio"] for row in rows)
    targets = [
        target("SDE step of the small U-Net over its ODE step", unet, 1.05),
        target("SDE step of the digits MLP over its ODE step", mlp, 1.15),
        target("both averages, of a training step of the digits MLP", 100 * update, 4, "%"),
    ]
    finish("steps", rows, targets, given.json)


if __name__ == "__main__":
    main()
