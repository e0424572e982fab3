"""What a reader needs to judge a comparison's numbers, and to measure them again."""

from __future__ import annotations

import datetime
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from fm_lightning.data.samples import Samples

PACKAGES = ("fm-lightning", "torch", "lightning", "torchmetrics", "torch-fidelity", "numpy", "scipy", "scikit-learn")


def comparison_facts(folder: str | Path, data: Samples, device: torch.device, processes: int) -> dict[str, Any]:
    """Name, date, command, versions, hardware, and what the data are."""
    about = {
        "name": Path(folder).resolve().name,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "hardware": hardware(device, processes),
        "space": data.space,
        "shape": list(data.shape),
        "training_images": len(data.train_split) if data.has_training_data else None,
        "skipped_images": data.skipped,
    }
    if not data.has_training_data:
        about["left_out"] = "memorization, its verdicts and the floors: the training data are not available"
    return about


def hardware(device: torch.device, processes: int) -> str:
    """The machine in words."""
    if device.type == "cuda":
        return f"{processes} x {torch.cuda.get_device_name()}"
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads x {processes} processes"
