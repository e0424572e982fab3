"""Part: which rows of which split of a dataset, written as Hugging Face writes it: ``train``, ``train[:90%]``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from fm_lightning.errors import OldError

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
    """What to type to train on most of a split and to hold out the rest.

    Raises:
        UserError: too few rows for that.
    """
    if size < 4:
        raise OldError(
            f"{size} images given in {split}", "at least 4: two or more to train on, two to hold out", "add images"
        )
    if size >= 20:
        return f"train_part: '{split}[:90%]', held_out_part: '{split}[90%:]'"
    return f"train_part: '{split}[:{size - 2}]', held_out_part: '{split}[{size - 2}:]'"


def read_part(written: str, sizes: Mapping[str, int], argument: str) -> Part:
    """What ``written`` means in a dataset whose splits have these sizes.

    Args:
        written: ``split`` or ``split[start:stop]``, in rows or percent, negative ones counted from the end.
        sizes: split -> number of rows.
        argument: under which name it was given, for messages.

    Raises:
        UserError: no such split, no rows, or not written like this.
    """
    match = _WRITTEN.fullmatch(written.strip())
    splits = ", ".join(f"{name} ({size:,})" for name, size in sizes.items())
    if match is None:
        raise OldError(
            f"{argument}={written!r} given",
            "a split of the dataset or a slice of one",
            f"type e.g. {argument}: 'train[:90%]'",
        )
    split = match["split"]
    if split not in sizes:
        raise OldError(
            f"{argument}={written!r} given",
            f"one of the dataset's splits {splits}",
            f"type {argument}: {next(iter(sizes))}",
        )
    size = sizes[split]
    start, stop, _ = slice(*(_row(match[end], size) for end in ("start", "stop"))).indices(size)
    if start >= stop:
        example = f"{argument}: {split}" if argument == "real_part" else divide(split, size)
        raise OldError(
            f"{argument}={written!r} given, which holds no rows", f"some of {splits}", f"type e.g. {example}"
        )
    return Part(split, start, stop)


def first_rows(written: str, sizes: Mapping[str, int], n: int | None) -> tuple[Part, Part]:
    """``train_part`` as written, and its first ``n`` rows (all by default), which are trained on.

    Raises:
        UserError: as ``read_part``; more rows wanted than there are.
    """
    pool = read_part(written, sizes, "train_part")
    if n is None:
        return pool, pool
    if n > len(pool):
        raise OldError(
            f"n={n:,} training samples asked for", f"at most the {len(pool):,} of {written}", f"type n: {len(pool)}"
        )
    return pool, Part(pool.split, pool.start, pool.start + n)


def _row(written: str | None, size: int) -> int | None:
    if written is None:
        return None
    return round(size * int(written[:-1]) / 100) if written.endswith("%") else int(written)
