"""How everything here is timed: candidates take turns, so that other load hits them alike.

A round calls every candidate once; the order turns by one from round to round. Judged is the ratio of the minima over all
rounds; the median of the rounds' own ratios and the spread (interquartile range over median) are given with it.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], Any]


@dataclass(frozen=True)
class Times:
    """Seconds of one candidate in every round: on the wall, and of processor time in this process."""

    wall: list[float]
    cpu: list[float]

    @property
    def best(self) -> float:
        return min(self.wall)

    @property
    def summary(self) -> dict[str, float]:
        low, middle, high = statistics.quantiles(self.wall, n=4) if len(self.wall) > 1 else self.wall * 3
        return {
            "min_s": self.best,
            "median_s": statistics.median(self.wall),
            "spread": (high - low) / middle,
            "cpu_min_s": min(self.cpu),
            "rounds": len(self.wall),
        }


def alternate(calls: Mapping[str, Call], rounds: int = 20, warm_up: int = 1, seconds: float = 1e9) -> dict[str, Times]:
    """Times of every candidate, taken in turns.

    Args:
        calls: name -> what to time. Work on a GPU is waited for, before and after.
        rounds: how often each is called.
        warm_up: rounds that are not counted.
        seconds: no new round is begun after so long (but three are always done).
    """
    names = list(calls)
    times = {name: Times([], []) for name in names}
    begin = time.perf_counter()
    for turn in range(-warm_up, rounds):
        if turn >= 3 and time.perf_counter() - begin > seconds:
            break
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            wall, cpu = clocked(calls[name])
            if turn >= 0:
                times[name].wall.append(wall)
                times[name].cpu.append(cpu)
    return times


def clocked(call: Call) -> tuple[float, float]:
    """Wall and processor seconds of one call."""
    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wait()
    return time.perf_counter() - wall, time.process_time() - cpu


def wait() -> None:
    """Waits for what the GPU still has to do."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def ratio(a: Times, b: Times) -> dict[str, float]:
    """``a`` in units of ``b``: of the minima (judged), of the minima of processor time, median of the rounds' ratios."""
    return {
        "ratio": a.best / b.best,
        "cpu_ratio": min(a.cpu) / min(b.cpu),
        "median_ratio": statistics.median(x / y for x, y in zip(a.wall, b.wall)),
    }


def target(what: str, value: float | None, bound: float, unit: str = "", at_least: bool = False) -> dict[str, Any]:
    """A number that was promised, and whether it was reached (None: not measured)."""
    reached = None if value is None else (value >= bound if at_least else value <= bound)
    sign = "≥" if at_least else "≤"
    return {"what": what, "value": value, "target": f"{sign} {bound:g}{unit}", "unit": unit, "reached": reached}


def machine() -> dict[str, Any]:
    """Hardware and versions."""
    packages = ("torch", "lightning", "numpy", "torchcfm", "torchmetrics", "faiss-cpu")
    about: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | {p: v for p in packages if (v := _version(p))},
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        about["gpu"] = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB"
        about["versions"]["cuda"] = torch.version.cuda
    return about


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """What every script takes."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the numbers")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: does it run?")
    # Two spinning threads on a core that another process uses can be a hundred times slower than one.
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default 1)")
    return parser


def finish(
    name: str, rows: list[dict[str, Any]], targets: list[dict[str, Any]], path: Path | None, **more: Any
) -> None:
    """Prints the targets, and writes all numbers where they are wanted."""
    for entry in targets:
        value = "not measured" if entry["value"] is None else f"{entry['value']:.4g}{entry['unit']}"
        verdict = {True: "reached", False: "MISSED", None: ""}[entry["reached"]]
        print(f"  {entry['what']}: {value} (target {entry['target']}) {verdict}")
    found = {"benchmark": name, "machine": machine(), "rows": rows, "targets": targets, **more}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.flush()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
