"""How much memory a command needs: the most that its process ever had, read-only pages of files included."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.timing import clocked

ROOT = Path(__file__).parent.parent
# The mark of this image of the process: what the system tells of a child's peak counts its parent's before the exec.
CODE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from fm_lightning.__main__ import main
main()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


class Cost(NamedTuple):
    """Of a command, from its start to its end."""

    seconds: float
    bytes: int


def cost(*words: object, cwd: Path, env: Mapping[str, str]) -> Cost:
    """Runs ``fm-lightning WORDS`` in a process of its own, on Linux.

    Raises:
        RuntimeError: it failed.
    """
    said: list[str] = []

    def run() -> None:
        ended = subprocess.run(
            [sys.executable, "-c", CODE, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True
        )
        if ended.returncode:
            raise RuntimeError(f"{words} ended with status {ended.returncode}: {ended.stderr}")
        said.append(ended.stdout)

    seconds, _ = clocked(run)
    return Cost(seconds, 1024 * int(said[0].rstrip().rpartition("VmHWM:")[2].split()[0]))
