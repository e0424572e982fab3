"""Sampling in bf16 compared with float32 from the same noise: energies and images, of a trained network if one is given.

python -m benchmarks.bf16 --checkpoint runs/cifar10/checkpoints/last.ckpt [--seeds 256] [--steps 100] [--json FILE]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.networks import cifar_unet, small_unet
from benchmarks.timing import arguments, finish
from fm_lightning.adapters.network import load_network
from fm_lightning.flow import Schedule, integrate
from fm_lightning.noise import noise


def accuracy(net: nn.Module, x0: Tensor, steps: int, trained: bool = False) -> dict[str, Any]:
    """Samples and energies in bf16 (autocast, the state in float32) compared with float32 from the same noise."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    exact = integrate(net, x0, Schedule(steps=steps))
    with torch.autocast(x0.device.type, torch.bfloat16):
        rounded = integrate(net, x0, Schedule(steps=steps))
    error = (rounded.x1 - exact.x1).square().flatten(1).mean(1)
    psnr = 10 * torch.log10(4 / error.clamp_min(1e-20))  # the range of pixels is 2
    kpe = (rounded.kpe / exact.kpe - 1).abs()
    row = {
        "what": "bf16 sampling",
        "device": x0.device.type,
        "trained": trained,
        "seeds": len(x0),
        "steps": steps,
        "kpe_relative_median": float(kpe.median()),
        "kpe_relative_max": float(kpe.max()),
        "kpe_mean_relative": float(rounded.kpe.mean() / exact.kpe.mean() - 1),
        "psnr_median_db": float(psnr.median()),
        "psnr_min_db": float(psnr.min()),
    }
    print(
        f"bf16 sampling against float32: KPE differs by {row['kpe_relative_median']:.1e} (most {row['kpe_relative_max']:.1e}; "
        f"its mean {row['kpe_mean_relative']:+.1e}), images {row['psnr_median_db']:.1f} dB (least {row['psnr_min_db']:.1f})",
        flush=True,
    )
    return row


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--checkpoint", help="a run's; without it an untrained network")
    parser.add_argument("--seeds", type=int, default=256)
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    untrained = cifar_unet if device == "cuda" else small_unet
    net = load_network(given.checkpoint) if given.checkpoint else untrained()
    seeds, steps = (2, 3) if given.smoke else (given.seeds, given.steps)
    x0 = noise(range(seeds), (3, 32, 32), base_seed=0).to(device)
    finish("bf16", [accuracy(net.to(device).eval(), x0, steps, trained=bool(given.checkpoint))], [], given.json)


if __name__ == "__main__":
    main()
