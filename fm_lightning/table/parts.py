"""Parts: one block of seeds times a set of rows, on disk whole or not at all.

    parts/FIRST-LAST-KEYHASH/       lines of seeds FIRST to LAST of the rows whose keys KEYHASH names
        lines.parquet               one line per (row, seed), row after row: see ``LINES``
        energy.npy                  float32, flat: for each row its lines' energies per step, [lines, steps]
        samples.npy                 [lines, ...] float32 in the model's space, where samples are kept
        MEASURE-FINGERPRINT.parquet one file a measure, so that another can come later
        MEASURE-FINGERPRINT.COLUMN.npy   its columns that are vectors, [lines, D]

A part is made under a hidden name and renamed; of two processes that make the same part the second discards its own.
Nothing is locked, because shared file systems do not lock.
"""

from __future__ import annotations

import json
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

from fm_lightning.table.keys import key as hashed

VERSION = 1
LINES = {
    "row": "name under which the row was sampled first",
    "key": "the row's definition",
    "seed": "of the noise",
    "label": "class, or null",
    "kpe": "kinetic path energy, the sample space's unit squared",
    "early": "its part before tau_split",
    "late": "its part from tau_split on",
    "displacement": "1/2 ||x1 - x0||^2, the same unit",
    "excess": "kpe - displacement",
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
        """``{"version", "keys", "steps", "lines", "nfe"}``, lists along the keys, and ``"kept"``: keys with samples.

        Raises:
            TornPart: missing, truncated, or of another version.
        """
        try:
            metadata = pq.read_metadata(self.path / "lines.parquet")
            about = json.loads((metadata.metadata or {})[b"fm_lightning"])
        except (OSError, pa.ArrowException, KeyError, ValueError) as error:
            raise TornPart(f"lines.parquet: {' '.join(str(error).split()) or type(error).__name__}") from error
        if about.get("version") != VERSION:
            raise TornPart(f"lines.parquet has version {about.get('version')!r}, expected {VERSION}")
        if metadata.num_rows != sum(about["lines"]):
            raise TornPart(f"lines.parquet has {metadata.num_rows} lines, expected {sum(about['lines'])}")
        return about

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
        """Raises TornPart unless every file has the size that it should have."""
        _ = self.about
        for file in self.path.iterdir():
            if file.suffix == ".npy":
                lines = len(self._array(file))
                sizes = {"energy.npy": self._energy_size(), "samples.npy": self._kept_lines()}
                expected = sizes.get(file.name, self.count)
                if lines != expected:
                    raise TornPart(f"{file.name} has {lines} entries, expected {expected}")
            elif file.suffix == ".parquet" and file.name != "lines.parquet":
                try:
                    rows = pq.read_metadata(file).num_rows
                except (OSError, pa.ArrowException) as error:
                    raise TornPart(f"{file.name}: {' '.join(str(error).split())}") from error
                if rows != self.count:
                    raise TornPart(f"{file.name} has {rows} lines, expected {self.count}")
        if not (self.path / "energy.npy").exists():
            raise TornPart("energy.npy is missing")

    def _energy_size(self) -> int:
        return sum(n * s for n, s in zip(self.about["lines"], self.about["steps"]))

    def _array(self, file: Path) -> np.ndarray:
        try:
            return np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise TornPart(f"{file.name}: {' '.join(str(error).split())}") from error

    # What it holds

    @cached_property
    def seeds(self) -> np.ndarray:
        """``[lines]`` int64; kept, because whoever reads a column asks where its lines belong."""
        return pq.read_table(self.path / "lines.parquet", columns=["seed"]).column("seed").to_numpy()

    def lines(self) -> pa.Table:
        return pq.read_table(self.path / "lines.parquet")

    def energy(self, key: str) -> np.ndarray:
        """``[lines, steps]`` energy in each step."""
        flat, begin = self._array(self.path / "energy.npy"), 0
        for name, n, steps in zip(self.keys, self.about["lines"], self.about["steps"]):
            if name == key:
                return flat[begin : begin + n * steps].reshape(n, steps)
            begin += n * steps
        raise KeyError(key)

    def _kept_lines(self) -> int:
        return sum(n for key, n in zip(self.keys, self.about["lines"]) if key in self.about["kept"])

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
                    return self._array(self.path / "samples.npy")[begin : begin + n]
                begin += n
        return None

    def has(self, measure: str) -> bool:
        """Whether the measure ``NAME-FINGERPRINT`` is there."""
        return (self.path / f"{measure}.parquet").exists()

    def measured(self, measure: str) -> pa.Table:
        return pq.read_table(self.path / f"{measure}.parquet")

    def vectors(self, measure: str, column: str) -> np.ndarray:
        """``[lines, D]`` of all rows, memory-mapped."""
        return self._array(self.path / f"{measure}.{column}.npy")

    def vector_columns(self, measure: str) -> list[str]:
        return sorted(f.name.split(".")[-2] for f in self.path.glob(f"{measure}.*.npy"))

    # Writing

    def add(self, measure: str, columns: Columns) -> None:
        """Writes a measure of all lines beside what is there; the Parquet file comes last and says that it is whole."""
        for name, values in columns.items():
            if values.ndim > 1:
                _write_array(self.path / f"{measure}.{name}.npy", compact(values))
        flat = {name: values for name, values in columns.items() if values.ndim == 1}
        # A measure of vectors alone still has a file that says how many lines it covers.
        table = pa.table(flat or {"line": np.arange(self.count)})
        temporary = self.path / f".{measure}.{os.getpid()}.tmp"
        _write_table(table, temporary)
        _sync(temporary)
        os.replace(temporary, self.path / f"{measure}.parquet")


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
        about: dict[str, Any] = {
            "version": VERSION,
            "keys": list(keys),
            "steps": [int(e.shape[1]) for e in energies],
            "lines": list(map(int, counts)),
            "nfe": list(map(int, nfe)),
            "kept": [k for k in keys if k in samples],
        }
        _write_table(lines.replace_schema_metadata({"fm_lightning": json.dumps(about)}), temporary / "lines.parquet")
        flat = [np.ascontiguousarray(e, dtype=np.float32).reshape(-1) for e in energies]
        _write_array(temporary / "energy.npy", *flat or [np.zeros(0, np.float32)])
        if samples:
            _write_array(temporary / "samples.npy", *(samples[k] for k in about["kept"]))
        made = Part(temporary)
        for name, columns in measures.items():
            made.add(name, columns)
        _sync(temporary / "lines.parquet")
        temporary.chmod(0o755)  # mkdtemp makes folders that nobody else may read
        _sync(temporary)
        try:
            os.rename(temporary, place)
        except OSError:
            if not place.exists():
                raise
            there = Part(place)  # sampled before without a measure that is wanted now
            for name, columns in measures.items():
                if not there.has(name):
                    there.add(name, columns)
        _sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Part(place)


def compact(values: np.ndarray) -> np.ndarray:
    """Wide vectors as float16 where they fit: a Fréchet distance of 2 048 features moves by 1e-6 relative."""
    wide = values.shape[1:] and int(np.prod(values.shape[1:])) > 256
    if not wide or values.dtype.kind != "f" or (values.size and float(np.abs(values).max()) > 6e4):
        return values
    return values.astype(np.float16)


def _write_table(table: pa.Table, path: Path) -> None:
    # A dictionary of a column of energies costs four times the rest, and saves nothing.
    pq.write_table(table, path, use_dictionary=[name for name in ("row", "key") if name in table.column_names])


def _write_array(path: Path, *pieces: np.ndarray) -> None:
    """One array of the pieces' rows, one after the other, of one type and shape."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        header = np.lib.format.header_data_from_array_1_0(np.asarray(pieces[0], order="C"))
        if len(pieces) > 1:
            header["shape"] = (sum(map(len, pieces)), *pieces[0].shape[1:])
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            # np.save would write through the C library, whose error does not say that the disk is full.
            file.write(np.asarray(piece, order="C").reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
