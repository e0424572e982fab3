"""cifar10.yaml at work: images from files, the U-Net (small), FID by Inception, every callback; on two steps."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

CIFAR10 = Path(__file__).parents[3] / "configs" / "cifar10.yaml"


@pytest.fixture
def source(tmp_path):
    """40 training and 12 test images as local parquet files."""
    rng = np.random.default_rng(0)
    features = Features({"img": ImageFeature(), "label": ClassLabel(names=[str(i) for i in range(10)])})
    folder = tmp_path / "images"
    folder.mkdir()
    for split, n in (("train", 40), ("test", 12)):
        rows = {
            "img": [Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(n)],
            "label": [i % 10 for i in range(n)],
        }
        Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def weights(tmp_path, monkeypatch):
    path = tmp_path / "inception.pth"
    path.touch()
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        patch.setattr(torch, "load", lambda *args, **kwargs: {})
        net = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.slow
def test_cifar10_from_files_to_the_report(command, drawn, tmp_path, monkeypatch, source, weights):
    monkeypatch.setenv("FM_LIGHTNING_CACHE", str(tmp_path / "cache"))
    config = yaml.safe_load(CIFAR10.read_text())
    config["data"]["init_args"] |= {"source": str(source), "batch_size": 4, "eval_batch_size": 3}
    config["data"]["init_args"] |= {"val_seeds": 10, "test_seeds": 11}  # ten splits of the Inception score
    config["model"]["net"]["init_args"] |= {"num_channels": 32, "num_res_blocks": 1, "num_head_channels": 32}
    config["model"] |= {"compile": False, "val_schedules": {"base": {"steps": 2}}}
    config["model"]["test_schedules"] = {
        "base": {"steps": 2},
        "kts": {"steps": 2, "gain": {"class_path": "fm_lightning.flow.KTS"}},
    }
    config["model"]["judge"] = ["kts"]
    config["trainer"] |= {"accelerator": "cpu", "precision": "32-true", "max_steps": 2, "val_check_interval": 1}
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"].endswith("FIDMonitor"):
            callback["init_args"] |= {"kid": True, "precision_recall": True, "inception_score": True}
            callback["init_args"]["extractors"][0]["init_args"] = {"weights": str(weights)}
    (tmp_path / "cifar10.yaml").write_text(yaml.safe_dump(config))
    ended = command("run", "-c", "cifar10.yaml")
    assert ended.status == 0, ended.err
    results = json.loads((tmp_path / "runs" / "cifar10" / "results.json").read_text())
    rows = {row["name"]: row["metrics"] for row in results["rows"]}
    assert {"base", "kts", "kts.true_clock", "held_out", "copies"} <= set(rows)
    assert rows["copies"]["f_mem"] == 1
    for name in ("fid", "kid_mean", "precision", "recall", "isc_mean", "f_mem"):
        assert rows["base"][name] is not None, name
    assert (tmp_path / "runs" / "cifar10" / "report.html").stat().st_size > 100_000
    kept = [np.load(file)["features"].shape for file in (tmp_path / "cache" / "features").glob("*.npz")]
    assert (40, 2048) in kept, "features of the real images are kept"
