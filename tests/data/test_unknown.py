"""Unknown: seeds for a model whose training data are unknown."""

from __future__ import annotations

import pytest
import torch
from latent_images import TinyNetwork

from fm_lightning.data import Unknown
from fm_lightning.errors import UserError


def opened(*args, **options):
    data = Unknown(*args, **options)
    data.setup("test")
    return data


def test_classes_are_sampled_equally_often():
    data = opened([4, 4, 6], num_classes=5)
    labels = data.labels_of(torch.arange(5000))
    assert (labels.bincount(minlength=5) / 1000 - 1).abs().max() < 0.15
    assert opened([2], space="points").labels_of(torch.arange(3)) is None


def test_latents_become_images():
    network = TinyNetwork()
    data = opened([4, 4, 6], autoencoder=network, factor=0.5, shift=0.25, decode_batch=3)
    x = torch.randn(7, 4, 4, 6)
    expected = network.decode(x / 0.5 + 0.25)
    network.decoded.clear()
    torch.testing.assert_close(data.decode(x), expected)
    assert network.decoded == [3, 3, 1]
    assert data.has_pixels
    assert torch.equal(data.to_uint8(x), ((expected + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    assert data.to_uint8(x[:0]).shape == (0, 3, 8, 12)
    other = opened([4, 4, 6], autoencoder=TinyNetwork(seed=2))
    assert data.decoder != other.decoder, "a comparison must not mix decoders"


def test_pixels_need_no_autoencoder():
    data = opened([3, 2, 2], space="pixels")
    assert data.has_pixels
    assert data.to_uint8(torch.tensor([-2.0, 1.0, 0.0]).view(1, 3, 1, 1)).flatten().tolist() == [0, 255, 128]
    points = opened([2], space="points")
    assert not points.has_pixels
    with pytest.raises(TypeError, match="no images"):
        points.to_uint8(torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shape": []}, r"shape=\[\] is"),
        ({"shape": [4, 0, 2]}, r"shape=\[4, 0, 2\] is"),
        ({"shape": [4], "num_classes": -1}, "num_classes=-1"),
        ({"shape": [4], "space": "pixel"}, "space='pixel' is"),
        ({"shape": [4, 8, 8], "space": "pixels"}, "images are .1 or 3, height, width"),
        ({"shape": [3, 8, 8], "space": "pixels", "autoencoder": TinyNetwork()}, "An autoencoder does not fit"),
        ({"shape": [3, 8, 8], "autoencoder": TinyNetwork()}, "cannot decode latents"),
        ({"shape": [4], "label_shares": [1.0]}, "label_shares"),
    ],
)
def test_refused(options, said):
    with pytest.raises(UserError, match=said):
        opened(**options)


def test_there_is_nothing_to_train_on_or_to_compare_with():
    with pytest.raises(UserError, match="Unknown has no data to train on"):
        Unknown([2]).setup("fit")
    data = opened([2], space="points")
    for ask in (data.reference, data.real, data.held_out, data.memorization_reference):
        with pytest.raises(UserError, match="Unknown has no"):
            ask()
