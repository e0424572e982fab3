"""``fm-lightning encode`` with diffusers' autoencoder and images in files, and training on what it leaves."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from image_files import arrays, png, write_parquet
from lightning import Trainer
from safetensors.torch import load_file, save_file
from tiny_runs import tiny_config

from fm_lightning import FlowMatching
from fm_lightning.cli.encode import main, processes
from fm_lightning.data import ImageData, Latents
from fm_lightning.data.batches import Share
from fm_lightning.errors import UserError
from fm_lightning.nets import UNet
from fm_lightning.table.claim import RUNNING, Owner


@pytest.fixture
def config(tmp_path, monkeypatch, kl_folder):
    """encode.yaml in an empty working directory, with 30 training and 12 test images [3, 16, 16] in classes.

    FM_LIGHTNING_TEST_CIFAR10 names a parquet file of CIFAR-10 to take instead.
    """
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    if cifar10 := os.environ.get("FM_LIGHTNING_TEST_CIFAR10"):
        source = {"source": cifar10, "train_part": "train[:30]", "held_out_part": "train[30:42]", "resize": 16}
    else:
        source = {"source": str(tmp_path / "set"), "resize": 16, "crop": 16}
        for split, seed, n in (("train", 0, 30), ("test", 1, 12)):
            pictures = arrays(n, seed, (20, 17, 3))
            write_parquet(tmp_path / "set" / f"{split}-0.parquet", map(png, pictures), [i % 3 for i in range(n)])
    content = {
        "data": {"class_path": "fm_lightning.data.ImageData", "init_args": {**source, "conditional": True}},
        "autoencoder": str(kl_folder),
        "folder": "latents",
        "shard_size": 11,
        "batch_size": 4,
    }
    (tmp_path / "encode.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "encode.yaml"


def refused(capsys, *args):
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    assert ended.value.code == 2
    *before, last = capsys.readouterr().err.splitlines()  # libraries show how far they are
    assert last.startswith("fm-lightning: ")
    assert len(last) < 600, last
    assert not any("Traceback" in line for line in before)
    return last


def test_from_images_to_training_and_back(config, kl_folder, capsys):
    from diffusers import AutoencoderKL  # takes seconds

    main(["-c", str(config)])
    assert "42 images as latents of [4, 8, 8]" in capsys.readouterr().out
    manifest = json.loads((config.parent / "latents" / "manifest.json").read_text())
    assert (manifest["shift"], manifest["factor"]) == (0.25, 0.18215)
    assert manifest["source"]["init_args"]["resize"] == 16

    data = Latents("latents", str(kl_folder), conditional=True, flip=True, batch_size=6, eval_batch_size=5, val_seeds=5)
    data.setup()
    network = AutoencoderKL.from_pretrained(kl_folder).eval()
    images = ImageData(**manifest["source"]["init_args"])
    images.setup()
    with torch.no_grad():
        expected = network.encode(images.real()).latent_dist
        mirrored = network.encode(images.real().flip(-1)).latent_dist
    torch.testing.assert_close(data.real(), (expected.mean - 0.25) * 0.18215, rtol=2e-3, atol=2e-4)
    torch.testing.assert_close(data.train_split.moments[1][:].float(), expected.std, rtol=2e-3, atol=1e-6)
    torch.testing.assert_close(data.reference()[30:], (mirrored.mean - 0.25) * 0.18215, rtol=2e-3, atol=2e-4)
    assert torch.equal(data.train_split.y, images.train_split.y)
    with torch.no_grad():
        visible = network.decode(expected.mean).sample
    assert (data.to_uint8(data.real()).float() - ((visible + 1) * 127.5).clamp(0, 255)).abs().max() <= 1

    model = FlowMatching(UNet((4, 8, 8), 8, 1, (1, 2), (), num_classes=data.num_classes, groups=4), base_seed=0)
    trainer = Trainer(
        max_steps=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 3
    assert torch.isfinite(trainer.callback_metrics["val/loss"])


def test_processes_of_a_launcher_share_the_work(config, monkeypatch, capsys):
    main(["-c", str(config)])
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("WORLD_SIZE", "2")
        main(["-c", str(config), "--folder", "many"])
    assert "Process 0 of 2 has encoded its share" in capsys.readouterr().out
    one, many = ({path.name: path.read_bytes() for path in (config.parent / f).iterdir()} for f in ("latents", "many"))
    assert one == many


def test_two_commands_on_one_folder(config, monkeypatch, capsys):
    """The second one is refused; a process of the first one's launch is not."""
    claim = Path("latents") / RUNNING
    claim.parent.mkdir()
    claim.write_text(json.dumps(asdict(Owner("a1", "elsewhere", "other-host", 1))))
    assert "Another command (process 1 on other-host) is writing to latents" in refused(capsys, "-c", config)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    main(["-c", str(config)])
    assert "Process 1 of 2 has encoded its share" in capsys.readouterr().out


def test_places_of_processes():
    assert processes({}) == (Share(0, 1), 0)
    assert processes({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == (Share(3, 8), 1)
    step = {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "0"}
    assert processes(step) == (Share(2, 4), 0)
    # A batch script's own process is no member of a step.
    assert processes({"SLURM_PROCID": "0", "SLURM_NTASKS": "8"}) == (Share(0, 1), 0)
    with pytest.raises(UserError, match="RANK=2 is not below WORLD_SIZE=2"):
        processes({"RANK": "2", "WORLD_SIZE": "2"})


def test_a_class_of_ones_own(config, monkeypatch):
    (config.parent / "own_autoencoder.py").write_text(
        "import torch\n"
        "class Pooled(torch.nn.Module):\n"
        "    def encode(self, images):\n"
        "        return torch.nn.functional.avg_pool2d(images, 2)\n"
        "    def decode(self, latents):\n"
        "        return torch.nn.functional.interpolate(latents, scale_factor=2)\n"
    )
    monkeypatch.syspath_prepend(config.parent)
    main(["-c", str(config), "--autoencoder", "own_autoencoder.Pooled", "--factor", "2", "--shift", "[0.1, 0.2, 0.3]"])
    data = Latents("latents")
    data.setup()
    assert data.shape == (3, 8, 8)
    mean = data.real_split.x[:].float()
    torch.testing.assert_close(data.real(), (mean - torch.tensor([0.1, 0.2, 0.3])[:, None, None]) * 2)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--autoencoder", "./nowhere"], "Cannot load"),
        (
            ["--autoencoder", "no-user/has-this"],
            "Cannot load .*set a folder that save_pretrained wrote",
        ),
        (["--dtype", "int8"], "int8"),
        (["--shard_size", "0"], "shard_size=0 must"),
        (["--batchsize", "4"], "Unknown key --batchsize. Use --batch_size"),
        (["--data.init_args.source", "./nowhere"], "source='./nowhere' does not exist"),
        (["--data.init_args.resize", "0"], "resize=0 must"),
        (["--data", "fm_lightning.data.Nowhere"], "Nowhere"),
        (["--data", "fm_lightning.data.Toy2D"], "holds no images"),
        (["--device", "abacus"], "abacus"),
    ],
)
def test_refused_in_one_line(config, capsys, monkeypatch, args, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert re.search(said, line := refused(capsys, "-c", config, *args)), line


def test_weights_that_lack_some_or_are_damaged(config, kl_folder, capsys, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((kl_folder / "config.json").read_bytes())
    weights = broken / "diffusion_pytorch_model.safetensors"
    tensors = load_file(kl_folder / weights.name)
    tensors.pop("decoder.conv_in.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    assert "lacks 1 weights, for example decoder.conv_in.weight" in refused(
        capsys, "-c", config, "--autoencoder", broken
    )
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "Cannot load" in refused(capsys, "-c", config, "--autoencoder", broken)


def test_nothing_given(capsys):
    assert "data" in refused(capsys)


def test_a_run_on_latents(command, folder, monkeypatch):
    """Trained, compared and shown: samples are decoded by an autoencoder of one's own."""
    here = Path.cwd()
    monkeypatch.syspath_prepend(Path(__file__).parents[2])

    def on_latents(config):
        config["data"] |= {"class_path": "fm_lightning.data.Latents"}
        config["data"]["init_args"] |= {
            "folder": str(folder),
            "autoencoder": {"class_path": "latent_images.TinyNetwork"},
            "n": 9,
            "flip": True,
            "conditional": True,
        }
        config["model"]["net"]["init_args"] |= {"shape": [4, 4, 6], "num_classes": 3}

    tiny_config(here / "latents.yaml", on_latents)
    ended = command("run", "-c", "latents.yaml")
    assert ended.status == 0, ended.err
    assert (here / "runs" / "tiny" / "results.json").exists()
    ended = command("predict", "-c", "latents.yaml")
    assert ended.status == 0, ended.err
    [written] = (here / "runs" / "tiny" / "samples").glob("base-*.npz")
    assert np.load(written)["images"].shape == (5, 3, 8, 12)
    ended = command("fit", "-c", "latents.yaml", "--name", "other", "--data.init_args.n", "99")
    assert ended.status == 2
    assert "n=99 is more than" in ended.err


def test_the_verb_and_the_example(command, config, kl_folder, monkeypatch):
    """configs/encode_imagenet256.yaml at the size of the images here, through the command; and what is refused there."""
    example = yaml.safe_load((Path(__file__).parents[3] / "configs" / "encode_imagenet256.yaml").read_text())
    here = yaml.safe_load(config.read_text())
    example["data"]["init_args"] |= here["data"]["init_args"] | {"adm_crop": 16}
    for option in ("resize", "crop"):
        example["data"]["init_args"].pop(option, None)
    example["autoencoder"] = str(kl_folder)
    Path("example.yaml").write_text(yaml.safe_dump(example))
    ended = command("encode", "-c", "example.yaml", "--shard_size", 11)
    assert ended.status == 0, ended.err
    assert "42 images as latents of [4, 8, 8]" in ended.out
    assert "folder: latents/imagenet256" in ended.out

    ended = command("encode", "-c", "example.yaml", "--shard_size", 11, "--data.init_args.train_part", "train[:20]")
    assert ended.status == 2
    assert "holds latents of another source or form" in ended.err.splitlines()[-1]

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fm_lightning.data.latents.encode.save_file", full)
    ended = command("encode", "-c", "example.yaml", "--folder", "other")
    assert ended.status == 2
    assert "No space left on device" in ended.err.splitlines()[-1]
    assert "encode" in command("--help").out
