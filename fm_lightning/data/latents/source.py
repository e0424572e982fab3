"""What is encoded: the images of a data set, seen as the autoencoder takes them, and what tells them from others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fm_lightning.data.base import FlowData
from fm_lightning.data.latents.autoencoder import Autoencoder
from fm_lightning.data.split import Split
from fm_lightning.errors import OldError

READ = 1024  # rows read at a time


def visible(data: FlowData, x: Tensor) -> Tensor:
    """Images as stored -> [-1, 1]."""
    return data.decode(data.encode(x))


def latent_shape(data: FlowData, autoencoder: Autoencoder, device: torch.device | str) -> list[int]:
    """``[c, h, w]`` found on one image; refuses what does not come back from the autoencoder in its own size."""
    if len(data.shape) != 3:
        raise OldError(f"data={type(data).__name__} given, which holds no images", "some", "type e.g. data.ImageData")
    image = visible(data, data.train_split.fetch(torch.tensor([0]))[0].to(device))
    wanted = f"images that {autoencoder.name} takes"
    try:
        mean, _ = autoencoder.encode(image)
        back = tuple(autoencoder.decode(mean).shape[1:])
    except (RuntimeError, ValueError) as error:
        said = " ".join(str(error).split())[:160]
        raise OldError(
            f"images of shape {list(data.shape)} given ({said})",
            wanted,
            "give data of other size, or in colour (grayscale: false)",
        ) from error
    if back != tuple(data.shape):
        raise OldError(
            f"images of shape {list(data.shape)} given, which come back as {list(back)}",
            wanted,
            "give data whose sides are multiples of 8, or of whatever the autoencoder divides them by",
        )
    return list(mean.shape[1:])


def distinct_splits(data: FlowData) -> dict[str, Split]:
    """Training and held-out images; real ones only where they are others than the training images."""
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
    """Of images and labels, by their bytes."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name} {len(split)}".encode())
        for x, y in _blocks(split):
            digest.update(x.contiguous().numpy().data)
            if y is not None:
                digest.update(y.contiguous().numpy().data)
    return digest.hexdigest()[:16]
