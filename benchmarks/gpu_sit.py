"""SiT-XL/2 on one GPU: sampling with guidance and training, on synthetic latents, compared with plain PyTorch.

    python -m benchmarks.gpu_sit [--minutes 9] [--model XL/2] [--json FILE]
    python -m benchmarks.gpu_sit --smoke          # tiny sizes on a CPU: does it run?

bf16 by autocast, as the configurations have it. Images a second, the network's rate of arithmetic as a share of a large bf16
product's, measured here, and peak memory; eager and compiled. Plain PyTorch is ``PlainSiT``: the published formulas one after
the other, sampled by a loop without energies. Target: sampling at 45 % of the product's rate.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import alternate, arguments, clocked, finish, target
from fm_lightning.flow import Schedule, integrate
from fm_lightning.nets import Guided, SiT

SHARE = 0.45  # of the measured product's rate, in sampling
SCALE = 1.5


class PlainSiT(nn.Module):
    """The weights of a ``SiT`` computed as its formulas are written: softmax and products, a condition for every sample."""

    def __init__(self, net: SiT) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        net: Any = self.net
        angle = t[:, None] * 10_000 ** -(torch.arange(128, device=t.device) / 128)
        condition = F.silu(net.t_embedder.mlp(torch.cat([angle.cos(), angle.sin()], 1)) + net.y_embedder(y))
        tokens = net.x_embedder.proj(x).flatten(2).transpose(1, 2) + net.pos_embed
        for block in net.blocks:
            modulation = block.adaLN_modulation[1](condition)[:, None].chunk(6, -1)
            shift1, scale1, gate1, shift2, scale2, gate2 = modulation
            h = block.norm1(tokens) * (1 + scale1) + shift1
            heads = block.attn.heads
            qkv = block.attn.qkv(h).reshape(len(x), h.shape[1], 3, heads, -1).permute(2, 0, 3, 1, 4)
            weights = (qkv[0] * qkv.shape[-1] ** -0.5 @ qkv[1].transpose(-1, -2)).softmax(-1)
            tokens = tokens + gate1 * block.attn.proj((weights @ qkv[2]).transpose(1, 2).reshape(h.shape))
            tokens = tokens + gate2 * block.mlp(block.norm2(tokens) * (1 + scale2) + shift2)
        final = net.final_layer
        shift, scale = final.adaLN_modulation[1](condition)[:, None].chunk(2, -1)
        patches = final.linear(final.norm_final(tokens) * (1 + scale) + shift)
        (channels, height, width), p = net.shape, net.patch
        patches = patches.reshape(len(x), height // p, width // p, p, p, -1)
        return torch.einsum("nhwpqc->nchpwq", patches).reshape(len(x), -1, height, width)[:, :channels]


def network(model: str, device: str, smoke: bool) -> SiT:
    """Random weights; none is zero, so that nothing is easier than with trained ones."""
    torch.manual_seed(0)
    net = SiT((4, 16, 16), width=64, depth=2, heads=2, patch=2) if smoke else SiT(model=model)
    with torch.no_grad():
        for parameter in net.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02)
    return net.to(device)


@torch.no_grad()
def plain_sampling(net: nn.Module, x: Tensor, labels: Tensor, null: int, steps: int) -> Tensor:
    """Euler with guidance, as anybody in a hurry writes it."""
    y = torch.cat([torch.full_like(labels, null), labels])
    for i in range(steps):
        t = torch.full((2 * len(x),), i / steps, device=x.device)
        uncond, cond = net(torch.cat([x, x]), t, y).chunk(2)
        x = x + (uncond + SCALE * (cond - uncond)) / steps
    return x


def product_rate(device: str, size: int) -> float:
    """FLOP/s of a large bf16 matrix product, the best of several."""
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    return 2 * size**3 / alternate({"product": lambda: a @ a}, 20, warm_up=3)["product"].best


def flop(call: Callable[[], Any]) -> int:
    """Floating-point operations of a call's products and attentions."""
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def measured(
    what: str, name: str, call: Callable[[], Any], work: int, images: float, peak: float, rounds: int
) -> dict[str, Any]:
    """One row: the best of ``rounds`` calls, after one that compiles and warms up."""
    cuda = torch.cuda.is_available()
    first = clocked(call)[0]
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = min(clocked(call)[0] for _ in range(rounds))
    row = {
        "what": what,
        "network": name,
        "images_per_s": images / seconds,
        "tflops": work / seconds / 1e12,
        "share_of_product_rate": work / seconds / peak,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if cuda else None,
        "first_call_s": first,
        "seconds": seconds,
    }
    memory = f", {row['peak_gib']:.1f} GiB" if cuda else ""
    print(
        f"{what:>24} {name:>15}: {row['images_per_s']:8.2f} images/s, {row['tflops']:7.2f} TFLOP/s, "
        f"{row['share_of_product_rate']:.0%} of a product's{memory}",
        flush=True,
    )
    return row


def training_step(net: SiT, forward: nn.Module, x: Tensor, labels: Tensor) -> Callable[[], Any]:
    """Loss, backward, AdamW."""
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], 1e-6, fused=True)
    t = torch.rand(len(x), device=x.device)

    def run() -> None:
        with torch.autocast(x.device.type, torch.bfloat16):
            loss = forward(x, t, labels).float().square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return run


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", default="XL/2")
    parser.add_argument("--minutes", type=float, default=9.0, help="no new measurement begins after so long")
    given = parser.parse_args()
    cuda, tiny = torch.cuda.is_available(), given.smoke
    if not cuda and not tiny:
        parser.error("no GPU found, expected one; type --smoke for tiny sizes on a CPU")
    torch.set_num_threads(given.threads)
    device = "cuda" if cuda and not tiny else "cpu"
    deadline = time.perf_counter() + 60 * given.minutes - 90  # what has begun may compile
    steps, batch, train_batch, rounds = (2, 2, 2, 1) if tiny else (10, 128, 32, 3)
    peak = product_rate(device, 256 if tiny else 8192)
    print(f"large bf16 product: {peak / 1e12:.3g} TFLOP/s", flush=True)

    net = network(given.model, device, tiny)
    x0 = torch.randn(batch, *net.shape, device=device)
    labels = torch.arange(batch, device=device) % net.num_classes
    t = torch.full((1,), 0.5, device=device).expand(batch)
    with torch.no_grad():
        evaluation = flop(lambda: net(x0, t, labels))  # of one image each
        expected = net(x0[:2], t[:2], labels[:2])
        apart = (PlainSiT(net)(x0[:2], t[:2], labels[:2]) - expected).norm() / expected.norm()
    assert apart < 1e-3, f"the plain network differs by {float(apart):.2g}: nothing to compare"
    table: list[dict[str, Any]] = [
        {"what": "product", "tflops": peak / 1e12, "gflop_per_image": evaluation / batch / 1e9}
    ]

    @torch.autocast(device, torch.bfloat16)
    def sampling() -> None:
        integrate(Guided(net, SCALE), x0, Schedule(steps=steps), labels=labels)

    @torch.autocast(device, torch.bfloat16)
    def plain() -> None:
        plain_sampling(PlainSiT(net), x0, labels, net.num_classes, steps)

    def measure(what: str, name: str, call: Callable[[], Any]) -> None:
        if time.perf_counter() > deadline:
            return
        gc.collect()
        if what.startswith("training"):
            table.append(measured(what, name, call, step_work, train_batch, peak, rounds))
        else:  # an image takes 250 steps
            table.append(measured(what, name, call, sampling_work, batch * steps / 250, peak, rounds))
        net.zero_grad(set_to_none=True)

    sampling_work, step_work = 2 * evaluation * steps, 3 * evaluation * train_batch // batch
    x, y = x0[:train_batch], labels[:train_batch]
    measure("sampling, guided", "plain", plain)
    measure("sampling, guided", "SiT", sampling)
    measure("training", "plain", training_step(net, PlainSiT(net), x, y))
    measure("training", "SiT", training_step(net, net, x, y))
    net.checkpoint = True
    measure("training, recomputing", "SiT", training_step(net, net, x, y))
    net.checkpoint = False
    if not tiny:
        net.compile()  # in place; PlainSiT never calls it
        measure("sampling, guided", "SiT compiled", sampling)
        measure("training", "SiT compiled", training_step(net, net, x, y))

    reached = [
        row["share_of_product_rate"] for row in table if row["what"] == "sampling, guided" and row["network"] != "plain"
    ]
    what = f"SiT-{given.model} sampling in bf16: share of the measured product's rate"
    targets = [] if tiny else [target(what, max(reached, default=None), SHARE, at_least=True)]
    finish("gpu_sit", table, targets, given.json, batch=batch, train_batch=train_batch, steps=steps)


if __name__ == "__main__":
    main()
