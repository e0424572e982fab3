"""ADM's centre crop, against the published procedure written out with arrays."""

from __future__ import annotations

import numpy as np
import pytest
from image_files import arrays
from PIL import Image

from fm_lightning.data.images.preprocessing import Preprocessing
from fm_lightning.errors import UserError


def published(image, size):
    """Box-halve while the shorter side is at least twice the size, bicubic to it, slice the middle."""
    while min(*image.size) >= 2 * size:
        image = image.resize(tuple(x // 2 for x in image.size), resample=Image.BOX)
    scale = size / min(*image.size)
    image = image.resize(tuple(round(x * scale) for x in image.size), resample=Image.BICUBIC)
    array = np.array(image)
    y, x = (array.shape[0] - size) // 2, (array.shape[1] - size) // 2
    return array[y : y + size, x : x + size]


@pytest.mark.parametrize("shape", [(16, 16), (15, 31), (33, 20), (64, 37), (129, 65), (7, 90), (31, 32)])
def test_as_published(shape):
    array = arrays(1, 3, (*shape, 3))[0]
    found = Preprocessing(adm_crop=16)(Image.fromarray(array))
    assert found.shape == (3, 16, 16)
    assert np.array_equal(found.transpose(1, 2, 0), published(Image.fromarray(array), 16))


@pytest.mark.parametrize("other", [{"resize": 16}, {"crop": 16}])
def test_not_with_another_crop(other):
    with pytest.raises(UserError, match=r"adm_crop replaces resize and crop"):
        Preprocessing(adm_crop=16, **other)
