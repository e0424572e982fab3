"""What an import loads: rooms that are useful without Lightning wait neither for it nor for libraries that they do not use."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    "PIL diffusers jsonargparse lightning matplotlib pandas pyarrow rich scipy sklearn torch torchmetrics transformers"
)
# Room -> what is imported and used, and which of the above it may load besides those before it. One process for each chain.
CHAINS = (
    {
        "package": ("import fm_lightning", ""),
        "verdicts": ("import fm_lightning.verdicts.verdict, fm_lightning.verdicts.paragraph", ""),
        "results": ("from fm_lightning.comparison.results import read_results", ""),
        "study": ("import fm_lightning.study.across_runs", "pyarrow scipy"),
        "report": (
            "import fm_lightning.report.page, fm_lightning.report.run_page, fm_lightning.report.diagnosis",
            "PIL matplotlib rich",
        ),
    },
    {
        "nets": ("from fm_lightning.nets import SiT, UNet, Guided", "torch"),
        "flow": ("from fm_lightning import integrate_many, Schedule, KTS", ""),
        "table": ("import fm_lightning.table.writer; from fm_lightning import Evaluation", "pyarrow"),
        "comparison": (
            "from fm_lightning.comparison import Checkpoint, ClosedForm, Row; from fm_lightning import families",
            "",
        ),
        "adapters": ("from fm_lightning import load_network, load_sit, load_torchcfm, load_weights", ""),
        "metrics": (
            "from fm_lightning import FrechetDistance, KernelDistance, KineticPathEnergy, LocalSupport, MemorizationRate",
            "PIL matplotlib scipy torchmetrics transformers",  # all by way of torchmetrics
        ),
        "function": ("from fm_lightning import compare_schedules, falsify, judge", "rich"),
        "scheduler": ("from fm_lightning.adapters import KTSFlowMatchEulerScheduler", "diffusers"),
    },
)
ALLOWED = {room: may for chain in CHAINS for room, (_, may) in chain.items()}


@pytest.fixture(scope="module")
def loaded():
    """Room -> which of the heavy libraries its import loaded, besides those that an earlier room had loaded."""
    found = {}
    for chain in CHAINS:
        lines = ["import sys", "before = set()"]
        for use, _ in chain.values():
            lines += [use, "print(*(set(sys.modules) - before))", "before = set(sys.modules)"]
        ran = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
        for room, line in zip(chain, ran.stdout.splitlines(), strict=True):
            found[room] = set(line.split()) & set(HEAVY.split())
    return found


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_loads_only_what_it_uses(loaded, room):
    assert loaded[room] <= set(ALLOWED[room].split())
