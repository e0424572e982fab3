"""Latents: training in the space of an autoencoder, from a folder that ``fm-lightning encode`` wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fm_lightning.data.base import FlowData
from fm_lightning.data.batches import TrainBatch
from fm_lightning.data.images.parts import Part, first_rows, read_part
from fm_lightning.data.latents.autoencoder import open_autoencoder
from fm_lightning.data.latents.decoder import Decoder, per_channel
from fm_lightning.data.latents.manifest import FILE, Manifest, open_shard
from fm_lightning.data.latents.rows import Rows
from fm_lightning.data.latents.splits import LatentSplit, PosteriorSplit
from fm_lightning.errors import OldError, UserError
from fm_lightning.noise import step_generator


class Latents(FlowData):
    """Latents of images, memory-mapped: 1.28 million of them are 42 GB, of which a batch is read.

    Training draws from the posterior anew at each step (and, with ``flip``, takes the mirror image's with probability 1/2);
    both belong to (base seed, step, position). Everything else sees posterior means: real and held-out samples, and the
    latents that memorization is measured against. The model's space is ``(z - shift) * factor`` as the autoencoder's authors
    have it, or ``(z - mean) / std`` for each channel.

    Samples become pixels, and have a FID, where an ``autoencoder`` is given; real images are then decoded latents as well
    (for distances to the images themselves give the monitor their statistics).

    Parts are written as Hugging Face writes them (``train[:90%]``), of the splits ``train``, ``held_out`` and, where it is
    stored, ``real``.

    Args:
        folder: what ``fm-lightning encode`` wrote.
        autoencoder: that decodes: name on the hub, folder, or any module with ``encode`` and ``decode``; None: no pixels.
        conditional: serve the class as label.
        n: training latents, the first n; None takes all.
        train_part: what to train on.
        real_part: what samples are compared with; default: ``real`` where stored, else all of ``train_part``.
        held_out_part: for the validation loss; no row of it may be in the other two.
        flip: draw mirror images' latents, too.
        scaling: ``autoencoder`` (shift and factor of the manifest) or ``channels`` (statistics of the training latents).
        decode_batch: latents decoded at a time.
        verify: at the start, look at the shards' ``sizes``, or read all of them for their ``checksums``.
        kwargs: as for every datamodule.

    Attributes:
        manifest: what the folder holds.
        memorized: all training latents that the model sees, mirror images' behind the others: ``[n or 2 n, c, h, w]``, means as
            stored. Row i and row n + i are one image.
        class_names: the classes' names if conditional, where the source names them.

    Raises:
        UserError: at ``setup``: no or damaged latents, parts or options that they do not have, labels outside the classes, or
            an autoencoder that cannot be loaded or has other channels.
    """

    train_split: PosteriorSplit  # type: ignore[assignment]
    held_out_split: LatentSplit  # type: ignore[assignment]
    real_split: LatentSplit  # type: ignore[assignment]
    memorized: Rows

    def __init__(
        self,
        folder: str,
        autoencoder: nn.Module | str | None = None,
        conditional: bool = False,
        n: int | None = None,
        train_part: str = "train",
        real_part: str | None = None,
        held_out_part: str = "held_out",
        flip: bool = False,
        scaling: Literal["autoencoder", "channels"] = "autoencoder",
        decode_batch: int = 16,
        verify: Literal["sizes", "checksums"] = "sizes",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("n", n), ("decode_batch", decode_batch)):
            if value is not None and value < 1:
                raise OldError(f"{name}={value} given", "at least 1", f"type {name}=16")
        for name, word, words in (
            ("scaling", scaling, ("autoencoder", "channels")),
            ("verify", verify, ("sizes", "checksums")),
        ):
            if word not in words:
                raise OldError(f"{name}={word!r} given", f"{' or '.join(words)}", f"type {name}={words[0]}")
        self.folder, self.conditional, self.n = Path(folder).expanduser(), conditional, n
        self.train_part, self.real_part, self.held_out_part = train_part, real_part, held_out_part
        self.draws_mirrored, self.scaling, self.decode_batch, self.verify = flip, scaling, decode_batch, verify
        self.class_names: list[str] = []
        self._given = autoencoder
        self._decoder: Decoder | None = None

    def load(self) -> None:
        self.manifest = manifest = Manifest.read(self.folder)
        manifest.verify_sizes(self.folder)
        if self.verify == "checksums":
            manifest.verify_checksums(self.folder)
        self._check_options()
        train, real, held_out = self._parts()
        self.shape, self.space = tuple(manifest.shape), f"latents of {manifest.autoencoder} by {self.scaling}"
        if self.conditional:
            self.num_classes, self.class_names = manifest.num_classes, list(manifest.class_names)
        stored = {split: self._open(split) for split in {part.split for part in (train, real, held_out)}}
        self.real_split, self.held_out_split = (
            LatentSplit(stored[part.split]["mean"].part(part.start, part.stop), self._labels(part, stored))
            for part in (real, held_out)
        )
        names = ("mean", "std", "mirrored_mean", "mirrored_std") if self.draws_mirrored else ("mean", "std")
        moments = tuple(stored[train.split][name].part(train.start, train.stop) for name in names)
        self.train_split = PosteriorSplit(moments[0], self._labels(train, stored), moments)
        self.memorized = moments[0] + moments[2] if self.draws_mirrored else moments[0]
        mean, std = manifest.channel_mean, manifest.channel_std
        by_channel = self.scaling == "channels"
        self._shift = per_channel(mean if by_channel else manifest.shift, self.shape[0])
        self._factor = (
            1 / per_channel(std, self.shape[0]) if by_channel else per_channel(manifest.factor, self.shape[0])
        )
        self._open_autoencoder()

    # What is stored.

    def _check_options(self) -> None:
        lacking = {
            "flip": (self.draws_mirrored and not self.manifest.identity.mirrored, "mirror images", "--mirrored true"),
            "conditional": (
                self.conditional and not self.manifest.num_classes,
                "labels",
                "--data.init_args.conditional true",
            ),
        }
        for option, (asked, what, remedy) in lacking.items():
            if asked:
                raise OldError(
                    f"{option}=True given for {self.folder}, whose {FILE} has no {what}",
                    f"{option}=False",
                    f"leave it out, or encode the images again, into another folder, with {remedy}",
                )

    def _parts(self) -> tuple[Part, Part, Part]:
        sizes = self.manifest.identity.rows
        pool, train = first_rows(self.train_part, sizes, self.n)
        written = self.real_part or ("real" if "real" in sizes and pool.split == "train" else None)
        real = pool if written is None else read_part(written, sizes, "real_part")
        held_out = read_part(self.held_out_part, sizes, "held_out_part")
        for name, part in (("train_part", train), ("real_part", real)):
            if held_out.overlaps(part):
                raise OldError(
                    f"held_out_part={self.held_out_part!r} given, which shares rows with {name}",
                    "latents neither trained on nor compared with",
                    f"type e.g. {name}='{part.split}[:90%]' held_out_part='{part.split}[90%:]'",
                )
        return train, real, held_out

    def _open(self, split: str) -> dict[str, Rows]:
        """All tensors of a split, memory-mapped."""
        found: dict[str, list[Tensor]] = {}
        for shard in self.manifest.of(split):
            file = self.folder / shard.file
            tensors, identity = open_shard(file)
            latents = [tensor for name, tensor in tensors.items() if name != "labels"]
            wanted = (len(shard), *self.manifest.shape)
            if identity != self.manifest.identity or any(tuple(tensor.shape) != wanted for tensor in latents):
                raise OldError(
                    f"shard {file} holds other latents than {FILE} says",
                    f"{list(wanted)} of the same source",
                    "copy the folder again as a whole",
                )
            for name, tensor in tensors.items():
                found.setdefault(name, []).append(tensor)
        return {name: Rows(tensors) for name, tensors in found.items()}

    def _labels(self, part: Part, stored: dict[str, dict[str, Rows]]) -> Tensor | None:
        if not self.conditional:
            return None
        labels = stored[part.split]["labels"][part.start : part.stop]
        bad = ((labels < 0) | (labels >= self.num_classes)).nonzero()
        if len(bad):
            row = int(bad[0]) + part.start
            shard = next(s for s in self.manifest.of(part.split) if s.start <= row < s.stop)
            raise OldError(
                (
                    f"shard {self.folder / shard.file} has the label {int(labels[row - part.start])} in row "
                    f"{row - shard.start}"
                ),
                f"0 to {self.num_classes - 1} as {FILE} says",
                "encode the images again, or type conditional=False",
            )
        return labels

    def _check(self) -> None:
        """Nothing more: that latents are finite was seen to when they were written, and reading all of them takes minutes."""

    @property
    def fingerprint(self) -> str:
        """Names what training sees: stored latents, part, draws, and the way into the model's space."""
        return self._hash_of(self._parts()[0], self.draws_mirrored)

    @property
    def comparison_fingerprint(self) -> str:
        """Names what samples are compared with: real and held-out latents, and the way into the model's space."""
        return self._hash_of(*self._parts()[1:])

    def _hash_of(self, *what: Any) -> str:
        """From the manifest's checksums: nothing is read."""
        shards = [(shard.file, shard.sha256) for shard in self.manifest.shards]
        how = (self.scaling, self.manifest.shift, self.manifest.factor, self.conditional)
        return hashlib.sha256(repr((shards, list(map(str, what)), how)).encode()).hexdigest()[:16]

    # The model's space.

    def encode(self, x: Tensor) -> Tensor:
        """Latents as stored ``[B, c, h, w]`` -> the model's space, float32."""
        self._shift, self._factor = self._shift.to(x.device), self._factor.to(x.device)
        return (x.float() - self._shift) * self._factor

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, TrainBatch):
            return batch._replace(x=self.encode(self._draw(batch)))
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def _draw(self, batch: TrainBatch) -> Tensor:
        """``[b, c, h, w]`` a sample of each posterior, from the moments ``[b, 2 or 4, c, h, w]``."""
        moments, mine = batch.x, slice(batch.offset, batch.offset + len(batch.x))
        device = moments.device
        # Drawn for the step's whole batch, on the device: 1 and N devices draw the same.
        if self.draws_mirrored:
            generator = step_generator(self.base_seed, batch.step, device, "flips")
            mirrored = torch.rand(batch.total, generator=generator, device=device)[mine] < 0.5
            moments = torch.where(mirrored[:, None, None, None, None], moments[:, 2:], moments[:, :2])
        generator = step_generator(self.base_seed, batch.step, device, "posterior")
        draw = torch.randn((batch.total, *self.shape), generator=generator, device=device)[mine]
        mean, std = moments.float().unbind(1)
        return mean + std * draw

    def reference(self, index: Tensor | None = None) -> Tensor:
        return self.encode(self.memorized[slice(None) if index is None else index])

    def memorization_reference(self) -> tuple[Rows, Tensor | None]:
        n = len(self.train_split)
        return self.memorized, torch.arange(2 * n) % n if self.draws_mirrored else None

    def real(self) -> Tensor:
        return self.encode(self.real_split.x[:])

    def held_out(self) -> Tensor:
        return self.encode(self.held_out_split.x[:])

    # Pixels.

    @property
    def has_pixels(self) -> bool:
        """Whether samples can be shown as images."""
        return self._given is not None

    def _open_autoencoder(self) -> None:
        if self._given is None:
            return
        found = open_autoencoder(self._given)
        image = list(self.manifest.identity.image_shape)
        wanted = (
            f"one that makes {image} of {list(self.shape)}, as {self.manifest.autoencoder} does, which encoded them"
        )
        remedy = f"type autoencoder={self.manifest.autoencoder}"
        try:
            decoder = Decoder(found, self.shape, self._shift, self._factor, self.decode_batch)
        except UserError as error:
            said = " ".join(str(error.__cause__).split())[:120]
            raise OldError(f"autoencoder={found.name} given for {self.folder} ({said})", wanted, remedy) from error
        if decoder.image_shape != image:
            raise OldError(
                f"autoencoder={found.name} given for {self.folder}, which makes {decoder.image_shape} of them",
                wanted,
                remedy,
            )
        self._decoder, self.decoder = decoder, found.fingerprint

    def decode(self, x: Tensor) -> Tensor:
        """The model's space -> images ``[B, C, H, W]``, about [-1, 1]; without an autoencoder as it is."""
        return x if self._decoder is None else self._decoder(x)

    def to_uint8(self, x: Tensor) -> Tensor:
        if self._decoder is None:
            raise TypeError("Latents without an autoencoder holds no images")
        return self._decoder.to_uint8(x)
