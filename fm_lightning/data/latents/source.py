"""Images to encode: a data set in the form that an autoencoder takes, and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fm_lightning.data.base import FlowData
from fm_lightning.data.latents.autoencoder import Autoencoder
from fm_lightning.data.split import Split
from fm_lightning.errors import UserError
from fm_lightning.hashes import tensor_bytes

READ = 1024  # rows read at a time


def visible(data: FlowData, x: Tensor) -> Tensor:
    """Maps stored images to [-1, 1]."""
    return data.decode(data.encode(x))


def latent_shape(data: FlowData, autoencoder: Autoencoder, device: torch.device | str) -> list[int]:
    """Returns ``[c, h, w]``, found on one image.

    Raises:
        UserError: the data hold no images, or the autoencoder does not return an image in its own size.
    """
    if len(data.shape) != 3:
        raise UserError(f"{type(data).__name__} holds no images.", "Use for example fm_lightning.data.ImageData")
    image = visible(data, data.train_split.fetch(torch.tensor([0]))[0].to(device))
    try:
        mean, _ = autoencoder.encode(image)
        back = tuple(autoencoder.decode(mean).shape[1:])
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"{autoencoder.name} cannot encode images of shape {list(data.shape)} ({reason}).",
            "Use images of another size, or in colour (grayscale: false).",
        ) from error
    if back != tuple(data.shape):
        raise UserError(
            f"{autoencoder.name} returns images of shape {list(data.shape)} as {list(back)}.",
            "Use images whose sides are multiples of the autoencoder's reduction, which is often 8.",
        )
    return list(mean.shape[1:])


def distinct_splits(data: FlowData) -> dict[str, Split]:
    """Returns training and held-out images, and real images if they are not the training images."""
    splits = {"train": data.train_split, "held_out": data.held_out_split}
    return splits if _same(data.real_split, data.train_split) else {**splits, "real": data.real_split}


def _same(a: Split, b: Split) -> bool:
    if len(a) != len(b):
        return False
    if isinstance(a.x, Tensor) and isinstance(b.x, Tensor) and a.x.data_ptr() == b.x.data_ptr():
        return True  # views of one memory
    return all(torch.equal(x, y) for (x, _), (y, _) in zip(_blocks(a), _blocks(b)))


def _blocks(split: Split) -> Iterator[tuple[Tensor, Tensor | None]]:
    for start in range(0, len(split), READ):
        yield split.fetch(torch.arange(start, min(start + READ, len(split))))


def fingerprint(splits: Mapping[str, Split]) -> str:
    """Returns a hash of images and labels."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {len(split)}".encode())
        for x, y in _blocks(split):
            for part in (x,) if y is None else (x, y):
                digest.update(tensor_bytes(part))
    return digest.hexdigest()[:16]
