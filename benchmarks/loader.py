"""Does training ever wait for images? Loader-only throughput compared with training's, on this machine.

    python -m benchmarks.loader                                  # random pixels: serving and encoding do not depend on them
    python -m benchmarks.loader --source uoft-cs/cifar10         # also decodes the dataset, if it has not been decoded yet
    python -m benchmarks.loader --device cuda --steps 20

Both serve batches of 128 images of 3x32x32, flipped; training is one optimizer step of the CIFAR-10 U-Net (35.7 M
parameters) on such batches, without its loader. The loader must be at least 20 times as fast.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.timing import finish, target
from fm_lightning.data import CIFAR10
from fm_lightning.data.batches import Share, TrainingBatches
from fm_lightning.data.split import Split
from fm_lightning.nets import UNet

BATCH = 128


def images(source: str | None) -> CIFAR10:
    data = CIFAR10(source or "none", flip=True)
    if source:
        data.setup()
    else:
        generator = torch.Generator().manual_seed(0)
        pixels = torch.randint(256, (50_000, 3, 32, 32), dtype=torch.uint8, generator=generator)
        data.train_split = Split(pixels)
    return data


def batches(data: CIFAR10, device: torch.device, count: int) -> Iterator[Tensor]:
    """What training gets: fetched, moved, normalised, flipped."""
    serve = TrainingBatches(data.train_split.fetch, len(data.train_split), BATCH, 1, Share(), 0, lambda: 0, count)
    for batch in serve:
        yield data.on_after_batch_transfer(batch._replace(x=batch.x.to(device)), 0).x


def rate(run: Callable[[], int], device: torch.device) -> float:
    """Images per second."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    done = run()
    wait()
    return done / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default=None, help="as for CIFAR10")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=1, help="training steps to time")
    parser.add_argument("--train-batch", type=int, default=BATCH, help="images in a timed training step")
    parser.add_argument("--rounds", type=int, default=5, help="of the loader; the median counts")
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    args = parser.parse_args()
    device = torch.device(args.device)

    data = images(args.source)
    first = next(batches(data, device, 1))
    loader = [rate(lambda: sum(len(x) for x in batches(data, device, 200)), device) for _ in range(args.rounds)]

    net = UNet(num_head_channels=64, dropout=0.1).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-4)
    x = first[: args.train_batch]

    def step() -> None:
        x0, t = torch.randn_like(x), torch.rand(len(x), device=device)
        there = t[:, None, None, None]
        loss = (net((1 - there) * x0 + there * x, t) - (x - x0)).square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    def train() -> int:
        for _ in range(args.steps):
            step()
        return args.steps * len(x)

    if device.type == "cuda":
        for _ in range(5):  # the first steps choose algorithms
            step()
    training = rate(train, device)
    serving = float(np.median(loader))
    print(f"loader    {serving:12,.0f} images/s (of {args.rounds} rounds {min(loader):,.0f} to {max(loader):,.0f})")
    print(f"training  {training:12,.1f} images/s ({args.steps} steps of {len(x)} images, float32, {device.type})")
    row = {"loader": loader, "training": training, "train_batch": len(x), "steps": args.steps, "device": device.type}
    ratio = serving / training
    finish("loader", [row], [target("loader's images over training's", ratio, 20, "x", at_least=True)], args.json)
    if ratio < 20:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
