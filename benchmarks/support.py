"""Local support (three bandwidths, two k) compared with the exact neighbours alone, with the same reference, in one run.

python -m benchmarks.support [--rounds 3] [--threads 1] [--json FILE]
"""

from __future__ import annotations

import torch

from benchmarks.timing import alternate, arguments, finish, ratio, target
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest
from fm_lightning.metrics.support import LocalSupport

SIZE = (2000, 50_000, 3072)  # queries, rows, numbers in a row
SMOKE = (50, 500, 64)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    count, rows, size = SMOKE if given.smoke else SIZE
    generator = torch.Generator().manual_seed(0)
    reference = Reference(torch.randn(rows, size, generator=generator))
    x = torch.randn(count, size, generator=generator)
    metric = LocalSupport(reference)
    few = x[:50]  # warms up threads and products
    nearest(few, reference, max(metric.k))
    metric.measure(few)
    calls = {"neighbours": lambda: nearest(x, reference, max(metric.k)), "support": lambda: metric.measure(x)}
    times = alternate(calls, given.rounds, warm_up=0)
    found = {"queries": count, "rows": rows, "size": size} | ratio(times["support"], times["neighbours"])
    found |= {f"{name}_seconds": values.best for name, values in times.items()}
    print("  ".join(f"{name} {value:.4g}" for name, value in found.items()))
    finish(
        "support",
        [found],
        [target("support over exact neighbours", None if given.smoke else found["ratio"], 1.3)],
        given.json,
    )


if __name__ == "__main__":
    main()
