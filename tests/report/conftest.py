"""Results of a real run, small enough for the report's tests: points in the plane, two schedules, all families.

What the run cannot have, pictures of images, is put into its arrays under its own rows' names.
"""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from filelock import FileLock
from tiny_runs import tiny_config

STEPS = 10


def configured(config):
    def shaped(alpha, beta):
        gain = {"class_path": "fm_lightning.flow.KTS", "init_args": {"alpha": alpha, "beta": beta}}
        return {"steps": STEPS, "gain": gain}

    config["data"]["init_args"].update(n=12, batch_size=128, eval_batch_size=500, val_seeds=40, test_seeds=400)
    config["model"]["net"]["init_args"].update(width=64, depth=2)
    config["model"] |= {
        "val_schedules": {"base": {"steps": STEPS}},
        "test_schedules": {"base": {"steps": STEPS}, "launch": shaped(0.02, 0.0), "stronger": shaped(0.02, 0.04)},
        "judge": ["stronger"],
        "fields": {"empirical": {"class_path": "fm_lightning.comparison.ClosedForm"}},
    }
    config["trainer"].update(max_steps=1500, val_check_interval=500, log_every_n_steps=50)
    callbacks = {each["class_path"].rpartition(".")[2]: each for each in config["trainer"]["callbacks"]}
    callbacks["MemorizationMonitor"]["init_args"] = {"threshold": 0.15}  # held-out points in the plane lie near some
    callbacks["ScheduleTable"]["init_args"] = {"families": "all"}
    callbacks["ModelCheckpoint"]["init_args"].update(every_n_train_steps=1500, save_top_k=1)
    distance = {"class_path": "fm_lightning.callbacks.FIDMonitor", "init_args": {"extractors": "fd_raw"}}
    config["trainer"]["callbacks"].insert(3, distance)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, worker_id):
    """Where the run lies, one for all workers."""
    base = tmp_path_factory.getbasetemp()
    place = (base if worker_id == "master" else base.parent) / "measured"
    place.mkdir(exist_ok=True)
    return place


@pytest.fixture(scope="session")
def measured(folder):
    """``(results, arrays)`` as the command hands them to the page; the worker that asks first has them made."""
    kept = folder / "kept.pickle"
    with FileLock(folder / "lock"):
        if not kept.exists():
            kept.write_bytes(pickle.dumps(_measure(folder)))
    return pickle.loads(kept.read_bytes())


def _measure(folder):
    from fm_lightning.cli import command as cli

    kept = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        patch.setattr(
            "fm_lightning.report.page.write_report", lambda run, results, arrays: kept.update(r=results, a=arrays)
        )
        cli.main(["run", "-c", str(tiny_config(folder / "tiny.yaml", configured))])
    results = json.loads((folder / "runs" / "tiny" / "results.json").read_text())
    assert [bool(verdict["families"]) for verdict in results["verdicts"]] == [True], (
        "the figures have something to show"
    )
    return results, kept["a"]


@pytest.fixture(scope="session")
def make_results(measured):
    """``make_results(kind)`` -> results as plain data, and arrays, of one's own.

    Kind "toy" is what was measured; "gray" and "rgb" have images for pictures.
    """

    def make(kind="toy"):
        results, arrays = copy.deepcopy(measured[0]), dict(measured[1])
        return results, arrays if kind == "toy" else _with_images(results, arrays, kind == "rgb")

    return make


def _with_images(results, arrays, colour):
    from sklearn.datasets import load_digits

    images = load_digits().images[:100, :, :, None] / 16.0
    if colour:
        images = np.concatenate([images * 0.9 + 0.1, images * 0.6, 1 - images * 0.7], axis=-1)
    shown = (images * 255).astype(np.uint8)
    rng = np.random.default_rng(0)
    del arrays["training/points"]
    arrays |= {"most_copied/images": shown[:10], "most_copied/base": np.arange(20, 0, -2)}
    for row in results["rows"]:
        picked = rng.integers(0, 100, 24)
        arrays[f"samples/{row['name']}"], arrays[f"nearest/{row['name']}"] = shown[picked], shown[picked]
        arrays[f"ratio/{row['name']}"] = rng.uniform(0.05, 0.9, 24)
    return arrays
