"""Latents: training in the space of an autoencoder, from a folder written by ``fm-lightning encode``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fm_lightning.data.base import FlowData
from fm_lightning.data.batches import TrainBatch
from fm_lightning.data.copies import Copies
from fm_lightning.data.images.parts import Part, first_rows, read_part
from fm_lightning.data.latents.autoencoder import Decoder, open_autoencoder, scales
from fm_lightning.data.latents.manifest import FILE, Manifest, open_shard
from fm_lightning.data.latents.rows import PosteriorSplit, Rows
from fm_lightning.data.samples import say
from fm_lightning.data.split import Split
from fm_lightning.errors import UserError
from fm_lightning.hashes import text_hash
from fm_lightning.noise import step_generator


class Latents(FlowData):
    """Latents of images, memory-mapped: of 42 GB for 1.28 million images only batches are read.

    Training samples the posterior independently at each step (with ``flip``, the mirror image's with probability 1/2); both
    depend on (base seed, step, position). Real and held-out samples, and the latents that memorization is measured against,
    are posterior means. The model's space is ``(z - shift) * factor`` as the autoencoder's authors define it, or
    ``(z - mean) / std`` per channel.

    With an ``autoencoder`` samples have pixels and a FID; real images are then decoded latents too (for distances to the
    images themselves pass their statistics to the monitor).

    Parts are written as in Hugging Face `datasets` (``train[:90%]``), of the splits ``train``, ``held_out`` and, if it is
    stored, ``real``.

    Args:
        folder: the folder written by ``fm-lightning encode``.
        autoencoder: the decoder: name on the hub, folder, or any module with ``encode`` and ``decode``; None: no pixels.
        conditional: whether the class is served as the label.
        n: number of training latents, the first of ``train_part``; None for all.
        train_part: the part to train on.
        real_part: the part that samples are compared with; default: ``real`` if stored, else ``train_part``.
        held_out_part: the part for the validation loss, without rows of the other two.
        flip: whether latents of mirror images are drawn too.
        scaling: ``autoencoder`` (shift and factor of the manifest) or ``channels`` (statistics of the training latents).
        decode_batch: number of latents decoded at a time.
        verify: whether the ``sizes`` or the ``checksums`` of the shards are verified at the start; checksums read all of
            them.
        kwargs: arguments of FlowData.

    Attributes:
        manifest: the description of the folder.
        memorized: all training latents that the model sees, mirror images behind the others: ``[n or 2 n, c, h, w]``, means
            as stored. Rows i and n + i are one image.
        class_names: the names of the classes if conditional and known.

    Raises:
        UserError: at ``setup``: missing or damaged latents, unknown parts or options, labels outside the classes, or an
            autoencoder that cannot be loaded or has other channels.
    """

    train_split: PosteriorSplit
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
                raise UserError(f"{name}={value} must be at least 1.", f"Set for example {name}=16")
        for name, word, words in (
            ("scaling", scaling, ("autoencoder", "channels")),
            ("verify", verify, ("sizes", "checksums")),
        ):
            if word not in words:
                raise UserError(f"{name}={word!r} is not {' or '.join(words)}.", f"Set {name}={words[0]}")
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
            Split(stored[part.split]["mean"].part(part.start, part.stop), self._labels(part, stored))
            for part in (real, held_out)
        )
        names = ("mean", "std", "mirrored_mean", "mirrored_std") if self.draws_mirrored else ("mean", "std")
        moments = tuple(stored[train.split][name].part(train.start, train.stop) for name in names)
        self.train_split = PosteriorSplit(moments[0], self._labels(train, stored), moments)
        self.memorized = moments[0] + moments[2] if self.draws_mirrored else moments[0]
        self._shift, self._factor = scales(manifest, self.scaling)
        self._open_autoencoder()

    # Stored latents.

    def _check_options(self) -> None:
        unmirrored, unlabelled = not self.manifest.identity.mirrored, not self.manifest.num_classes
        for option, lacking, what, remedy in (
            ("flip", self.draws_mirrored and unmirrored, "mirror images", "--mirrored true"),
            ("conditional", self.conditional and unlabelled, "labels", "--data.init_args.conditional true"),
        ):
            if lacking:
                raise UserError(
                    f"{option}=True needs {what}, which {self.folder} does not have.",
                    f"Leave it out, or encode the images again, into another folder, with {remedy}",
                )

    def _parts(self) -> tuple[Part, Part, Part]:
        sizes = self.manifest.identity.rows
        pool, train = first_rows(self.train_part, sizes, self.n)
        written = self.real_part or ("real" if "real" in sizes and pool.split == "train" else None)
        real = pool if written is None else read_part(written, sizes, "real_part")
        held_out = read_part(self.held_out_part, sizes, "held_out_part")
        for name, part in (("train_part", train), ("real_part", real)):
            if held_out.overlaps(part):
                raise UserError(
                    f"held_out_part={self.held_out_part!r} shares rows with {name}.",
                    f"Set for example {name}='{part.split}[:90%]' held_out_part='{part.split}[90%:]'",
                )
        return train, real, held_out

    def _open(self, split: str) -> dict[str, Rows]:
        """Opens all tensors of a split, memory-mapped."""
        found: dict[str, list[Tensor]] = {}
        for shard in self.manifest.of(split):
            file = self.folder / shard.file
            tensors, identity = open_shard(file)
            latents = [tensor for name, tensor in tensors.items() if name != "labels"]
            wanted = (len(shard), *self.manifest.shape)
            if identity != self.manifest.identity or any(tuple(tensor.shape) != wanted for tensor in latents):
                raise UserError(
                    f"Shard {file} does not belong to {FILE}: it has another source, or not the shape {list(wanted)}.",
                    "Copy the whole folder again.",
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
            raise UserError(
                f"Row {row - shard.start} of shard {self.folder / shard.file} has the label "
                f"{int(labels[row - part.start])}; labels are 0 to {self.num_classes - 1}.",
                "Encode the images again, or set conditional=False",
            )
        return labels

    def _check(self) -> None:
        """Does nothing: latents were checked when they were written, and reading all of them takes minutes."""

    def _count_copies(self) -> None:
        """Takes equal images from the manifest, which counts them in whole splits."""
        train, real, held_out = self._parts()
        self.real_is_training = real.split == train.split
        self.copies = Copies(**self.manifest.copies)
        if self.real_is_training:
            place = torch.arange(real.start, real.stop)
            self.real_in_train = (train.start <= place) & (place < train.stop)
            self.copies = replace(self.copies, real_in_train=int(self.real_in_train.sum()))
        if line := self.copies.line(len(train), len(held_out), None if self.real_is_training else len(real)):
            say(line)

    @property
    def fingerprint(self) -> str:
        """Hash of the training data: stored latents, part, flips, and the map to the model's space."""
        return self._hash_of(self._parts()[0], self.draws_mirrored)

    @property
    def comparison_fingerprint(self) -> str:
        """Hash of the real and held-out latents, and of the map to the model's space."""
        return self._hash_of(*self._parts()[1:])

    def _hash_of(self, *what: Any) -> str:
        """Hashes checksums of the manifest; no shard is read."""
        shards = [(shard.file, shard.sha256) for shard in self.manifest.shards]
        how = (self.scaling, self.manifest.shift, self.manifest.factor, self.conditional)
        return text_hash(shards, list(map(str, what)), how)

    # The model's space.

    def encode(self, x: Tensor) -> Tensor:
        """Maps stored latents ``[B, c, h, w]`` to the model's space, float32."""
        self._shift, self._factor = self._shift.to(x.device), self._factor.to(x.device)
        return (x.float() - self._shift) * self._factor

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, TrainBatch):
            return batch._replace(x=self.encode(self._draw(batch)))
        return super().on_after_batch_transfer(batch, dataloader_idx)

    def _draw(self, batch: TrainBatch) -> Tensor:
        """Returns a sample ``[b, c, h, w]`` of each posterior, from the moments ``[b, 2 or 4, c, h, w]``."""
        moments, mine = batch.x, slice(batch.offset, batch.offset + len(batch.x))
        device = moments.device
        # Drawn for the whole batch of the step: 1 and N devices draw the same.
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
        fix = f"Set autoencoder={self.manifest.autoencoder}, which encoded them"
        try:
            decoder = Decoder(found, self.shape, self._shift, self._factor, self.decode_batch)
        except UserError as error:
            raise UserError(error.problem, fix) from error
        if decoder.image_shape != image:
            raise UserError(
                f"autoencoder={found.name} decodes {self.folder} to images of {decoder.image_shape}, not {image}.", fix
            )
        self._decoder, self.decoder = decoder, found.fingerprint

    def decode(self, x: Tensor) -> Tensor:
        """Maps the model's space to images ``[B, C, H, W]``, about [-1, 1]; without an autoencoder it returns ``x``."""
        return x if self._decoder is None else self._decoder(x)

    def to_uint8(self, x: Tensor) -> Tensor:
        if self._decoder is None:
            raise TypeError("Latents without an autoencoder holds no images")
        return self._decoder.to_uint8(x)
