"""Images from any Hugging Face dataset; CIFAR-10."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fm_lightning.data.base import FlowData, Split, pixels, unit_pixels
from fm_lightning.data.batches import TrainBatch
from fm_lightning.data.images.cache import Decoded, Unreadable, cache_directory, decoded
from fm_lightning.data.images.parts import Part, read_part
from fm_lightning.data.images.preprocessing import Preprocessing
from fm_lightning.data.images.source import find_image_column, find_label_column, open_source
from fm_lightning.errors import UserError
from fm_lightning.noise import step_generator

if TYPE_CHECKING:
    from datasets import Dataset


class ImageData(FlowData):
    """Images of a Hugging Face dataset, decoded once to uint8 (see ``image_cache``) and served in whole batches.

    Training images are the first ``n`` of ``train_part``. Samples are compared with ``real_part``, by default all of
    ``train_part``'s images, not only the first n: the field's convention for CIFAR-10. ``held_out_part`` is by default the
    test split, else the validation split. Parts are written as Hugging Face writes them: ``train``, ``train[:90%]``.

    Args:
        source: name on the hub; or a folder of images or of parquet files; a parquet file or pattern; or such files per
            split (``{train: a.parquet, test: b.parquet}``).
        config: which of the dataset's configurations, where it has several.
        image_column: the column with images; default: the first of that type.
        label_column: the column with classes; default: the first of that type. Looked at if ``conditional``.
        conditional: serve the class as label.
        n: training images, the first n; None takes all.
        train_part: what to train on.
        real_part: what samples are compared with.
        held_out_part: for the validation loss and the floor of real images; no row of it may be in the other two.
        resize: pixels of the shorter side (bilinear, antialiased); None keeps the size.
        crop: side of the square then cut from the centre; None keeps all.
        grayscale: one channel instead of three; None: as the first image is.
        adm_crop: side of the centre square as ADM, DiT and SiT cut it from ImageNet; instead of resize and crop.
        flip: mirror every training image with probability 1/2, anew at each step.
        skip_unreadable: go on without images that cannot be read.
        cache_dir: for decoded images; default $FM_LIGHTNING_CACHE, else ~/.cache/fm_lightning.
        kwargs: as for every datamodule.

    Attributes:
        class_names: the classes' names if conditional, where the dataset names them.
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
        resize: int | None = None,
        crop: int | None = None,
        grayscale: bool | None = None,
        adm_crop: int | None = None,
        flip: bool = False,
        skip_unreadable: bool = False,
        cache_dir: str | None = None,
        **kwargs: int,
    ) -> None:
        super().__init__(**kwargs)
        if n is not None and n < 1:
            raise UserError(f"n={n} given, expected at least 1 training image; type --data.init_args.n 1024")
        self.source, self.config, self.n = source, config, n
        self.image_column, self.label_column, self.conditional = image_column, label_column, conditional
        self.train_part, self.real_part, self.held_out_part = train_part, real_part, held_out_part
        self.preprocessing = Preprocessing(resize, crop, grayscale, adm_crop)
        self.flip, self.skip_unreadable = flip, skip_unreadable
        self.cache: Path = cache_directory(cache_dir)
        self.class_names: list[str] = []
        self.unreadable: list[tuple[str, Unreadable]] = []  # (split, image)

    def load(self) -> None:
        dataset = open_source(self.source, self.config)
        train, real, held_out = parts = self._parts({name: len(rows) for name, rows in dataset.items()})
        column = find_image_column(dataset[train.split], self.image_column)
        for part in parts[1:]:
            find_image_column(dataset[part.split], column)
        # A part within another is not decoded twice; both are then views of the same memory.
        whole = {part: next(other for other in (real, held_out, part) if part in other) for part in parts}
        images = {
            part: decoded(dataset[part.split], column, part, self.preprocessing, self.cache)
            for part in dict.fromkeys(whole.values())
        }
        self._look_at_unreadable(images, parts)
        labels = self._labels(dataset, parts)
        self.train_split, self.real_split, self.held_out_split = splits = [
            _split(images[whole[part]], whole[part], part, labels[part]) for part in parts
        ]
        shapes = {tuple(split.x.shape[1:]) for split in splits}
        if len(shapes) > 1:
            raise UserError(
                f"images of shapes {' and '.join(map(str, sorted(shapes)))} in {train}, {real} and {held_out}, expected one; "
                "type e.g. --data.init_args.resize 32 --data.init_args.crop 32 --data.init_args.grayscale false"
            )
        self.shape = shapes.pop()

    def _parts(self, sizes: dict[str, int]) -> tuple[Part, Part, Part]:
        pool = read_part(self.train_part, sizes, "train_part")
        n = len(pool) if self.n is None else self.n
        if n > len(pool):
            raise UserError(
                f"n={n:,} training images asked for, expected at most the {len(pool):,} of {self.train_part}; type "
                f"--data.init_args.n {len(pool)}"
            )
        train = Part(pool.split, pool.start, pool.start + n)
        real = pool if self.real_part is None else read_part(self.real_part, sizes, "real_part")
        written = self.held_out_part or next((name for name in self.held_out_names if name in sizes), None)
        if written is None:
            raise UserError(
                f"the dataset has only the splits {', '.join(sizes)}, expected one that can be held out; type e.g. "
                f"--data.init_args.train_part '{pool.split}[:90%]' --data.init_args.held_out_part '{pool.split}[90%:]'"
            )
        held_out = read_part(written, sizes, "held_out_part")
        for name, part in (("train_part", train), ("real_part", real)):
            if held_out.overlaps(part):
                raise UserError(
                    f"held_out_part={written!r} given, which shares rows with {name}, expected images neither trained on "
                    f"nor compared with; type e.g. --data.init_args.{name} '{part.split}[:90%]' "
                    f"--data.init_args.held_out_part '{part.split}[90%:]'"
                )
        return train, real, held_out

    def _look_at_unreadable(self, images: dict[Part, Decoded], parts: tuple[Part, ...]) -> None:
        self.unreadable = [(part.split, image) for part, found in images.items() for image in found.unreadable]
        self.skipped = len(self.unreadable)
        if not self.skipped:
            return
        split, first = self.unreadable[0]
        total = sum(len(found.images) for found in images.values())
        what = (
            f"{self.skipped:,} of {total:,} images cannot be read (the first: index {first.index} of {split}, {first.file}: "
            f"{first.reason})"
        )
        if not self.skip_unreadable:
            raise UserError(
                f"{what}, expected none; mend them, or type --data.init_args.skip_unreadable true to leave them out"
            )
        _say(f"{what}: left out, as skip_unreadable asks; all of them are listed in {self.cache}/*/record.json")

    def _labels(self, dataset: dict[str, Dataset], parts: tuple[Part, ...]) -> dict[Part, Tensor | None]:
        if not self.conditional:
            return dict.fromkeys(parts)
        column = find_label_column(dataset[parts[0].split], self.label_column)
        labels: dict[Part, Tensor | None] = {}
        for part in parts:
            find_label_column(dataset[part.split], column)
            rows = dataset[part.split].select_columns([column])[part.start : part.stop][column]
            bad = next((i for i, label in enumerate(rows, part.start) if label is None or label < 0), None)
            if bad is not None:
                raise UserError(
                    f"row {bad} of {part.split} has the label {rows[bad - part.start]}, expected classes from 0; type "
                    "--data.init_args.conditional false, or choose parts with labels"
                )
            labels[part] = torch.tensor(rows, dtype=torch.int64)
        feature = dataset[parts[0].split].features[column]
        self.class_names = list(getattr(feature, "names", None) or [])
        self.num_classes = len(self.class_names) or 1 + max(int(y.max()) for y in labels.values() if y is not None)
        return labels

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


def _split(found: Decoded, whole: Part, part: Part, labels: Tensor | None) -> Split:
    """The part's readable images: a view where it has no others."""
    images = found.images[part.start - whole.start : part.stop - whole.start]
    bad = {image.index for image in found.unreadable if part.start <= image.index < part.stop}
    if not bad:
        return Split(images, labels)
    good = torch.tensor([i - part.start for i in range(part.start, part.stop) if i not in bad], dtype=torch.int64)
    if not len(good):
        raise UserError(f"none of the {len(part):,} images of {part} can be read, expected some; choose another part")
    return Split(images[good], None if labels is None else labels[good])


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)
