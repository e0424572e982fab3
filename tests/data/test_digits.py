import numpy as np
import sklearn.datasets
import torch

from fm_lightning.data.digits import load_digits, split


def test_pixels_are_mapped_one_to_one():
    images, labels = load_digits()
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    dots = sklearn.datasets.load_digits().images
    exact = dots * 255 / 16
    assert np.abs(images[:, 0].numpy() - exact).max() <= 0.5
    assert {int(v): int(p) for v, p in zip(dots.ravel(), images.numpy().ravel()) if v in (0, 8, 16)} == {
        0: 0,
        8: 128,
        16: 255,
    }
    assert len(images.unique()) == 17


def test_split_covers_every_image_once():
    parts = split()
    assert [len(part) for part in parts] == [400, 998, 399, 1437, 360]
    everything = torch.arange(1797)
    assert torch.equal(torch.cat(parts[:3]).sort().values, everything)
    assert torch.equal(torch.cat(parts[3:]).sort().values, everything)


def test_classifier_has_learnt_from_like_shares_of_every_part():
    parts = split()
    for part in parts[:3]:
        assert abs(torch.isin(part, parts.classifier_held_out).float().mean() - 0.2) < 0.001


def test_split_stays_as_it_was():
    parts = split()
    assert parts.train_pool[:8].tolist() == [855, 921, 269, 1185, 11, 1271, 1526, 1308]
    assert parts.reference[:4].tolist() == [1439, 438, 617, 1558]
