"""``fm-lightning report``: what it says where there is nothing to report on."""

from __future__ import annotations

import json

import numpy as np
from tiny_runs import says


def test_report_says_what_is_missing(refused, tmp_path):
    says(refused("report"), "expected one run directory", "type fm-lightning report RUN_DIR")
    says(refused("report", "a", "b"), "expected one run directory")
    says(refused("report", "nowhere"), "no directory 'nowhere'", "type: fm-lightning report")
    says(refused("report", "tiny.yaml"), "'tiny.yaml' is a file", "expected a run directory")
    run = tmp_path / "run"
    run.mkdir()
    says(refused("report", "run"), "results.json", "type: fm-lightning test -c")
    whole = json.dumps({"schema": 1, "rows": [{"name": "base", "kind": "base", "metrics": {}}]})
    (run / "results.json").write_text(whole[: len(whole) // 2])
    says(refused("report", "run"), "results.json", "truncated", "type")
    (run / "results.json").write_text('{"loss": 3}')
    says(refused("report", "run"), "results.json", "from somewhere else", "type")
    (run / "results.json").write_text(whole)
    np.savez(run / "arrays.npz", **{"kpe/base": np.ones(50)})
    arrays = (run / "arrays.npz").read_bytes()
    (run / "arrays.npz").write_bytes(arrays[: len(arrays) // 2])
    says(refused("report", "run"), "arrays.npz", "type")
