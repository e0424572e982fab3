"""configs/latents_small.yaml from images to the report: the whole of ImageNet's way, by the commands in its first lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import png, write_parquet

from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.pictures import read_pictures

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "latents_small.yaml"


def autoencoder(folder: Path) -> Path:
    """One that makes of [3, 32, 32] latents [4, 4, 4], as Stable Diffusion's does."""
    AutoencoderKL = pytest.importorskip("diffusers").AutoencoderKL
    torch.manual_seed(0)
    AutoencoderKL(
        block_out_channels=(8,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=4,
    ).save_pretrained(folder)
    return folder


def pictures(n: int, seed: int) -> list[np.ndarray]:
    """A coarse pattern of its class's colour: [32, 32, 3] uint8 of class i % 10."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(9).integers(0, 200, (10, 3))
    coarse = rng.integers(0, 56, (n, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    return list((coarse + colours[np.arange(n) % 10][:, None, None]).astype(np.uint8))


@pytest.mark.slow
def test_from_images_to_the_report(tmp_path):
    for split, seed, n in (("train", 0, 300), ("test", 1, 60)):
        file = tmp_path / "images" / f"{split}-0.parquet"
        write_parquet(file, map(png, pictures(n, seed)), [i % 10 for i in range(n)], names=map(str, range(10)))
    where = autoencoder(tmp_path / "autoencoder")
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    own = {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
        "FM_LIGHTNING_CACHE": str(tmp_path / "cache"),
        "HF_HOME": str(tmp_path),
    }

    def command(*args: object) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "fm_lightning", *map(str, args)],
            cwd=tmp_path,
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout[-2000:] + ended.stderr[-4000:]
        return ended.stdout

    images = ("--data.init_args.source", tmp_path / "images", "--data.init_args.conditional", "true")
    said = command(
        "encode", "--data", "fm_lightning.data.ImageData", *images, "--autoencoder", where, "--folder", "latents"
    )
    assert "360 images as latents of [4, 4, 4]" in said

    here = ("--data.init_args.folder", "latents", "--data.init_args.autoencoder", where)
    said = command("run", "-c", CONFIG, *here, "--trainer.max_steps", 60, "--trainer.val_check_interval", 60)
    assert said.count("Report:") == 1
    run = tmp_path / "runs" / "latents_small"
    results = json.loads((run / "results.json").read_text())
    arrays = read_pictures(Evaluation.open(run))
    rows = {row["name"]: row for row in results["rows"]}
    assert {"base", "balanced", "balanced.true_clock", "held_out", "copies"} <= set(rows)
    assert (rows["base"]["samples"], rows["base"]["nfe"]) == (500, 40), "guidance costs two evaluations a step"
    assert rows["copies"]["metrics"]["f_mem"] == 1
    assert results["weights"] is None
    assert [v["schedule"] for v in results["verdicts"]] == ["balanced"]
    assert arrays["nearest/base"].shape == arrays["samples/base"].shape == (16, 32, 32, 3)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert not lines, "nothing but words"
