"""Encodes the images of any data set once, into a folder that :class:`Latents` trains on.

Work is cut into shards. Shard i belongs to process ``i % world``; it is written under a temporary name and renamed, and
finished shards are kept: a killed command resumes on any number of processes. The process that finds all shards finished
writes the manifest. The bytes of a shard depend on its images alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fm_lightning.data.base import FlowData
from fm_lightning.data.batches import Share
from fm_lightning.data.latents.autoencoder import Autoencoder
from fm_lightning.data.latents.manifest import FILE, Identity, Manifest, Shard, open_shard
from fm_lightning.data.latents.source import READ, distinct_splits, fingerprint, latent_shape, visible
from fm_lightning.data.split import Split
from fm_lightning.errors import UserError
from fm_lightning.files import replacing
from fm_lightning.hashes import file_hash

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def encode_images(
    data: FlowData,
    autoencoder: Autoencoder,
    folder: str | Path,
    *,
    source: Mapping[str, Any] | None = None,
    mirrored: bool = True,
    dtype: str = "float16",
    batch_size: int = 32,
    shard_size: int = 10_000,
    device: torch.device | str = "cpu",
    share: Share | None = None,
) -> Manifest | None:
    """Writes posterior means and standard deviations of all images; 32 kB per image for Stable Diffusion's autoencoder.

    Training images, held-out images and, if they are not the training images, real images are stored as splits.

    Args:
        data: images, with labels if there are classes.
        autoencoder: see :class:`Autoencoder`.
        folder: the folder to write, made if it is missing.
        source: description of the images, for the manifest.
        mirrored: whether mirror images are encoded too: the latent of a mirror image is not the mirrored latent.
        dtype: type of the stored numbers: float16, bfloat16 or float32. The autoencoder itself runs in float32.
        batch_size: number of images encoded at a time.
        shard_size: number of images in a file; a process holds one shard in memory.
        device: the device to encode on.
        share: this process among those that encode together; default: the only one.

    Returns:
        The manifest; None if other processes still have unfinished shards.

    Raises:
        UserError: an argument out of range, data that are no images or do not fit the autoencoder, a folder that holds other
            latents or cannot be written (finished shards stay), or latents that ``dtype`` cannot hold.
    """
    share, folder = share or Share(), Path(folder).expanduser()
    for name, value in (("batch_size", batch_size), ("shard_size", shard_size)):
        if value < 1:
            raise UserError(f"{name}={value} must be at least 1.", f"Set for example {name}=32")
    if dtype not in DTYPES:
        raise UserError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}.", "Set for example dtype=float16")
    try:
        autoencoder = autoencoder.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={device} is not available ({error}).", "Set for example device=cpu") from error
    data.setup()
    shape = latent_shape(data, autoencoder, device)
    splits = distinct_splits(data)
    identity = Identity(
        source=fingerprint(splits),
        autoencoder=autoencoder.fingerprint,
        mirrored=mirrored,
        dtype=dtype,
        image_shape=list(data.shape),
        rows={name: len(split) for name, split in splits.items()},
        shard_size=shard_size,
    )
    shards = _plan(identity)
    _refuse_others(folder, identity, shards)
    missing = [shard for shard in shards[share.rank :: share.world] if not _is_finished(folder, shard)]
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for shard in missing:  # of killed processes
            for left in folder.glob(f".{shard.file}.*.tmp"):
                left.unlink(missing_ok=True)
    encoder = _Encoder(data, autoencoder, device, mirrored, DTYPES[dtype], batch_size)
    with Progress(console=Console(stderr=True), disable=bool(share.rank) or not missing) as progress:
        title = f"Encoding {sum(map(len, missing)):,} images"
        task = progress.add_task(
            f"{title}, a share of 1/{share.world}" if share.world > 1 else title, total=sum(map(len, missing))
        )
        for shard in missing:
            _save(
                folder / shard.file, encoder(shard, splits[shard.split], lambda n: progress.advance(task, n)), identity
            )
    if not missing and (folder / FILE).exists():
        manifest = Manifest.read(folder)  # kept: its checksums are of the files as they were written
        manifest.verify_sizes(folder)
        if (manifest.shift, manifest.factor) != (autoencoder.shift, autoencoder.factor):
            raise UserError(
                f"The finished latents have shift={manifest.shift} and factor={manifest.factor}, not "
                f"{autoencoder.shift} and {autoencoder.factor}.",
                f"Delete {folder / FILE} and run the command again; it keeps the shards.",
            )
        return manifest
    if not all(_is_finished(folder, shard) for shard in shards):
        return None
    draft = Manifest(
        identity=identity,
        source=dict(source or {"class": type(data).__name__}),
        autoencoder=autoencoder.name,
        shape=shape,
        shift=autoencoder.shift,
        factor=autoencoder.factor,
        channel_mean=[],
        channel_std=[],
        num_classes=data.num_classes,
        class_names=list(data.class_names),
        shards=shards,
        copies=asdict(data.copies),
    )
    manifest = _measured(draft, folder)
    with _writing(folder):
        manifest.write(folder)
    return manifest


@dataclass(frozen=True)
class _Encoder:
    data: FlowData
    autoencoder: Autoencoder
    device: torch.device | str
    mirrored: bool
    dtype: torch.dtype
    batch_size: int

    def __call__(self, shard: Shard, split: Split, advance: Callable[[int], None]) -> dict[str, Tensor]:
        """Returns the tensors of a shard; batches start at its first image, so that every process makes the same ones."""
        parts: dict[str, list[Tensor]] = {}
        for start in range(shard.start, shard.stop, self.batch_size):
            x, y = split.fetch(torch.arange(start, min(start + self.batch_size, shard.stop)))
            images = visible(self.data, x.to(self.device))
            found = dict(zip(("mean", "std"), self.autoencoder.encode(images)))
            if self.mirrored:
                found |= dict(zip(("mirrored_mean", "mirrored_std"), self.autoencoder.encode(images.flip(-1))))
            for name, values in found.items():
                parts.setdefault(name, []).append(self._stored(values, start))
            if y is not None:
                parts.setdefault("labels", []).append(y)
            advance(len(x))
        return {name: torch.cat(values).contiguous() for name, values in parts.items()}

    def _stored(self, values: Tensor, start: int) -> Tensor:
        stored = values.to(self.dtype).cpu()
        if not stored.isfinite().all():
            largest = float(values.abs().max())
            raise UserError(
                f"Latents near image {start} reach {largest:.3g}, which {str(self.dtype).removeprefix('torch.')} cannot hold.",
                "Set dtype=float32, or use another autoencoder.",
            )
        return stored


def _plan(identity: Identity) -> list[Shard]:
    shards = []
    for split, n in identity.rows.items():
        starts = range(0, n, identity.shard_size)
        for i, start in enumerate(starts):
            file = f"{split}-{i:05d}-of-{len(starts):05d}.safetensors"
            shards.append(Shard(split, start, min(start + identity.shard_size, n), file))
    return shards


def _refuse_others(folder: Path, identity: Identity, shards: list[Shard]) -> None:
    """Raises UserError if the folder holds latents of other images, another autoencoder or another form."""
    found = [Manifest.read(folder).identity] if (folder / FILE).exists() else []
    planned = {shard.file for shard in shards}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            found.append(open_shard(file)[1])
        except UserError:
            if file.name not in planned:  # a planned one is rewritten
                raise
    for other in found:
        if differences := other.differences(identity):
            raise UserError(
                f"folder={folder} holds latents of another source or form ({', '.join(differences)}).",
                "Use another folder.",
            )


def _is_finished(folder: Path, shard: Shard) -> bool:
    try:
        open_shard(folder / shard.file)
    except UserError:
        return False
    return True


def _save(file: Path, tensors: dict[str, Tensor], identity: Identity) -> None:
    with _writing(file.parent), replacing(file) as temporary:
        save_file(tensors, temporary, metadata={"identity": json.dumps(asdict(identity))})
        temporary.chmod(0o644)  # safetensors makes files that other users cannot read; latents are shared


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turns errors of writing to a folder into one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"Cannot write folder={folder} ({error}).", "Make room and run the command again; finished shards are kept."
        ) from error


def _measured(draft: Manifest, folder: Path) -> Manifest:
    """Returns the manifest with sizes, checksums and statistics of the training latents, from the shards on disk."""
    shards = []
    first, second = (torch.zeros(draft.shape[0], dtype=torch.float64) for _ in range(2))
    count = 0
    for shard in draft.shards:
        file = folder / shard.file
        shards.append(replace(shard, bytes=file.stat().st_size, sha256=file_hash(file)))
        if shard.split != "train":
            continue
        tensors, _ = open_shard(file)
        for prefix in ("", "mirrored_") if draft.identity.mirrored else ("",):
            for mean, std in zip(tensors[f"{prefix}mean"].split(READ), tensors[f"{prefix}std"].split(READ)):
                mean, std = mean.double(), std.double()
                first += mean.sum((0, 2, 3))
                second += (mean.square() + std.square()).sum((0, 2, 3))
                count += mean[:, 0].numel()
    mean = first / count
    std = (second / count - mean.square()).clamp_min(0).sqrt()
    return replace(draft, shards=shards, channel_mean=mean.tolist(), channel_std=std.tolist())
