"""Folders of latents."""

from __future__ import annotations

import pytest
from latent_images import SHARD, images, tiny

from fm_lightning.data import Latents
from fm_lightning.data.latents import encode_images


@pytest.fixture
def folder(tmp_path):
    """21 training and 5 held-out images as latents [4, 4, 6]."""
    encode_images(images(), tiny(), tmp_path / "latents", shard_size=SHARD, batch_size=3)
    return tmp_path / "latents"


@pytest.fixture
def opened(folder):
    """A function: the latents of ``folder``, set up."""

    def look(**options):
        data = Latents(str(folder), **options)
        data.setup()
        return data

    return look
