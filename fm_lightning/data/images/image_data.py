"""Images from any Hugging Face dataset; CIFAR-10."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fm_lightning.data.base import FlowData
from fm_lightning.data.batches import TrainBatch
from fm_lightning.data.checks import NEEDED
from fm_lightning.data.images.cache import Decoded, cache_directory, decoded
from fm_lightning.data.images.columns import (
    Labels,
    find_image_column,
    find_label_column,
    in_order,
    read_labels,
    refuse_twins,
)
from fm_lightning.data.images.encoded import Unreadable
from fm_lightning.data.images.parts import Part, divide, first_rows, read_part
from fm_lightning.data.images.preprocessing import Preprocessing
from fm_lightning.data.images.rows import Order, Rows, arrange, refuse_shared_files
from fm_lightning.data.images.source import Opened, open_source
from fm_lightning.data.samples import say
from fm_lightning.data.split import Split, pixels, unit_pixels
from fm_lightning.errors import UserError
from fm_lightning.noise import step_generator


class ImageData(FlowData):
    """Images of a Hugging Face dataset, decoded once to uint8 (see ``cache``) and served in whole batches.

    Rows are served in the source's order if that is random. Otherwise (files of a folder, rows sorted by class) they are
    served in a fixed random order, the same for every run, any stretch of which holds the classes by their shares. Parts and
    the first n are counted in the order served.

    Parts are written as in Hugging Face `datasets`: ``train``, ``train[:90%]``. By default samples are compared with all
    images of ``train_part``, not only the first n: the field's convention for CIFAR-10. Copies of training images among the
    others are counted at the start.

    Args:
        source: name on the hub; or a folder of images or of parquet files (see ``folder`` for the meaning of its
            directories); a parquet file or pattern; or folders or files per split (``{train: a.parquet, test: b.parquet}``).
        config: the dataset's configuration, if it has several.
        image_column: the column with images; default: the only one of that type.
        label_column: the column with classes (class labels, whole numbers, words or booleans); default: the only one of type
            ClassLabel. It also stratifies the random order of unconditional data.
        conditional: whether the class is served as the label, 0 to K - 1 of the K classes that occur.
        n: number of training images, the first of ``train_part``; None for all.
        train_part: the part to train on.
        real_part: the part that samples are compared with; default: ``train_part``.
        held_out_part: the part for the validation loss and the floor of real images, without rows of the other two;
            default: the test split, else the validation split.
        order: "auto", as above; "source" for the source's order (for example published parts of a folder), "random" for a
            random one.
        resize: length of the shorter side in pixels (bilinear, antialiased); None keeps the size.
        crop: side of the square then cut from the centre, in pixels; None keeps the whole image.
        grayscale: whether images have one channel; None: as the first image.
        background: colour behind transparent pixels, a name or "#rrggbb". See ``Preprocessing`` for other properties of
            files.
        adm_crop: side of the centre square as ADM, DiT and SiT cut it from ImageNet, in pixels; instead of resize and crop.
        flip: whether each training image is mirrored with probability 1/2, independently at each step.
        skip_unreadable: whether images that cannot be read are left out.
        cache_dir: directory of decoded images; default $FM_LIGHTNING_CACHE, else ~/.cache/fm_lightning.
        kwargs: arguments of FlowData.

    Attributes:
        class_names: the names of the classes if conditional.
        skipped: number of images left out because they could not be read.
        unreadable: (split, image) of each of them.

    Raises:
        UserError: at ``setup``: an error in the source, columns, parts, n, images or the cache.
    """

    held_out_names: ClassVar[tuple[str, ...]] = ("test", "validation", "valid", "val")  # the first that there is

    def __init__(
        self,
        source: str | dict[str, str],
        config: str | None = None,
        image_column: str | None = None,
        label_column: str | None = None,
        conditional: bool = False,
        n: int | None = None,
        train_part: str = "train",
        real_part: str | None = None,
        held_out_part: str | None = None,
        order: Order = "auto",
        resize: int | None = None,
        crop: int | None = None,
        grayscale: bool | None = None,
        background: str = "white",
        adm_crop: int | None = None,
        flip: bool = False,
        skip_unreadable: bool = False,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if n is not None and n < 1:
            raise UserError(f"n={n} must be at least 1.", "Set for example n: 1024")
        self.source, self.config, self.n = source, config, n
        self.image_column, self.label_column, self.conditional = image_column, label_column, conditional
        self.train_part, self.real_part, self.held_out_part = train_part, real_part, held_out_part
        if order not in ("auto", "source", "random"):
            raise UserError(f"order={order!r} is not auto, source or random.", "Leave it out.")
        self.order = order
        self.preprocessing = Preprocessing(resize, crop, grayscale, background, adm_crop)
        self.flip, self.skip_unreadable = flip, skip_unreadable
        self.cache: Path = cache_directory(cache_dir)
        self.class_names: list[str] = []
        self.unreadable: list[tuple[str, Unreadable]] = []  # (split, image)

    def load(self) -> None:
        source = open_source(self.source, self.config)
        sizes = {name: len(opened.dataset) for name, opened in source.items()}
        column = find_image_column(
            source[read_part(self.train_part, sizes, "train_part").split].dataset, self.image_column
        )
        train, real, held_out = parts = self._parts(sizes)
        for part in parts[1:]:
            find_image_column(source[part.split].dataset, column)
        rows = {part.split: arrange(source[part.split], self.label_column, self.order) for part in parts}
        if self.label_column is not None and not self.conditional:
            find_label_column(source[train.split].dataset, self.label_column, train.split)
        refuse_shared_files(rows, column, held_out, (train, real))
        labels = self._labels(source, rows, parts) if self.conditional else dict.fromkeys(parts)
        # A part within another is not decoded twice; both are then views of the same memory.
        whole = {part: next(other for other in (real, held_out, part) if part in other) for part in parts}
        images = {
            part: decoded(rows[part.split], column, part, self.preprocessing, self.cache)
            for part in dict.fromkeys(whole.values())
        }
        self._count_unreadable(images)
        self.train_split, self.real_split, self.held_out_split = splits = [
            _split(images[whole[part]], whole[part], part, labels[part]) for part in parts
        ]
        shapes = {tuple(split.x.shape[1:]) for split in splits}
        if len(shapes) > 1:
            raise UserError(
                f"{train}, {real} and {held_out} have images of shapes {' and '.join(map(str, sorted(shapes)))}.",
                "Set for example resize: 32, crop: 32 and grayscale: false",
            )
        self.shape = shapes.pop()

    def _parts(self, sizes: dict[str, int]) -> tuple[Part, Part, Part]:
        pool, train = first_rows(self.train_part, sizes, self.n)
        real = pool if self.real_part is None else read_part(self.real_part, sizes, "real_part")
        written = self.held_out_part or next((name for name in self.held_out_names if name in sizes), None)
        if written is None:
            raise UserError(
                f"No split can be held out, only {', '.join(sizes)} exists."
                if len(sizes) == 1
                else f"None of the splits {', '.join(sizes)} is a test or validation split.",
                f"Set for example {divide(pool.split, sizes[pool.split])}",
            )
        held_out = read_part(written, sizes, "held_out_part")
        if len(held_out) < NEEDED["held_out_split"]:
            raise UserError(
                f"held_out_part={written!r} has one image; at least 2 are needed.",
                f"Set for example {divide(pool.split, sizes[pool.split])}",
            )
        for name, part in (("train_part", train), ("real_part", real)):
            if held_out.overlaps(part):
                raise UserError(
                    f"held_out_part={written!r} shares rows with {name}.",
                    f"Set for example {divide(part.split, sizes[part.split]).replace('train_part', name)}",
                )
        return train, real, held_out

    def _count_unreadable(self, images: dict[Part, Decoded]) -> None:
        self.unreadable = [(part.split, image) for part, found in images.items() for image in found.unreadable]
        self.skipped = len(self.unreadable)
        if not self.skipped:
            return
        first = self.unreadable[0][1]
        total = sum(len(found.images) for found in images.values())
        what = f"{self.skipped:,} of {total:,} images cannot be read (the first is {first.file}: {first.reason})"
        if not self.skip_unreadable:
            raise UserError(f"{what}.", "Repair them, or set skip_unreadable: true to leave them out.")
        say(f"{what} and are left out; {self.cache}/*/record.json lists all of them")

    def _labels(
        self, source: dict[str, Opened], rows: dict[str, Rows], parts: tuple[Part, ...]
    ) -> dict[Part, Tensor | None]:
        """Returns the parts' labels: the K classes that occur are 0 to K - 1, by name, also if splits number them differently."""
        found: dict[str, Labels] = {}
        columns = {split: find_label_column(source[split].dataset, self.label_column, split) for split in rows}
        for split, column in columns.items():
            first = columns[parts[0].split]
            if column != first:
                raise UserError(
                    f"The classes are in {column} of {split} and in {first} of {parts[0].split}.",
                    f"Set label_column: {first}, or choose other parts.",
                )
            served = rows[split]
            labels = read_labels(source[split].dataset, column)
            found[split] = labels if served.source is None else replace(labels, codes=labels.codes[served.source])
        codes = {part: found[part.split].codes[part.start : part.stop] for part in parts}
        for part in parts:
            missing = np.flatnonzero(codes[part] < 0)
            if len(missing):
                row = rows[part.split].source_row(part.start + int(missing[0]))
                opened = source[part.split]
                # The row number of a file goes by file names; a metadata file may have another order.
                file = f", {opened.dataset.data.column('image')[row]['path']}" if opened.content is None else ""
                raise UserError(
                    f"Row {row} of {part.split}{file} has no class.",
                    "Set conditional: false, or choose parts with labels.",
                )
        train = parts[0]
        known = found[train.split]
        everywhere = {name for part in parts[1:] for name in _occurring(replace(found[part.split], codes=codes[part]))}
        everywhere |= set(_occurring(known))
        refuse_twins(everywhere)
        trained = set(_occurring(replace(known, codes=codes[train])))
        if lacking := in_order(everywhere - trained):
            some = f"{', '.join(lacking[:3])}{' ...' if len(lacking) > 3 else ''}"
            raise UserError(
                f"The {len(codes[train]):,} training images lack {len(lacking):,} of {len(everywhere):,} classes: {some}.",
                "Set a larger n, another train_part, or conditional: false",
            )
        self.class_names = _occurring(known)
        self.num_classes = len(self.class_names)
        number = {name: i for i, name in enumerate(self.class_names)}
        tables = {
            split: np.array([number.get(name, -1) for name in labels.names], np.int64)
            for split, labels in found.items()
        }
        return {part: torch.from_numpy(tables[part.split][codes[part]]) for part in parts}

    def encode(self, x: Tensor) -> Tensor:
        return unit_pixels(x)

    def to_uint8(self, x: Tensor) -> Tensor:
        return pixels(x)

    def augment(self, x: Tensor, batch: TrainBatch) -> Tensor:
        if not self.flip:
            return x
        # Drawn for the whole batch of the step: 1 and N devices mirror the same images.
        generator = step_generator(self.base_seed, batch.step, x.device, "flips")
        mirrored = torch.rand(batch.total, generator=generator, device=x.device) < 0.5
        mine = mirrored[batch.offset : batch.offset + len(x)]
        return torch.where(mine[:, None, None, None], x.flip(-1), x)


class CIFAR10(ImageData):
    """CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images of 3x32x32 in 10 classes.

    Args:
        source: see ``ImageData``.
        kwargs: arguments of ``ImageData``.
    """

    def __init__(self, source: str | dict[str, str] = "uoft-cs/cifar10", **kwargs: Any) -> None:
        super().__init__(source, **kwargs)


def _occurring(labels: Labels) -> list[str]:
    """The names of classes that there are: in the dataset's own order, if it has one."""
    names = [labels.names[code] for code in np.unique(labels.codes[labels.codes >= 0])]
    return names if labels.ordered else in_order(names)


def _split(found: Decoded, whole: Part, part: Part, labels: Tensor | None) -> Split:
    """Returns the part's readable images, as a view if all are readable."""
    images = found.images[part.start - whole.start : part.stop - whole.start]
    bad = {image.place for image in found.unreadable if part.start <= image.place < part.stop}
    if not bad:
        return Split(images, labels)
    good = torch.tensor([i - part.start for i in range(part.start, part.stop) if i not in bad], dtype=torch.int64)
    if not len(good):
        raise UserError(f"None of the {len(part):,} images of {part} can be read.", "Choose another part.")
    return Split(images[good], None if labels is None else labels[good])
