"""Folders of latents, and a small autoencoder of diffusers."""

from __future__ import annotations

import pytest
import torch
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


@pytest.fixture(scope="session")
def kl_folder(tmp_path_factory):
    """An AutoencoderKL of random weights as ``save_pretrained`` leaves it."""
    AutoencoderKL = pytest.importorskip("diffusers").AutoencoderKL
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = AutoencoderKL(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            norm_num_groups=4,
            shift_factor=0.25,
        )
    path = tmp_path_factory.mktemp("autoencoder")
    network.save_pretrained(path)
    return path
