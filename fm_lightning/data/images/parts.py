"""Parts of a dataset, written as in Hugging Face `datasets`: ``train``, ``train[:90%]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fm_lightning.errors import UserError

_WRITTEN = re.compile(r"(?P<split>[\w.\-]+)(?:\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


@dataclass(frozen=True)
class Part:
    """Rows ``start`` to ``stop`` of a split, in the order in which it is served."""

    split: str
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.split}[{self.start}:{self.stop}]"

    def __len__(self) -> int:
        return self.stop - self.start

    def __contains__(self, other: Part) -> bool:
        return self.split == other.split and self.start <= other.start and other.stop <= self.stop

    def overlaps(self, other: Part) -> bool:
        return self.split == other.split and max(self.start, other.start) < min(self.stop, other.stop)


def divide(split: str, size: int) -> str:
    """Returns arguments that train on most of a split and hold out the rest.

    Raises:
        UserError: too few rows for that.
    """
    if size < 4:
        raise UserError(f"{split} has {size} images.", "Add images: at least 2 to train on and 2 to hold out.")
    if size >= 20:
        return f"train_part: '{split}[:90%]', held_out_part: '{split}[90%:]'"
    return f"train_part: '{split}[:{size - 2}]', held_out_part: '{split}[{size - 2}:]'"


def read_part(written: str, sizes: Mapping[str, int], argument: str) -> Part:
    """Parses a part of a dataset whose splits have these sizes.

    Args:
        written: ``split`` or ``split[start:stop]``, in rows or percent; negative numbers count from the end.
        sizes: split -> number of rows.
        argument: the name of the argument, for messages.

    Raises:
        UserError: no such split, no rows, or another form.
    """
    match = _WRITTEN.fullmatch(written.strip())
    splits = ", ".join(f"{name} ({size:,})" for name, size in sizes.items())
    if match is None:
        raise UserError(f"{argument}={written!r} is no split or slice.", f"Set for example {argument}: 'train[:90%]'")
    split = match["split"]
    if split not in sizes:
        raise UserError(
            f"{argument}={written!r} is not in the dataset, which has {splits}.", f"Set {argument}: {next(iter(sizes))}"
        )
    size = sizes[split]
    start, stop, _ = slice(*(_row(match[end], size) for end in ("start", "stop"))).indices(size)
    if start >= stop:
        example = f"{argument}: {split}" if argument == "real_part" else divide(split, size)
        raise UserError(f"{argument}={written!r} has no rows of {splits}.", f"Set for example {example}")
    return Part(split, start, stop)


def first_rows(written: str, sizes: Mapping[str, int], n: int | None) -> tuple[Part, Part]:
    """Returns ``train_part`` and its first ``n`` rows (all by default), which are trained on.

    Raises:
        UserError: see ``read_part``; or fewer than ``n`` rows.
    """
    pool = read_part(written, sizes, "train_part")
    if n is None:
        return pool, pool
    if n > len(pool):
        raise UserError(f"n={n} is more than the {len(pool):,} samples of {written}.", f"Set n: {len(pool)}")
    return pool, Part(pool.split, pool.start, pool.start + n)


def _row(written: str | None, size: int) -> int | None:
    if written is None:
        return None
    return round(size * int(written[:-1]) / 100) if written.endswith("%") else int(written)
