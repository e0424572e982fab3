"""configs/imagenet256_*.yaml, run at tiny scale through the command: from latents, archive and weights to the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_imagenet import SEEDS, small
from tiny_runs import says

from fm_lightning.metrics.archive_images import ArchiveImages
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.pictures import read_pictures


def results(workplace, name):
    found = json.loads((workplace / "runs" / name / "results.json").read_text())
    return found, {row["name"]: row for row in found["rows"]}


@pytest.mark.parametrize("size", ["s", *(pytest.param(size, marks=pytest.mark.slow) for size in ("b", "xl"))])
def test_training(workplace, command, size):
    name = f"imagenet256_sit_{size}"
    ended = command("run", "-c", small(name))
    assert ended.status == 0, ended.err
    found, rows = results(workplace, name)
    assert set(rows) == {"base", "launch", "landing", "balanced", "held_out", "copies"}
    assert found["weights"] is None
    assert rows["copies"]["metrics"]["f_mem"] == 1, "mirrored latents are views of the same images"
    assert "near_duplicates" not in rows["base"]["metrics"]
    assert {"fid", "precision", "recall", "f_mem"} <= set(rows["base"]["metrics"])
    assert rows["base"]["nfe"] == 8, "four steps, guided"


def test_a_public_checkpoint(workplace, command):
    """Compared on the training latents; the table and the report say that the model was not trained here."""
    path = small("imagenet256_kts")
    ended = command("test", "-c", path)
    assert ended.status == 0, ended.err
    says(ended.out, "of SiT-XL-2-256.pt (ema), which was not trained here, on 9 seeds")
    found, rows = results(workplace, "imagenet256_kts")
    assert found["weights"] == "SiT-XL-2-256.pt (ema)"
    assert {"base", "base50", "heun", "heun_balanced", "ssc50", "launch.true_clock", "held_out"} <= set(rows)
    assert {"fid", "sfid", "precision", "f_mem", "kpe_mean", "clip_score_mean", "clip_margin_mean"} <= set(
        rows["base"]["metrics"]
    )
    assert (rows["base"]["samples"], rows["heun"]["nfe"]) == (SEEDS, 8)
    assert "not trained here" in command("report", "runs/imagenet256_kts").out + ended.out

    ended = command("predict", "-c", path, "--trainer.callbacks.SampleWriter.npz", "samples.npz")
    assert ended.status == 0, ended.err
    says(ended.out, "5 images for ADM's evaluator: runs/imagenet256_kts/samples.npz")
    run = workplace / "runs" / "imagenet256_kts"
    with np.load(run / "samples.npz") as archive:
        assert archive.files == ["arr_0"]
        written = archive["arr_0"]
    kept = [np.load(file) for file in sorted((run / "samples").glob("base-*.npz"))]
    assert len(kept) == 2, "batches of four"
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, np.concatenate([f["images"] for f in kept]).transpose(0, 2, 3, 1))
    assert [f["seeds"].tolist() for f in kept] == [[30_000_000 + i for i in range(4)], [30_000_004]]
    assert ArchiveImages(run / "samples.npz").shape == (5, 8, 12, 3)


def unknown(config):
    config["data"] = {
        "class_path": "fm_lightning.data.Unknown",
        "init_args": {
            "shape": [4, 4, 6],
            "num_classes": 3,
            "autoencoder": {"class_path": "latent_images.TinyNetwork"},
            "factor": 0.18215,
            "eval_batch_size": 4,
            "val_seeds": SEEDS,
            "test_seeds": SEEDS,
            "predict_seeds": 5,
        },
    }
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"].endswith("ScheduleTable"):
            callback["init_args"]["families"] = "cheap"  # which no row can be judged by


@pytest.mark.slow
def test_a_public_checkpoint_whose_data_are_unknown(workplace, command):
    path = small("imagenet256_kts", unknown)
    ended = command("test", "-c", path)
    assert ended.status == 0, ended.err
    assert ended.out.count("there are no training data") == 1
    found, rows = results(workplace, "imagenet256_kts")
    assert not {"held_out", "copies"} & set(rows)
    assert not [name for name in rows if "~" in name]
    assert {"fid", "sfid", "precision", "kpe_mean"} <= set(rows["base"]["metrics"])
    assert not [name for row in rows.values() for name in row["metrics"] if "mem" in name or "nn_" in name]
    assert found["left_out"].startswith("memorization, its verdicts and the floors")
    assert found["headline"].startswith("No claim")
    assert found["training_images"] is None
    assert found["verdicts"] == []
    shown = read_pictures(Evaluation.open(workplace / "runs" / "imagenet256_kts"))
    assert shown["samples/base"].shape == (SEEDS, 8, 12, 3)
    assert "nearest/base" not in shown

    assert command("report", "runs/imagenet256_kts").status == 0
    ended = command("validate", "-c", path)
    assert ended.status == 0, ended.err
    says(ended.out, "val/base/fid")
    assert "val/loss" not in ended.out
    ended = command("predict", "-c", path)
    assert ended.status == 0, ended.err
    for verb in ("fit", "run"):
        ended = command(verb, "-c", path, "--name", "other")
        assert ended.status == 2
        says(ended.err, "Unknown has no data to train on")


def without_statistics(config):
    unknown(config)
    for callback in config["trainer"]["callbacks"]:
        callback.get("init_args", {}).pop("statistics", None)
        callback.get("init_args", {}).pop("precision_recall", None)


def archive(**arrays):
    return lambda config: np.savez("VIRTUAL_imagenet256_labeled.npz", **arrays)


def closed_form(config):
    unknown(config)
    config["model"]["fields"] = {"empirical": {"class_path": "fm_lightning.comparison.ClosedForm"}}


def no_null_label(config):
    config["model"]["net"] = {
        "class_path": "fm_lightning.nets.UNet",
        "init_args": {
            "shape": [4, 4, 6],
            "num_channels": 8,
            "channel_mult": [1],
            "attention_resolutions": [],
            "num_classes": 3,
            "groups": 4,
        },
    }


def of_another_size(config):
    config["model"]["net"]["init_args"]["width"] = 32


def truncated(config):
    file = next(iter(sorted(Path("latents/imagenet256").glob("train-*.safetensors"))))
    file.write_bytes(file.read_bytes()[:-40])


def weights(text):
    def change(config):
        Path("bad.pt").write_bytes(text)
        config["model"]["weights"] = "bad.pt"

    return change


MU, SIGMA = np.zeros(6), np.eye(6)
REFUSED = {
    "no real images": (without_statistics, ["Unknown has no real images for fid", "Pass statistics"]),
    "no training data for the closed form": (
        closed_form,
        ["(ClosedForm) needs training data", "Unknown has none"],
    ),
    "no null label": (no_null_label, ["guidance=1.5: the network has no null label"]),
    "another size": (of_another_size, ["SiT", "16"]),
    "truncated shard": (truncated, ["train-00000-of-00003.safetensors"]),
    "missing weights": (lambda c: c["model"].update(weights="nowhere.pt"), ["There is no file nowhere.pt"]),
    "weights that are none": (weights(b"not a file of weights"), ["bad.pt", "cannot be read"]),
    "no moments": (archive(arr_0=np.zeros((12, 8, 12, 3), np.uint8)), ["VIRTUAL", "mu"]),
    "no images": (archive(mu=MU, sigma=SIGMA, mu_s=MU, sigma_s=SIGMA), ["images in VIRTUAL", "arr_0"]),
    "other classes": (
        lambda c: c["model"]["net"]["init_args"].update(num_classes=7),
        ["y_embedder", "not [8, 16]"],
    ),
    "other latents": (lambda c: c["model"]["net"]["init_args"].update(shape=[4, 8, 8]), ["pos_embed", "[1, 6, 16]"]),
}


FAST = ("another size", "truncated shard", "no null label")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=() if case in FAST else pytest.mark.slow) for case in REFUSED]
)
def test_refused_in_one_line(workplace, refused, case):
    change, words = REFUSED[case]
    says(refused("test", "-c", small("imagenet256_kts", change)), *words)
