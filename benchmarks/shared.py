"""Shared beginnings: a grid of schedules in one integration compared with separate runs of the same code.

    python -m benchmarks.shared [--rounds 3] [--smoke] [--json FILE]

5 x 5 (alpha, beta) at tau 0.6 on the digits MLP: the launch is shared by every beta. An evaluation is one of the whole
batch; rows that are evaluated together with others count the same.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks.networks import digits_mlp
from benchmarks.timing import alternate, arguments, finish, ratio, target
from fm_lightning.comparison.families import families
from fm_lightning.flow import KTS, Schedule, integrate, integrate_many
from fm_lightning.flow.integrate import Velocity

EVALUATIONS, TIME = 0.51, 0.56  # of separate runs
MERGED = 1024  # rows in one network batch
STRENGTHS = (0.005, 0.01, 0.02, 0.03, 0.04)
BATCHES = (8, 32, 128)


class Counted:
    """A velocity that knows how many rows it has seen."""

    def __init__(self, net: Velocity) -> None:
        self.net, self.rows, self.calls = net, 0, 0

    def __call__(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        self.rows += len(x)
        self.calls += 1
        return self.net(x, t, y)


def grid(steps: int, side: int = 5) -> dict[str, Schedule]:
    """``side`` x ``side`` schedules; the first k of them are k schedules with enough alphas."""
    some = STRENGTHS[:side]
    return {f"{a}-{b}": Schedule(KTS(a, b, tau_split=0.6), steps=steps) for a in some for b in some}


def evaluations(net: Velocity, x0: Tensor, schedules: dict[str, Schedule]) -> float:
    """Evaluations of the batch that one integration of all of them needs."""
    counted = Counted(net)
    integrate_many(counted, x0, schedules)
    return counted.rows / len(x0)


def against_separate(net: nn.Module, x0: Tensor, schedules: dict[str, Schedule], rounds: int) -> dict[str, Any]:
    """All schedules in one integration, and one by one."""
    times = alternate(
        {
            "shared": lambda: integrate_many(net, x0, schedules),
            "separate": lambda: [integrate(net, x0, schedule) for schedule in schedules.values()],
        },
        rounds,
        warm_up=0,
    )
    shared = evaluations(net, x0[:2], schedules)
    separate = sum(len(s.plan()) for s in schedules.values())
    row = {
        "what": "shared / separate",
        "schedules": len(schedules),
        "batch": len(x0),
        "evaluations": [shared, separate],
        "evaluation_ratio": shared / separate,
        **ratio(times["shared"], times["separate"]),
        "shared": times["shared"].summary,
        "separate": times["separate"].summary,
    }
    print(
        f"{len(schedules)} schedules, batch {len(x0)}: evaluations {shared:.0f} / {separate} = {shared / separate:.4f}, time "
        f"{times['shared'].best:.2f} / {times['separate'].best:.2f} s = {row['ratio']:.4f}",
        flush=True,
    )
    return row


def growth(net: nn.Module, x0: Tensor, schedules: dict[str, Schedule], rounds: int) -> list[dict[str, Any]]:
    """Cost over the number of schedules, in units of one."""
    counts = [k for k in (1, 2, 5, 10, 25) if k <= len(schedules)]
    some = {k: dict(list(schedules.items())[:k]) for k in counts}
    times = alternate({str(k): partial(integrate_many, net, x0, some[k]) for k in counts}, rounds, warm_up=0)
    rows = []
    for k in counts:
        needed = evaluations(net, x0[:2], some[k])
        seconds = times[str(k)].best
        rows.append({"what": "growth", "schedules": k, "evaluations": needed, "batch": len(x0), "seconds": seconds})
        rows[-1]["times_one"] = seconds / times[str(counts[0])].best
        print(f"{k:>3} schedules: {needed:5.0f} evaluations, {seconds:6.3f} s, {rows[-1]['times_one']:.2f} times one")
    return rows


def merging(
    net: nn.Module, shape: tuple[int, ...], schedules: dict[str, Schedule], rounds: int
) -> list[dict[str, Any]]:
    """Parted branches in one network batch compared with one after the other, at small batches."""
    rows = []
    for batch in BATCHES:
        x0 = torch.randn(batch, *shape)
        apart, merged = Counted(net), Counted(net)
        integrate_many(apart, x0, schedules)
        integrate_many(merged, x0, schedules, merge_rows=MERGED)
        times = alternate(
            {
                "merged": partial(integrate_many, net, x0, schedules, merge_rows=MERGED),
                "apart": partial(integrate_many, net, x0, schedules),
            },
            rounds,
            warm_up=0,
        )
        row = {"what": "merging", "batch": batch, "schedules": len(schedules), "calls": [merged.calls, apart.calls]}
        rows.append(row | ratio(times["merged"], times["apart"]) | {k: t.summary for k, t in times.items()})
        print(
            f"batch {batch:>4}: merged to {MERGED} rows {times['merged'].best:.3f} s in {merged.calls} calls, apart "
            f"{times['apart'].best:.3f} s in {apart.calls}: ratio {rows[-1]['ratio']:.3f}",
            flush=True,
        )
    return rows


def controls(net: nn.Module, x0: Tensor, steps: int) -> dict[str, Any]:
    """A schedule, plain sampling and its cheap families at three doses each: what they share."""
    schedule = Schedule(KTS(0.02, 0.02), steps=steps)
    base = Schedule(steps=steps)
    cheap = [family for family in families(base) if family.cheap]
    rows = {"base": base, "shaped": schedule}
    rows |= {f"{f.name} {dose}": cast(Schedule, f.at(base, dose)) for f in cheap for dose in f.doses[:3]}
    shared, separate = evaluations(net, x0, rows), sum(len(s.plan()) for s in rows.values())
    print(f"a schedule with base and cheap families ({len(rows)} rows): {shared:.0f} / {separate} evaluations")
    return {"what": "cheap families", "rows": list(rows), "evaluations": [shared, separate]}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    net, shape = digits_mlp(), (1, 8, 8)
    steps, batch, rounds = (10, 16, 2) if given.smoke else (100, 500, given.rounds)
    schedules = grid(steps)
    x0 = torch.randn(batch, *shape)
    integrate(net, x0, Schedule(steps=5))
    table = [against_separate(net, x0, schedules, rounds)]
    targets = [
        target("25 schedules: network evaluations over separate runs", table[0]["evaluation_ratio"], EVALUATIONS),
        target("25 schedules: time over separate runs", table[0]["ratio"], TIME),
    ]
    table += growth(net, x0[:100], schedules, rounds)
    table += merging(net, shape, schedules, 2)
    table.append(controls(net, x0[:2], steps))
    if torch.cuda.is_available():
        table.append(against_separate(net.cuda(), torch.randn(20_000, *shape, device="cuda"), schedules, rounds))
        targets.append(target("25 schedules: time over separate runs, GPU", table[-1]["ratio"], TIME))
    finish("shared", table, targets, given.json, note="digits MLP, 1 CPU thread")


if __name__ == "__main__":
    main()
