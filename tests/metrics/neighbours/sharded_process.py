"""One of the three processes of test_sharded.py. Writes what it found as JSON."""

from __future__ import annotations

import datetime
import json
from pathlib import Path

import torch
import torch.distributed as dist

from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule, integrate
from fm_lightning.metrics import (
    FrechetDistance,
    KineticPathEnergy,
    MemorizationRate,
    RawFeatures,
    Reference,
    ShardedReference,
    nearest,
)
from fm_lightning.metrics.neighbours import sharded

RANKS = 3


def cases():
    """name -> rows of the whole, sizes of the parts (None: strided), queries of each process, k, budget."""
    generator = torch.Generator().manual_seed(0)
    ties = torch.randn(203, 3, generator=generator).mul(2).round()
    images = torch.randn(90, 2, 4, 4, generator=generator)
    for ranks in range(1, RANKS + 1):
        uneven = [f[:n] for f, n in zip(torch.randn(3, 60, 3, generator=generator).mul(2).round(), (17, 0, 60))][:ranks]
        even = list(torch.randn(ranks, 25, 2, 4, 4, generator=generator))
        third = -(-203 // ranks)
        sizes = [min(third, 203 - third * r) for r in range(ranks)]
        yield f"{ranks} strided", ranks, ties, None, uneven, 40, 2**18
        yield f"{ranks} contiguous", ranks, ties, sizes, uneven, 40, 2**28
        yield f"{ranks} images", ranks, images, None, even, 2, 2**17
        yield f"{ranks} half", ranks, images.bfloat16(), None, even, 2, 2**28
        mixed = [q.double() if r == 1 else q for r, q in enumerate(even)]
        yield f"{ranks} two types", ranks, images, None, mixed, 3, 2**28
        few = [[4], [0, 4], [3, 0, 1]][ranks - 1]
        yield f"{ranks} fewer rows than k", ranks, ties[:4], few, uneven, 4, 2**28
        yield f"{ranks} no queries", ranks, ties, None, [q[:0] for q in uneven], 2, 2**28


def part(rows, sizes, ranks, rank):
    return rows[rank::ranks] if sizes is None else rows.split(sizes)[rank]


def refusals(rank, group):
    """name -> what has to fail in all processes alike."""
    rows, queries = torch.randn(30, 2), torch.randn(5, 2)
    whole = ShardedReference(rows[rank::RANKS], strided=True, group=group)
    nan = torch.full((1, 2), torch.nan)
    yield "Query row 5 contains NaN", lambda: nearest(torch.cat([queries, nan]) if rank == 1 else queries, whole, 2)
    yield "Reference row 1 contains NaN", lambda: ShardedReference(torch.cat([rows[:1], nan]) if rank == 2 else rows)
    yield "Pass the same k in all", lambda: nearest(queries, whole, 2 + rank)
    yield (
        "Process 0: k=31 must be from 1 to 30.* Pass k=30.$",
        lambda: nearest(queries, whole, 31 if rank == 0 else 1),
    )
    yield "rows of shape \\[3\\]", lambda: nearest(torch.zeros(2, 3) if rank == 2 else queries, whole, 1)
    yield (
        "The samples are torch.uint8 and the reference is torch.float32",
        lambda: nearest(queries.to(torch.uint8) if rank == 1 else queries, whole, 2),
    )
    yield "too few", lambda: nearest(queries, whole, 2, budget=100 if rank == 0 else 2**28)
    yield "rows of shapes", lambda: ShardedReference(rows[:, : 1 + (rank == 1)])
    yield "rows\\[rank::3\\]", lambda: ShardedReference(rows[: 5 + rank], strided=True)
    yield "The reference is empty", lambda: ShardedReference(rows[:0])
    yield (
        "Process 1: .*out of memory.* Fix what failed",
        lambda: broken(rank, lambda: nearest(queries, whole, 2)),
    )


def broken(rank, call):
    """The call, with a search that fails in one process in the midst of it."""
    search = sharded.nearest

    def fail(queries, *args, **kwargs):
        if len(queries):
            raise RuntimeError("out of memory")
        return search(queries, *args, **kwargs)

    sharded.nearest = fail if rank == 1 else search
    try:
        call()
    finally:
        sharded.nearest = search


def memorization(rank, group):
    """F_mem over three updates, with a process that has no samples in two of them."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(31, 1, 4, 4, generator=generator)
    x = torch.cat([images[:9] + 0.01, torch.randn(9, 1, 4, 4, generator=generator)])[
        torch.randperm(18, generator=generator)
    ]
    trajectory = integrate(lambda x, t, y: torch.zeros_like(x), x, seeds=torch.arange(18))
    kept = MemorizationRate(images, mirrored=True, sync_on_compute=False)
    kept.update(trajectory)
    metric = MemorizationRate(ShardedReference(images[rank::RANKS], strided=True, group=group), mirrored=True)
    mine = trajectory[torch.arange(18)[rank::RANKS]]
    for rows in (slice(0, 2), slice(2, 6), slice(0, 0)) if rank else (slice(0, 6), slice(0, 0), slice(0, 0)):
        metric.update(mine[rows])
    return [{k: str(v) for k, v in m.compute().items()} for m in (metric, kept)]


def content(rank, group):
    """Whether equal rows in different processes are found, and the whole is named as one process names it."""
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (20, 1, 4, 4), generator=generator).to(torch.uint8)
    images = torch.cat([images, images[:7], images[3:5].flip(-1)])
    whole, sizes = Reference(images), [11, 0, 18]
    answers = []
    for part in (images[rank::RANKS], images.split(sizes)[rank]):
        divided = ShardedReference(part, strided=len(part) in (9, 10), group=group)
        answers += [torch.equal(divided.exact_duplicates(m), whole.exact_duplicates(m)) for m in (False, True)]
        answers.append(divided.fingerprint == whole.fingerprint)
    return answers


def gathered(rank):
    """The numbers and lines of metrics over all processes, of which the last has no samples; and those of one process."""
    generator = torch.Generator().manual_seed(3)
    images, x = torch.randn(30, 2, generator=generator), torch.randn(21, 2, generator=generator)
    trajectory = integrate(lambda x, t, y: torch.sin(x), x, Schedule(steps=5), seeds=torch.arange(21))
    answers = {}
    for build in (
        KineticPathEnergy,
        lambda **options: MemorizationRate(images, k=3, **options),
        lambda **options: FrechetDistance(RawFeatures(), images, **options),
    ):
        alone, shared = build(sync_on_compute=False), build()
        alone.update(trajectory)
        mine = [torch.arange(0, 21, 2), torch.arange(1, 21, 2), torch.arange(0)][rank]
        shared.update(trajectory[mine])
        lines = shared.per_seed()
        same = [torch.equal(lines[name], alone._lines()[name]) for name in lines]
        answers[type(alone).__name__] = [same, shared.compute() == alone.compute()]
    return answers


def run(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meet",
        rank=rank,
        world_size=RANKS,
        timeout=datetime.timedelta(seconds=40),
    )
    groups = {n: dist.new_group(list(range(n))) for n in range(1, RANKS + 1)}
    found = {"equal": {}, "refused": {}}
    for name, ranks, rows, sizes, queries, k, budget in cases():
        if rank < ranks:
            reference = ShardedReference(part(rows, sizes, ranks, rank), strided=sizes is None, group=groups[ranks])
            got, expected = nearest(queries[rank], reference, k, budget=budget), nearest(queries[rank], rows, k)
            found["equal"][name] = all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(got, expected))
    for name, call in refusals(rank, groups[RANKS]):
        try:
            call()
            found["refused"][name] = "nothing"
        except UserError as error:
            found["refused"][name] = str(error)
    found["content"], found["gathered"] = content(rank, groups[RANKS]), gathered(rank)
    found["memorization"] = memorization(rank, groups[RANKS])
    (folder / f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    dist.destroy_process_group()
