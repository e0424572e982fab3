"""All benchmarks, each in a process of its own; writes docs/results/benchmarks.md and .json.

    make bench          python -m benchmarks.run              CPU, at most 14 minutes
    make bench-gpu      python -m benchmarks.run --gpu        one GPU, at most 9 minutes

One that fails or exceeds its time is named on the page; the others still run. ``--only NAME ...`` repeats some and leaves
the others' numbers where they are.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.page import page
from benchmarks.timing import machine

ROOT = Path(__file__).parent.parent
# Module, arguments, seconds after which it is stopped: about twice what it takes on a machine with nothing else to do.
CPU: list[tuple[str, list[str], int]] = [
    ("startup", ["--quickstart"], 150),
    ("profile", [], 40),
    ("energy", [], 150),
    ("shared", [], 150),
    ("sampling", [], 120),
    ("neighbours", ["--rounds", "2"], 180),
    ("frechet", [], 120),
    ("verdicts", [], 60),
    ("steps", [], 120),
    ("sit", [], 90),
    ("support", ["--rounds", "2"], 90),
    ("table", [], 240),
]
GPU: list[tuple[str, list[str], int]] = [
    ("profile", [], 60),
    ("gpu_speed", [], 150),
    ("energy", [], 150),
    ("shared", [], 120),
    ("sampling", [], 180),
    ("frechet", [], 90),
]


def run(name: str, extra: list[str], limit: float) -> dict[str, Any]:
    """One benchmark's numbers, or why there are none; its lines are shown as they come."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{name}", *extra]
    print(f"\n== {' '.join(command[2:])}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "found.json"
        try:
            status = subprocess.run([*command, "--json", str(file)], cwd=ROOT, timeout=limit).returncode
            problem = f"ended with status {status}" if status else None
        except subprocess.TimeoutExpired:
            problem = f"stopped after {limit:.0f} s"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if problem:
        print(f"{name}: {problem}", flush=True)
    return {
        "benchmark": name,
        "date": now(),
        "command": f"python -m benchmarks.{name} {' '.join(extra)}".strip(),
        "seconds": time.perf_counter() - begin,
        "problem": problem or (None if found else "wrote nothing"),
        **found,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gpu", action="store_true", help="what needs a GPU")
    parser.add_argument("--only", nargs="*", help="some of them, by name")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes where there are any: do they run?")
    parser.add_argument("--minutes", type=float, default=None, help="for all together (14; on a GPU 9)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results")
    given = parser.parse_args()
    minutes = given.minutes or (9 if given.gpu else 14)
    begin = time.perf_counter()
    stem = given.out / ("benchmarks-gpu" if given.gpu else "benchmarks")
    found: list[dict[str, Any]] = []
    page_file = stem.with_suffix(".json")
    if given.only and page_file.exists():
        found = [e for e in json.loads(page_file.read_text())["benchmarks"] if e["benchmark"] not in given.only]
    for name, extra, limit in GPU if given.gpu else CPU:
        if (given.only and name not in given.only) or not (ROOT / "benchmarks" / f"{name}.py").exists():
            continue
        left = 60 * minutes - (time.perf_counter() - begin)
        if left < 5:
            found.append({"benchmark": name, "problem": f"left out: the {minutes:g} minutes were over"})
            continue
        smoke = ["--smoke"] if given.smoke and name != "neighbours" else []
        found.append(run(name, extra + smoke, min(limit, left)))
        write(stem, given.gpu, found)  # what has been measured outlives what comes next
    write(stem, given.gpu, found)
    print(f"\n{stem}.md after {time.perf_counter() - begin:.0f} s")


def now() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def write(stem: Path, gpu: bool, found: list[dict[str, Any]]) -> None:
    """The page and its numbers."""
    about = {
        "date": now(),
        "command": "make bench-gpu" if gpu else "make bench",
        "seconds": sum(entry.get("seconds", 0) for entry in found),
        "machine": machine(),
    }
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").write_text(json.dumps({**about, "benchmarks": found}, indent=1) + "\n")
    stem.with_suffix(".md").write_text(page(about, found))


if __name__ == "__main__":
    main()
