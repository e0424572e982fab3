"""Parts: one block of seeds for a set of rows, on disk whole or not at all.

    parts/FIRST-LAST-KEYHASH/       lines of seeds FIRST to LAST of the rows whose keys KEYHASH names
        part.json                   what it holds, with the size and checksum of the next three files
        lines.parquet               one line per (row, seed), row after row: see ``LINES``
        energy.npy                  float32, flat: for each row the energies of its lines per step, [lines, steps]
        samples.npy                 [lines, ...] float32 in the model's space, where samples are kept
        MEASURE-FINGERPRINT.json    size and checksum of the measure's files; each measure has its own, so that one can be added
        MEASURE-FINGERPRINT.parquet its columns that are numbers
        MEASURE-FINGERPRINT.COLUMN.npy   its columns that are vectors, [lines, D]

A JSON file is written after the files that it names. A part is made under a hidden name and renamed; of two processes that
make the same part, the second discards its own. Parts are written without locks, because not every shared file system has them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fm_lightning.files import DamagedFile, checksum, compact, read_json, sync, write_json
from fm_lightning.table.keys import key as hashed

PART = "part.json"
LINES = {
    "row": "name under which the row was sampled first",
    "key": "the row's definition",
    "seed": "of the noise",
    "label": "class, or null",
    "kpe": "kinetic path energy, the sample space's unit squared",
    "early": "its part before tau_split",
    "late": "its part after tau_split",
    "displacement": "1/2 ||x1 - x0||^2, the same unit; null for an SDE",
    "excess": "kpe - displacement; null for an SDE",
    "field_energy": "1/2 int ||v||^2 dt of the unshaped field, the same unit",
    "rms_to_base": "root mean square over dimensions of the difference from base's sample, the sample space's unit",
}
Columns = Mapping[str, np.ndarray]  # name -> [lines] or [lines, D]


class TornPart(Exception):
    """A part that cannot be read whole."""


class Part:
    """A part on disk: equal to another one of the same path."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Part) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    @property
    def first(self) -> int:
        return int(self.path.name.split("-")[0])

    @property
    def last(self) -> int:
        return int(self.path.name.split("-")[1])

    @cached_property
    def about(self) -> dict[str, Any]:
        """``{"keys", "steps", "lines", "nfe"}``, lists along the keys, ``"kept"``: keys with samples, and ``"files"``.

        Raises:
            TornPart: missing or damaged.
        """
        return self._read_json(PART)

    @property
    def keys(self) -> list[str]:
        return self.about["keys"]

    @property
    def count(self) -> int:
        """Lines of all rows."""
        return sum(self.about["lines"])

    def place(self, key: str) -> slice:
        """Where the lines of a row stand."""
        at = self.keys.index(key)
        start = sum(self.about["lines"][:at])
        return slice(start, start + self.about["lines"][at])

    def check(self) -> None:
        """Raises TornPart unless every file is what was written; reads all of them once."""
        for file in (PART, *sorted(file.name for file in self.path.glob("*.json") if file.name != PART)):
            for name, (size, sum_) in self._read_json(file)["files"].items():
                path = self.path / name
                if not path.exists():
                    raise TornPart(f"{name} is missing")
                if path.stat().st_size != size:
                    raise TornPart(f"{name} has {path.stat().st_size:,} bytes instead of {size:,}")
                if checksum(path) != sum_:
                    raise TornPart(f"the checksum of {name} does not match")

    def _read_json(self, name: str) -> dict[str, Any]:
        try:
            return read_json(self.path / name)
        except FileNotFoundError as error:
            raise TornPart(f"{name} is missing") from error
        except DamagedFile as error:
            raise TornPart(f"{name}: {error.reason}") from error

    # What it holds

    @cached_property
    def seeds(self) -> np.ndarray:
        """``[lines]`` int64; kept, because whoever reads a column asks where its lines belong."""
        return _read_table(self.path / "lines.parquet", ["seed"]).column("seed").to_numpy()

    def lines(self) -> pa.Table:
        return _read_table(self.path / "lines.parquet")

    def energy(self, key: str) -> np.ndarray:
        """``[lines, steps]`` energy in each step."""
        flat, begin = np.load(self.path / "energy.npy", mmap_mode="r"), 0
        for name, n, steps in zip(self.keys, self.about["lines"], self.about["steps"]):
            if name == key:
                return flat[begin : begin + n * steps].reshape(n, steps)
            begin += n * steps
        raise KeyError(key)

    @property
    def keeps_all(self) -> bool:
        """Whether the samples of all its rows are kept, so that another measure needs no sampling."""
        return self.about["kept"] == self.keys

    def samples(self, key: str) -> np.ndarray | None:
        """``[lines, ...]`` samples of the row, memory-mapped, if they were kept."""
        begin = 0
        for name, n in zip(self.keys, self.about["lines"]):
            if name in self.about["kept"]:
                if name == key:
                    return np.load(self.path / "samples.npy", mmap_mode="r")[begin : begin + n]
                begin += n
        return None

    def has(self, measure: str) -> bool:
        """Whether the measure ``NAME-FINGERPRINT`` is there."""
        return (self.path / f"{measure}.json").exists()

    def measured(self, measure: str) -> pa.Table:
        return _read_table(self.path / f"{measure}.parquet")

    def vectors(self, measure: str, column: str) -> np.ndarray:
        """``[lines, D]`` of all rows, memory-mapped."""
        return np.load(self.path / f"{measure}.{column}.npy", mmap_mode="r")

    def vector_columns(self, measure: str) -> list[str]:
        return sorted(f.name.split(".")[-2] for f in self.path.glob(f"{measure}.*.npy"))

    # Writing

    def add(self, measure: str, columns: Columns) -> None:
        """Writes a measure of all lines next to what is there; the JSON file comes last and says that it is whole."""
        files = []
        for name, values in columns.items():
            if values.ndim > 1:
                files.append(_write_array(self.path / f"{measure}.{name}.npy", compact(values)))
        flat = {name: values for name, values in columns.items() if values.ndim == 1}
        # A measure of vectors alone still has a table that says how many lines it covers.
        table = pa.table(flat or {"line": np.arange(self.count)})
        files.append(_write_table(table, self.path / f"{measure}.parquet"))
        write_json(self.path / f"{measure}.json", {"files": _sums(files)})


def write_part(
    folder: Path,
    first: int,
    last: int,
    keys: Sequence[str],
    lines: pa.Table,
    counts: Sequence[int],
    nfe: Sequence[int],
    energies: Sequence[np.ndarray],
    samples: Mapping[str, np.ndarray],
    measures: Mapping[str, Columns],
) -> Part:
    """Writes the lines of seeds ``first`` to ``last`` of some rows.

    Args:
        folder: of the parts.
        first: the block's first seed.
        last: its last one.
        keys: of the rows, in the order of their lines.
        lines: one line per (row, seed).
        counts: lines of each row.
        nfe: network evaluations of a sample of each row.
        energies: per row ``[lines, steps]`` float32.
        samples: key -> ``[lines, ...]``, of the rows whose samples are kept.
        measures: ``NAME-FINGERPRINT`` -> columns.

    Returns:
        the part: this one, or the one that was there before, to which the measures that it lacked are added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{first:09d}-{last:09d}-{hashed(list(keys))}"
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", suffix=".tmp", dir=folder))
    try:
        kept = [key for key in keys if key in samples]
        flat = [np.ascontiguousarray(e, dtype=np.float32).reshape(-1) for e in energies]
        files = [
            _write_table(lines, temporary / "lines.parquet"),
            _write_array(temporary / "energy.npy", *flat or [np.zeros(0, np.float32)]),
        ]
        if samples:
            files.append(_write_array(temporary / "samples.npy", *(samples[key] for key in kept)))
        about = {
            "keys": list(keys),
            "steps": [int(e.shape[1]) for e in energies],
            "lines": list(map(int, counts)),
            "nfe": list(map(int, nfe)),
            "kept": kept,
            "files": _sums(files),
        }
        write_json(temporary / PART, about)
        made = Part(temporary)
        for name, columns in measures.items():
            made.add(name, columns)
        temporary.chmod(0o755)  # mkdtemp makes folders that other users cannot read
        try:
            os.rename(temporary, place)
        except OSError:
            if not place.exists():
                raise
            there = Part(place)  # sampled before without a measure that is wanted now
            for name, columns in measures.items():
                if not there.has(name):
                    there.add(name, columns)
        sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Part(place)


def _read_table(path: Path, columns: list[str] | None = None) -> pa.Table:
    # Not pq.read_table, which looks for a folder of files first: that takes longer than reading.
    with pq.ParquetFile(path) as file:
        return file.read(columns, use_threads=False)


# A file without the JSON file that names it is not there yet, so that neither of these needs another name at first.


def _write_table(table: pa.Table, path: Path) -> Path:
    # A dictionary of a column of energies costs four times the rest, and saves nothing.
    pq.write_table(table, path, use_dictionary=[name for name in ("row", "key") if name in table.column_names])
    sync(path)
    return path


def _write_array(path: Path, *pieces: np.ndarray) -> Path:
    """One array of the pieces' rows, one after the other, of one type and shape."""
    with path.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(np.asarray(pieces[0], order="C"))
        if len(pieces) > 1:
            header["shape"] = (sum(map(len, pieces)), *pieces[0].shape[1:])
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            # np.save would write through the C library, whose error does not say that the disk is full.
            file.write(np.asarray(piece, order="C").reshape(-1).view(np.uint8).data)
    sync(path)
    return path


def _sums(files: Sequence[Path]) -> dict[str, tuple[int, int]]:
    """File name -> its size in bytes and its checksum."""
    return {file.name: (file.stat().st_size, checksum(file)) for file in files}
