"""Images in files, and data sets made of them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PIL

from fm_lightning.data import ImageData
from fm_lightning.errors import UserError


def arrays(n, seed=0, shape=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def png(array):
    out = io.BytesIO()
    PIL.fromarray(array).save(out, "PNG")
    return out.getvalue()


def write_parquet(file, blobs, labels=None, column="picture", names=("cat", "dog", "newt")):
    """Encoded images as the hub keeps them; returns the file's name."""
    import datasets

    features = {column: datasets.Image()}
    rows = {column: [{"bytes": blob, "path": f"{i}.png"} for i, blob in enumerate(blobs)]}
    if labels is not None:
        features["kind"] = datasets.ClassLabel(names=list(names))
        rows["kind"] = labels
    file.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(file)
    return str(file)


def loaded(source, **options):
    data = ImageData(str(source) if isinstance(source, Path) else source, **options)
    data.setup()
    return data


def refused(match, source, **options):
    with pytest.raises(UserError, match=match) as caught:
        loaded(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def pixels(split):
    return split.x.permute(0, 2, 3, 1).numpy()


def flat(value, size=4):
    """An image whose pixels say which it is: classes by hundreds."""
    return np.full((size, size, 3), value, np.uint8)


def write_images(folder, names):
    """One image a name; image i holds the value i everywhere."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.fromarray(flat(i)).save(folder / name)
    return folder


def values(split):
    return pixels(split)[:, 0, 0, 0].tolist()
