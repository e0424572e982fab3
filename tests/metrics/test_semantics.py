"""CLIP scores and margins from a tiny random CLIP saved with its processor, and the same of a classifier."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_clip import tiny_clip
from torch import nn
from transformers import CLIPModel, CLIPProcessor

from fm_lightning.errors import UserError
from fm_lightning.metrics.features.digits import DigitsClassifier
from fm_lightning.metrics.semantics import ClassifierSemantics, ClipSemantics, margin
from fm_lightning.trajectory import Trajectory

CLASSES = ["cat", "dog", "toad"]
IMAGES = torch.randint(0, 256, (7, 3, 20, 24), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0])


def trajectory(x1, labels):
    n = len(x1)
    return Trajectory(
        x1=x1,
        energy=torch.zeros(1, n),
        field_energy=torch.zeros(n),
        displacement=torch.zeros(n),
        times=torch.tensor([0.0, 1.0], dtype=torch.float64),
        gain=torch.ones(1, dtype=torch.float64),
        nfe=1,
        labels=labels,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(tiny_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """A hub that cannot be reached costs a minute; offline mode answers at once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_scores_are_cosines_of_the_networks_embeddings(folder):
    """Against CLIP's own forward pass, whose logits are cosines times its scale."""
    metric = ClipSemantics(CLASSES, folder, batch_size=3)
    columns = metric.measure(trajectory(IMAGES, LABELS))
    net, processor = CLIPModel.from_pretrained(folder), CLIPProcessor.from_pretrained(folder)
    texts = [f"a photo of a {name}" for name in CLASSES]
    inputs = processor(text=texts, images=list(IMAGES), return_tensors="pt", padding=True)
    with torch.no_grad():
        cosines = net(**inputs).logits_per_image / net.logit_scale.exp()
    assert cosines.std(0).min() > 1e-4, "the images differ"
    own = cosines[torch.arange(7), LABELS]
    torch.testing.assert_close(columns["clip_score"], 100 * own, atol=1e-4, rtol=1e-5)
    others = cosines.clone()
    others[torch.arange(7), LABELS] = -2
    torch.testing.assert_close(columns["clip_margin"], 100 * (own - others.amax(1)), atol=1e-4, rtol=1e-5)


def test_gray_images_and_what_reads_them(folder):
    gray = IMAGES[:, :1]
    metric = ClipSemantics(CLASSES, folder, read=lambda x: (255 * x).round().to(torch.uint8))
    there = metric.measure(trajectory(gray.float() / 255, LABELS))
    here = ClipSemantics(CLASSES, folder).measure(trajectory(gray.expand(-1, 3, -1, -1), LABELS))
    torch.testing.assert_close(there, here)
    assert metric.measure(trajectory(gray[:0].float(), LABELS[:0]))["clip_score"].shape == (0,)


def test_summaries_in_batches(folder):
    metric = ClipSemantics(CLASSES, folder)
    for rows in (slice(0, 2), slice(2, 7)):
        metric.update(trajectory(IMAGES[rows], LABELS[rows]))
    numbers, columns = metric.compute(), metric.measure(trajectory(IMAGES, LABELS))
    assert numbers["clip_score_mean"] == pytest.approx(float(columns["clip_score"].mean()), rel=1e-4)
    assert numbers["clip_accuracy"] == pytest.approx(float((columns["clip_margin"] > 0).double().mean()))
    assert numbers["clip_accuracy_lo"] <= numbers["clip_accuracy"] <= numbers["clip_accuracy_hi"]


def test_fingerprints(folder):
    prints = {
        ClipSemantics(CLASSES, folder).fingerprint,
        ClipSemantics(CLASSES[:2], folder).fingerprint,
        ClipSemantics(CLASSES, folder, prompt="{}").fingerprint,
        ClassifierSemantics(nn.Linear(2, 3)).fingerprint,
        ClassifierSemantics(nn.Linear(2, 3)).fingerprint,
    }
    assert len(prints) == 5
    assert ClipSemantics(CLASSES, folder, batch_size=1).fingerprint in prints


def test_a_name_that_cannot_be_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, what in (
        ("no-user/no-such-clip", "Cannot load CLIP 'no-user/no-such-clip'"),
        (str(tmp_path), "holds no CLIP"),
    ):
        with pytest.raises(UserError, match=what) as caught:
            ClipSemantics(CLASSES, name).measure(trajectory(IMAGES, LABELS))
        assert "\n" not in str(caught.value)
        assert "pass that folder as model" in str(caught.value)


def test_bad_input(folder):
    with pytest.raises(UserError, match="ClipSemantics needs the samples' classes"):
        ClipSemantics(CLASSES, folder).measure(trajectory(IMAGES, None))
    with pytest.raises(UserError, match="needs the samples' classes"):
        ClipSemantics(CLASSES, folder).measure(IMAGES)
    with pytest.raises(UserError, match="from 0 to 2, but there are 2 classes"):
        ClipSemantics(CLASSES[:2], folder).measure(trajectory(IMAGES, LABELS))
    with pytest.raises(UserError, match="Pass read=data"):
        ClipSemantics(CLASSES, folder).measure(trajectory(IMAGES.float(), LABELS))
    with pytest.raises(UserError, match="A margin needs two classes"):
        ClipSemantics(["cat"], folder)
    with pytest.raises(UserError, match="for the class"):
        ClipSemantics(CLASSES, folder, prompt="a photo")
    with pytest.raises(UserError, match=r"output has shape \[7, 1\]"):
        ClassifierSemantics(nn.Sequential(nn.Flatten(), nn.Linear(1440, 1))).measure(trajectory(IMAGES.float(), LABELS))


def test_a_classifier_by_hand():
    """Logits log 1, log 2, log 5: the classes' probabilities are 1/8, 2/8, 5/8."""

    class Fixed(nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 2.0, 5.0]).log().expand(len(x), 3)

    metric = ClassifierSemantics(Fixed(), prefix="mine")
    columns = metric.measure(trajectory(torch.zeros(3, 2), torch.tensor([0, 1, 2])))
    torch.testing.assert_close(columns["mine_score"], torch.tensor([1 / 8, 2 / 8, 5 / 8]))
    torch.testing.assert_close(columns["mine_margin"], torch.tensor([-math.log(5), -math.log(2.5), math.log(2.5)]))
    metric.update(trajectory(torch.zeros(3, 2), torch.tensor([0, 1, 2])))
    assert metric.compute()["mine_accuracy"] == pytest.approx(1 / 3)
    assert not list(metric.parameters())


def test_the_digits_classifier_as_judge():
    net = DigitsClassifier.load()
    x, labels = 2 * torch.rand(6, 1, 8, 8) - 1, torch.arange(6)
    logits = net(x)
    columns = ClassifierSemantics(net).measure(trajectory(x, labels))
    torch.testing.assert_close(columns["classifier_score"], logits.softmax(1)[torch.arange(6), labels])
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    torch.testing.assert_close(columns["classifier_margin"], logits[torch.arange(6), labels] - others)
    torch.testing.assert_close(margin(logits, labels), columns["classifier_margin"])
