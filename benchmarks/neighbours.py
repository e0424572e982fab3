"""Nearest neighbours compared with faiss (IndexFlatL2) and broadcasting, references prepared, in one run.

    python -m benchmarks.neighbours [--rounds 3] [--json FILE]          # PYTHONPATH may hold faiss-cpu

Each time is the minimum over the rounds; the ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest

faiss: ModuleType | None
try:
    import faiss
except ImportError:
    faiss = None

K = 2  # what the memorization ratio needs
# (rows, size) -> numbers of queries. The ninth pair of the grid, 4000 with 50 000 rows, would take half as long as the rest.
FAISS_SIZES = {
    (2500, 3072): [500, 2000, 4000],
    (12500, 3072): [500, 2000, 4000],
    (50000, 3072): [500, 2000],
    (50000, 64): [2000],
}
BROADCAST_SIZES = {(5000, 3072): [200]}
PEERS = {"broadcasting": BROADCAST_SIZES, "faiss": FAISS_SIZES}


def alternate(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every call in every round."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - begin)
    return times


def broadcast(queries: Tensor, rows: Tensor) -> Tensor:
    """What the authors' release does for F_mem, in batches of queries that fill a gigabyte."""
    some = max(1, 2**28 // rows.numel())
    parts = [(part[:, None] - rows).square().sum(2) for part in queries.split(some)]
    return torch.cat(parts).topk(K, largest=False).values.sqrt()


def compare(n: int, d: int, counts: list[int], rounds: int, peer: str) -> Iterator[dict[str, Any]]:
    """One line for each number of queries, all against the same rows."""
    generator = torch.Generator().manual_seed(0)
    rows, most = torch.randn(n, d, generator=generator), torch.randn(max(counts), d, generator=generator)
    reference = Reference(rows)
    index = None
    if peer == "faiss" and faiss is not None:
        index = faiss.IndexFlatL2(d)
        index.add(rows.numpy())
    for q in counts:
        queries = most[:q]
        calls: dict[str, Callable[[], Any]] = {"ours": partial(nearest, queries, reference, K)}
        if peer == "broadcasting":
            calls[peer] = partial(broadcast, queries, rows)
        elif index is not None:
            calls[peer] = partial(index.search, queries.numpy(), K)
        if q == counts[0]:  # threads and products warm up on a few
            nearest(queries[:50], reference, K)
            if index is not None:
                index.search(queries[:50].numpy(), K)
        yield line(calls, q, n, d, rounds, peer)


def line(calls: dict[str, Callable[[], Any]], q: int, n: int, d: int, rounds: int, peer: str) -> dict[str, Any]:
    times = alternate(calls, 1 if peer == "broadcasting" else rounds)  # fifty times as long needs no second look
    best = {name: min(values) for name, values in times.items()}
    row: dict[str, Any] = {"queries": q, "rows": n, "size": d, "peer": peer, "times": times}
    row["gflops"] = 2 * q * n * d / best["ours"] / 1e9
    row["ours_over_peer"] = (
        statistics.median(a / b for a, b in zip(times["ours"], times[peer])) if peer in best else None
    )
    shown = "  ".join(f"{name} {seconds:7.3f} s" for name, seconds in best.items())
    ratio = f"ratio {row['ours_over_peer']:.3f}" if row["ours_over_peer"] else f"{peer} is not installed"
    print(f"{q:>6} x {n:>6} x {d:>5}   {shown}   {ratio}   {row['gflops']:.0f} GFLOP/s", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="where to write the numbers")
    parser.add_argument("--only", type=int, help="the first comparisons alone", default=None)
    arguments = parser.parse_args()
    if faiss is None:
        print("faiss is not installed (pip install faiss-cpu): that peer is left out")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, k = {K}, Gaussian rows")
    jobs = [(*s, counts, peer) for peer, sizes in PEERS.items() for s, counts in sizes.items()]
    lines = itertools.chain.from_iterable(compare(n, d, counts, arguments.rounds, peer) for n, d, counts, peer in jobs)
    table = list(itertools.islice(lines, arguments.only))
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(
                {"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": table},
                file,
                indent=1,
            )


if __name__ == "__main__":
    main()
