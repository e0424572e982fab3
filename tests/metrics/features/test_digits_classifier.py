import subprocess
import sys

import numpy as np
import pytest
import torch

from fm_lightning.data.digits import load_digits, split
from fm_lightning.errors import UserError
from fm_lightning.metrics.features.digits import WEIGHTS, DigitsClassifier
from fm_lightning.training.digits_classifier import accuracy

NOISE = (0.05, 0.1, 0.2)


@pytest.fixture(scope="module")
def net():
    return DigitsClassifier.load()


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits()
    return pixels.float() / 127.5 - 1, labels


def frechet(a, b):
    """|mean difference|^2 + tr(A + B - 2 (A B)^(1/2)) in float64, by symmetric eigenvalues alone."""
    a, b = a.double().numpy(), b.double().numpy()
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ cov_b @ root).clip(0)).sum()
    return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * cross


def split_half_floor(features):
    """The largest distance between random halves of the same images, over ten halvings."""
    generator = torch.Generator().manual_seed(0)
    halves = [torch.randperm(len(features), generator=generator).chunk(2) for _ in range(10)]
    return max(frechet(features[a], features[b]) for a, b in halves)


def noisy(images, sigma, seed=0):
    return images + sigma * torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))


def to_8_bit_and_back(images):
    return ((images + 1) * 127.5).round().clamp(0, 255) / 127.5 - 1


def test_held_out_accuracy(net, digits):
    images, labels = digits
    unseen = split().classifier_held_out
    assert accuracy(net, images[unseen], labels[unseen]) >= 0.985


@pytest.mark.parametrize("part", ["reference", "held_out"])
@pytest.mark.parametrize("encode", [lambda x: x, to_8_bit_and_back], ids=["unclipped", "8-bit"])
def test_distance_sees_noise(net, digits, part, encode):
    images, _ = digits
    parts = split()
    real, clean = net.features(images[parts.reference]), images[getattr(parts, part)]
    distances = [frechet(real, net.features(encode(noisy(clean, s)))) for s in (0.0, *NOISE)]
    steps = np.diff(distances)
    assert (steps > 0).all()
    assert (np.diff(steps) > 0).all(), "the distance must rise the faster, the more noise there is"
    floor = frechet(real, net.features(images[parts.held_out]))
    assert steps[0] > 0.4 * floor  # 0.05 is visible: well above what a different draw of real digits changes
    assert distances[2] > 1.5 * split_half_floor(real)
    assert distances[3] > 4 * split_half_floor(real)


def test_no_dimension_and_no_tiny_variance_decides(net, digits):
    images, _ = digits
    reference = images[split().reference]
    features = net.features(reference).double()
    variances = torch.linalg.eigvalsh(torch.cov(features.T))
    assert variances[0] > 1e-3 * variances[-1]  # full rank, by far
    assert variances[-1] < 0.2 * variances.sum()
    shift = (net.features(noisy(reference, 0.1)).double() - features).mean(0).square()
    assert shift.max() < 0.5 * shift.sum()


def test_basis_is_as_documented(net, digits):
    images, _ = digits
    cov = torch.cov(net.features(images[split().classifier_train]).double().T)
    torch.testing.assert_close(cov.diag()[:48], torch.ones(48, dtype=torch.float64), rtol=2e-3, atol=0)
    fine = cov[48:, 48:]
    assert (fine - fine.diag().diag()).abs().max() < 0.4  # shrunk, so not exactly uncorrelated
    assert fine.diag().max() < 1


def test_weights_are_small_plain_float32():
    state = torch.load(WEIGHTS, weights_only=True)
    assert WEIGHTS.stat().st_size < 300_000
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}


def test_loaded_is_frozen(net):
    assert not net.training
    assert not any(p.requires_grad for p in net.parameters())


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_shapes(net, batch):
    images = torch.zeros(batch, 1, 8, 8)
    assert net(images).shape == (batch, 10)
    assert net.features(images).shape == (batch, 64)


def test_row_depends_on_its_image_alone(net, digits):
    images = digits[0][:7]
    torch.testing.assert_close(net.features(images)[3:4], net.features(images[3:4]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "images", [torch.zeros(2, 8, 8), torch.zeros(2, 3, 32, 32), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)]
)
def test_foreign_images(net, images):
    with pytest.raises(UserError, match=r"reads floats \[B, 1, 8, 8\] in \[-1, 1\]"):
        net.features(images)


@pytest.mark.parametrize("content", [None, b"", b"not weights", {"foreign": torch.zeros(3)}])
def test_foreign_weights(tmp_path, content):
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(UserError, match="digits classifier") as raised:
        DigitsClassifier.load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.slow
def test_script_reproduces_the_shipped_weights(tmp_path, net, digits):
    images, labels = digits
    unseen = split().classifier_held_out
    path = tmp_path / "again.pt"
    command = [sys.executable, "-m", "fm_lightning.training.digits_classifier", "--out", str(path)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    again = DigitsClassifier.load(path)
    share = accuracy(again, images[unseen], labels[unseen])
    assert f"held-out digits {share:.2%}" in printed
    assert share >= 0.97
    # Another CPU or torch may round its way to other weights; it may not land at another quality.
    assert abs(share - accuracy(net, images[unseen], labels[unseen])) <= 0.01
    assert (again(images).argmax(1) == net(images).argmax(1)).float().mean() >= 0.98


def test_measuring_with_it_draws_no_random_numbers():
    """What is built after it, for example a network, must not depend on which distance is measured."""
    state = torch.get_rng_state()
    DigitsClassifier.load()
    assert torch.equal(torch.get_rng_state(), state)
