"""What W&B gets of a comparison, from an offline run's files; rows and verdicts as a comparison writes them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import wandb
from lightning import Trainer
from lightning.pytorch.loggers import WandbLogger
from wandb_files import read_wandb

from fm_lightning.callbacks.wandb_media import log_comparison
from fm_lightning.comparison.results import Results

STEPS, SEEDS = 8, 50


def row(name, kind, of=None, f_mem=0.5, quality=2.0):
    metrics = {"f_mem": f_mem, "quality_frechet": quality}
    return {"name": name, "kind": kind, "of": of, "label": name, "nfe": 8, "samples": SEEDS, "metrics": metrics}


def family(name, outcome, residual, needed=None):
    about = {"family": name, "outcome": outcome, "residual": residual, "margin": 0.1, "n_needed": needed}
    return about | {"sentence": f"{outcome}: {name}"}


def judged():
    doses = [
        row(f"kts~noise~{k}", "family", "kts", f, q) for k, (f, q) in enumerate([(0.5, 2.0), (0.4, 2.2), (0.3, 2.8)])
    ]
    rows = [
        row("base", "base"),
        row("kts", "schedule", f_mem=0.42, quality=2.6),
        row("kts.true_clock", "control", "kts"),
    ]
    families = [family("noise", "no better", [0.4, 0.2, 0.6]), family("blend", "out of reach", None)]
    verdict = {
        "schedule": "kts", "against": "base", "outcome": "no better", "claim": "is no better than noise", "n": SEEDS,
        "n_needed": None, "paragraph": "Over 50 seeds.", "measure": "frechet", "base_quality": 2.0,
        "margin": {"memorized": 0.01, "quality": 0.04}, "families": families,
    }  # fmt: skip
    places = {"noise": [[dose["name"] for dose in doses]], "blend": []}
    content = {
        "rows": rows + doses,
        "tau_split": 0.6,
        "verdicts": [verdict],
        "judged": {"kts": {"base": "base", "families": places}},
        "headline": "kts is no better than noise.",
    }
    return Results.from_dict(content)


def saved():
    rng, edges = np.random.default_rng(0), np.linspace(0, 1, STEPS + 1)
    arrays = {}
    for name in ("base", "kts", "kts.true_clock", "kts~noise~0"):
        arrays[f"samples/{name}"] = rng.integers(0, 256, (12, 8, 8, 1)).astype(np.uint8)
        if "~" not in name:
            arrays |= {f"kpe/{name}": rng.gamma(9, 1, SEEDS), f"power/{name}": 1 + edges[:-1]}
            arrays |= {f"times/{name}": edges, f"gain/{name}": np.ones(STEPS)}
    return arrays


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    wandb.teardown()  # W&B keeps where it writes for all runs of a process
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        logger = WandbLogger(offline=True, save_dir=folder, project="fm_lightning-tests")
        trainer = Trainer(accelerator="cpu", logger=logger, enable_progress_bar=False, enable_model_summary=False)
        log_comparison(trainer, judged(), saved())
        logger.experiment.finish()
    return folder, read_wandb(folder)


def table(logged, name):
    folder, written = logged
    content = json.loads(next(folder.rglob(written["history"][name][-1]["path"])).read_text())
    return [dict(zip(content["columns"], line)) for line in content["data"]]


def test_verdicts_stand_in_tables(logged):
    noise, blend = table(logged, "test/families")
    assert noise | {"schedule": "kts", "outcome": "no better", "residual": 0.4, "low": 0.2, "high": 0.6} == noise
    assert (blend["outcome"], blend["residual"], blend["sentence"]) == ("out of reach", None, "out of reach: blend")
    (claim,) = table(logged, "test/verdicts")
    assert (claim["claim"], claim["paragraph"]) == ("is no better than noise", "Over 50 seeds.")


def test_every_number_stands_once_in_the_summary(logged):
    summary, history = logged[1]["summary"], logged[1]["history"]
    assert summary["headline"] == "kts is no better than noise."
    assert (summary["test/base/f_mem"], summary["test/kts/quality_frechet"]) == (0.5, 2.6)
    assert summary["test/kts/outcome"] == "no better"
    media = {"schedules", "verdicts", "families", "frontier", "energy_profile", "samples"}
    assert {name for name in history if name.startswith("test/")} == {f"test/{name}" for name in media}
    assert not [name for name in summary if "~" in name], "families stand in tables alone"


def test_rows_stand_in_a_table_and_their_samples_in_pictures(logged):
    folder, written = logged
    assert [line["row"] for line in table(logged, "test/schedules")] == [row.name for row in judged().rows]
    samples = written["history"]["test/samples"][-1]
    assert samples["captions"] == ["base", "kts", "kts.true_clock"]
    assert samples["height"] == 2 * (8 + 2) + 2, "12 samples, 8 a line"
    for name in ("test/frontier", "test/energy_profile"):
        image = written["history"][name][-1]
        assert image["_type"] == "image-file"
        assert next(folder.rglob(image["path"])).stat().st_size > 500
