"""Images from any Hugging Face dataset; CIFAR-10."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fm_lightning.data.base import FlowData
from fm_lightning.data.batches import TrainBatch
from fm_lightning.data.checks import NEEDED
from fm_lightning.data.images.apart import refuse_shared_files
from fm_lightning.data.images.cache import Decoded, Unreadable, cache_directory, decoded
from fm_lightning.data.images.columns import (
    Labels,
    find_image_column,
    find_label_column,
    in_order,
    read_labels,
    refuse_twins,
)
from fm_lightning.data.images.parts import Part, divide, first_rows, read_part
from fm_lightning.data.images.preprocessing import Preprocessing
from fm_lightning.data.images.rows import Order, Rows, arrange
from fm_lightning.data.images.source import Opened, open_source
from fm_lightning.data.pixels import pixels, unit_pixels
from fm_lightning.data.split import Split
from fm_lightning.errors import OldError
from fm_lightning.noise import step_generator


class ImageData(FlowData):
    """Images of a Hugging Face dataset, decoded once to uint8 (see ``cache``) and served in whole batches.

    Rows are served in the source's own order where that is random. Where it is not (files of a folder, rows sorted by class)
    they are served in a fixed random order, in which any stretch holds the classes by their shares; it is the same for every
    run. Parts and the first n are counted in the order served.

    Training images are the first ``n`` of ``train_part``. Samples are compared with ``real_part``, by default all of
    ``train_part``'s images, not only the first n: the field's convention for CIFAR-10. ``held_out_part`` is by default the
    test split, else the validation split. Parts are written as Hugging Face writes them: ``train``, ``train[:90%]``.

    Args:
        source: name on the hub; or a folder of images or of parquet files (see ``folder`` for what its directories mean); a
            parquet file or pattern; or folders or files per split (``{train: a.parquet, test: b.parquet}``).
        config: which of the dataset's configurations, where it has several.
        image_column: the column with images; default: the only one of that type.
        label_column: the column with classes (class labels, whole numbers, words or booleans); default: the only one of type
            ClassLabel. Rows that are put into random order are classed by it also where ``conditional`` is not asked for.
        conditional: serve the class as label, 0 to K - 1 of the K classes that occur.
        n: training images, the first n; None takes all.
        train_part: what to train on.
        real_part: what samples are compared with.
        held_out_part: for the validation loss and the floor of real images; no row of it may be in the other two.
        order: "auto", as above; "source" keeps the source's order (e.g. published parts of a folder), "random" never.
        resize: pixels of the shorter side (bilinear, antialiased); None keeps the size.
        crop: side of the square then cut from the centre; None keeps all.
        grayscale: one channel instead of three; None: as the first image is.
        background: what shows where an image is transparent: a colour's name or "#rrggbb". See ``Preprocessing`` for what
            else becomes of files.
        adm_crop: side of the centre square as ADM, DiT and SiT cut it from ImageNet; instead of resize and crop.
        flip: mirror every training image with probability 1/2, anew at each step.
        skip_unreadable: go on without images that cannot be read.
        cache_dir: for decoded images; default $FM_LIGHTNING_CACHE, else ~/.cache/fm_lightning.
        kwargs: as for every datamodule.

    Attributes:
        class_names: the classes' names if conditional.
        skipped: images left out because they could not be read; ``unreadable`` says which.

    Raises:
        UserError: at ``setup``: whatever is wrong with source, columns, parts, n, images or the cache.
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
            raise OldError(f"n={n} given", "at least 1 training image", "type n: 1024")
        self.source, self.config, self.n = source, config, n
        self.image_column, self.label_column, self.conditional = image_column, label_column, conditional
        self.train_part, self.real_part, self.held_out_part = train_part, real_part, held_out_part
        if order not in ("auto", "source", "random"):
            raise OldError(f"order={order!r} given", "auto, source or random", "leave it out")
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
        self._look_at_unreadable(images)
        self.train_split, self.real_split, self.held_out_split = splits = [
            _split(images[whole[part]], whole[part], part, labels[part]) for part in parts
        ]
        shapes = {tuple(split.x.shape[1:]) for split in splits}
        if len(shapes) > 1:
            raise OldError(
                f"images of shapes {' and '.join(map(str, sorted(shapes)))} given in {train}, {real} and {held_out}",
                "one",
                "type e.g. resize: 32, crop: 32 and grayscale: false",
            )
        self.shape = shapes.pop()

    def _parts(self, sizes: dict[str, int]) -> tuple[Part, Part, Part]:
        pool, train = first_rows(self.train_part, sizes, self.n)
        real = pool if self.real_part is None else read_part(self.real_part, sizes, "real_part")
        written = self.held_out_part or next((name for name in self.held_out_names if name in sizes), None)
        if written is None:
            raise OldError(
                f"a dataset with the splits {', '.join(sizes)} given",
                "one that can be held out",
                f"type e.g. {divide(pool.split, sizes[pool.split])}",
            )
        held_out = read_part(written, sizes, "held_out_part")
        if len(held_out) < NEEDED["held_out_split"]:
            raise OldError(
                f"held_out_part={written!r} given, which holds one image",
                "at least 2",
                f"type e.g. {divide(pool.split, sizes[pool.split])}",
            )
        for name, part in (("train_part", train), ("real_part", real)):
            if held_out.overlaps(part):
                raise OldError(
                    f"held_out_part={written!r} given, which shares rows with {name}",
                    "images neither trained on nor compared with",
                    f"type e.g. {divide(part.split, sizes[part.split]).replace('train_part', name)}",
                )
        return train, real, held_out

    def _look_at_unreadable(self, images: dict[Part, Decoded]) -> None:
        self.unreadable = [(part.split, image) for part, found in images.items() for image in found.unreadable]
        self.skipped = len(self.unreadable)
        if not self.skipped:
            return
        first = self.unreadable[0][1]
        total = sum(len(found.images) for found in images.values())
        what = f"{self.skipped:,} of {total:,} images cannot be read (the first: {first.file}: {first.reason})"
        if not self.skip_unreadable:
            raise OldError(f"{what}", "none", "mend them, or type skip_unreadable: true to leave them out")
        _say(f"{what}: left out, as skip_unreadable asks; all of them are listed in {self.cache}/*/record.json")

    def _labels(
        self, source: dict[str, Opened], rows: dict[str, Rows], parts: tuple[Part, ...]
    ) -> dict[Part, Tensor | None]:
        """The parts' labels: the K classes that occur are 0 to K - 1, by name, whatever numbers a split gives them."""
        found: dict[str, Labels] = {}
        columns = {split: find_label_column(source[split].dataset, self.label_column, split) for split in rows}
        for split, column in columns.items():
            first = columns[parts[0].split]
            if column != first:
                raise OldError(
                    f"classes given in {column} of {split} and in {first} of {parts[0].split}",
                    "one column",
                    f"type label_column: {first}, or choose other parts",
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
                # Files are counted by their names, which is nobody's order: a metadata file may have another.
                file = f", {opened.dataset.data.column('image')[row]['path']}" if opened.content is None else ""
                raise OldError(
                    f"no class given in row {row} of {part.split}{file}",
                    "one in each",
                    "type conditional: false, or choose parts with labels",
                )
        train = parts[0]
        known = found[train.split]
        everywhere = {name for part in parts[1:] for name in _occurring(replace(found[part.split], codes=codes[part]))}
        everywhere |= set(_occurring(known))
        refuse_twins(everywhere)
        trained = set(_occurring(replace(known, codes=codes[train])))
        if lacking := in_order(everywhere - trained):
            some = f"{', '.join(lacking[:3])}{' ...' if len(lacking) > 3 else ''}"
            raise OldError(
                f"{len(codes[train]):,} training images given without any of {some} "
                f"({len(lacking):,} of {len(everywhere):,} classes)",
                "all",
                "type a larger n, another train_part, or conditional: false",
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
        # Drawn for the step's whole batch, on the device: 1 and N devices mirror the same images.
        generator = step_generator(self.base_seed, batch.step, x.device, "flips")
        mirrored = torch.rand(batch.total, generator=generator, device=x.device) < 0.5
        mine = mirrored[batch.offset : batch.offset + len(x)]
        return torch.where(mine[:, None, None, None], x.flip(-1), x)


class CIFAR10(ImageData):
    """CIFAR-10 (Krizhevsky 2009): 50 000 training and 10 000 test images of 3x32x32 in 10 classes.

    Args:
        source: as for ``ImageData``.
        kwargs: as for ``ImageData``.
    """

    def __init__(self, source: str | dict[str, str] = "uoft-cs/cifar10", **kwargs: Any) -> None:
        super().__init__(source, **kwargs)


def _occurring(labels: Labels) -> list[str]:
    """The names of classes that there are: in the dataset's own order, if it has one."""
    names = [labels.names[code] for code in np.unique(labels.codes[labels.codes >= 0])]
    return names if labels.ordered else in_order(names)


def _split(found: Decoded, whole: Part, part: Part, labels: Tensor | None) -> Split:
    """The part's readable images: a view where it has no others."""
    images = found.images[part.start - whole.start : part.stop - whole.start]
    bad = {image.place for image in found.unreadable if part.start <= image.place < part.stop}
    if not bad:
        return Split(images, labels)
    good = torch.tensor([i - part.start for i in range(part.start, part.stop) if i not in bad], dtype=torch.int64)
    if not len(good):
        raise OldError(
            f"{len(part):,} images of {part} given, none of which can be read", "some", "choose another part"
        )
    return Split(images[good], None if labels is None else labels[good])


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)
