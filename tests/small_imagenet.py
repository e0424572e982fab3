"""What the ImageNet configurations name, and these themselves, all of it small."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from latent_images import images, tiny
from tiny_clip import tiny_clip
from torch import nn

from fm_lightning.data.latents import encode_images
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.nets import SiT

CONFIGS = Path(__file__).parents[1] / "configs"
SHAPE, CLASSES, SEEDS = [4, 4, 6], 3, 9
NET = {"shape": SHAPE, "width": 16, "depth": 1, "heads": 2, "patch": 2, "num_classes": CLASSES}


class Pooled(FeatureExtractor):
    """Six numbers of an image in Inception's place: [B, 3, 8, 12] uint8 averaged over squares of 4, two channels of them."""

    key, label, space, statistics = "fid", "small FID", "uint8", ("mu", "sigma")

    def forward(self, x):
        return nn.functional.avg_pool2d(x.float() / 255, (8, 4)).flatten(1)[:, :6]


class SpatialPooled(Pooled):
    key, label, statistics = "sfid", "ssmall FID", ("mu_s", "sigma_s")


def make_workplace(folder: Path) -> None:
    """Latents, archive and weights under the names of the configurations."""
    encode_images(images(), tiny(), folder / "latents" / "imagenet256", shard_size=8, batch_size=8)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 8, 12, 3), dtype=np.uint8)
    features = Pooled()(torch.from_numpy(x).permute(0, 3, 1, 2)).numpy().astype(np.float64)
    mu, sigma = features.mean(0), np.cov(features.T)
    np.savez(folder / "VIRTUAL_imagenet256_labeled.npz", arr_0=x, mu=mu, sigma=sigma, mu_s=mu, sigma_s=sigma)
    torch.manual_seed(0)
    net = SiT(**NET, learn_sigma=True)
    for parameter in net.parameters():  # as initialised it does not move at all
        nn.init.normal_(parameter, std=0.05)
    tiny_clip(folder / "clip")
    torch.save({"ema": net.state_dict(), "step": 7}, folder / "SiT-XL-2-256.pt")


def small(name: str, change=lambda config: None) -> Path:
    """A shipped configuration at the size of the working directory's data; everything else stays as it is."""
    config: dict[str, Any] = copy.deepcopy(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))
    data, model, trainer = config["data"]["init_args"], config["model"], config["trainer"]
    data |= {"autoencoder": {"class_path": "latent_images.TinyNetwork"}, "eval_batch_size": 4, "test_seeds": SEEDS}
    data |= {"predict_seeds": 5}
    if "max_steps" in trainer:
        data |= {"batch_size": 8, "val_seeds": SEEDS}
        trainer |= {"max_steps": 3, "val_check_interval": 3, "log_every_n_steps": 1}
    net = model["net"]["init_args"]
    del net["model"]
    net |= NET
    model["compile"], trainer["devices"] = False, 1
    for schedules in (model.get("val_schedules", {}), model["test_schedules"]):
        for schedule in schedules.values():
            schedule["steps"] = max(2, schedule["steps"] // 60)
    features = {
        "InceptionFeatures": "small_imagenet.Pooled",
        "SpatialInceptionFeatures": "small_imagenet.SpatialPooled",
    }
    for callback in trainer["callbacks"]:
        kind, options = callback["class_path"].rpartition(".")[2], callback.setdefault("init_args", {})
        if kind == "FIDMonitor":
            listed = options["extractors"] if isinstance(options["extractors"], list) else [options["extractors"]]
            for extractor in listed:
                extractor["class_path"] = features[extractor["class_path"].rpartition(".")[2]]
        elif kind == "SemanticsMonitor":
            options |= {"clip": "clip", "class_names": ["a", "b", "c"]}
        elif kind == "ScheduleTable":
            options["families"] = "none"  # doses take 500 calibration seeds
    change(config)
    path = Path("small.yaml")
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return path
