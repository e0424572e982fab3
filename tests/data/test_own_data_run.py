"""The README's recipe for data of one's own, with latents: from the class to the report."""

from __future__ import annotations

import json

import numpy as np

RECIPE = """
import torch
from fm_lightning.data import FlowData, Split


class MyLatents(FlowData):
    shape = (4, 8, 8)
    num_classes = 3
    space = "latent"

    def load(self):
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(90, 4, 8, 8, generator=generator), torch.arange(90) % 3
        self.train_split, self.held_out_split = Split(x[:40], y[:40]), Split(x[40:60], y[40:60])
        self.real_split = Split(x[60:], y[60:])
"""


def test_latents_run_to_the_report(command, tmp_path, monkeypatch):
    (tmp_path / "my_latents.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    changes = [
        "--data.init_args.batch_size",
        "16",
        "--data.init_args.test_seeds",
        "20",
        "--data.init_args.val_seeds",
        "20",
    ]
    changes += ["--model.net.init_args.shape", "[4,8,8]", "--model.net.init_args.num_classes", "3"]
    changes += ["--trainer.callbacks+=fm_lightning.callbacks.FIDMonitor", "--trainer.callbacks.extractors=fd_raw"]
    ended = command("run", "-c", "tiny.yaml", "--data", "my_latents.MyLatents", *changes)
    assert ended.status == 0, ended.err
    results = json.loads((tmp_path / "runs" / "tiny" / "results.json").read_text())
    rows = {row["name"]: row["metrics"] for row in results["rows"]}
    assert all(np.isfinite(rows[name]["fd_raw"]) for name in ("base", "kts", "held_out"))
    assert rows["copies"]["f_mem"] == 1
