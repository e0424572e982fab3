"""Evaluation: the table that a comparison leaves on disk, one line per (row, seed), which only grows.

evaluation/manifest.json    what the lines depend on, and what the rows are (``manifest``)
evaluation/parts/           the lines, in blocks of seeds times rows (``parts``)

>>> table = Evaluation.open("runs/digits")                        # doctest: +SKIP
>>> table.lines("kts").groupby("label").kpe.mean()                # doctest: +SKIP
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fm_lightning.errors import UserError
from fm_lightning.table.blocks import missing
from fm_lightning.table.manifest import Manifest
from fm_lightning.table.parts import Part, TornPart

if TYPE_CHECKING:  # takes half a second to import
    import pandas as pd

FOLDER = "evaluation"
Place = tuple[Part, slice, np.ndarray]  # where lines of a row stand, and which of them count
Column = tuple[str, np.ndarray]


class Evaluation:
    """Rows times seeds, read from disk; only the requested lines are held in memory.

    Attributes:
        folder: ``RUN_DIR/evaluation``.
        manifest: see ``Manifest``.
        parts: those that are whole.
        torn: damaged parts with the reason; they count as missing.
    """

    def __init__(self, folder: Path, manifest: Manifest, parts: Sequence[Part], torn: Sequence[tuple[Part, str]] = ()):
        self.folder, self.manifest, self.parts, self.torn = folder, manifest, list(parts), list(torn)

    @classmethod
    def open(cls, run_dir: str | os.PathLike[str]) -> Evaluation:
        """The evaluation of a run.

        Raises:
            UserError: the directory holds none.
        """
        folder = Path(run_dir) / FOLDER
        manifest = Manifest.read(folder / "manifest.json")
        if manifest is None:
            config = Path(run_dir) / "config.yaml"
            fix = f"Make one: fm-lightning test -c {config}" if config.exists() else "Compare schedules there first."
            raise UserError(f"{run_dir} holds no evaluation.", fix)
        return cls(folder, manifest, *find_parts(folder))

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """name -> key, kind, label, description, steps, ... in display order."""
        return self.manifest.rows

    @property
    def shown(self) -> dict[str, dict[str, Any]]:
        """The rows of the comparison, without those that were sampled on calibration seeds only."""
        return {name: about for name, about in self.rows.items() if about["kind"] != "calibration"}

    def nfe(self, row: str) -> int:
        """Network evaluations of one sample of the row; 0 where it has no lines."""
        key = self.rows[row]["key"]
        return next((part.about["nfe"][part.keys.index(key)] for part in self.parts if key in part.keys), 0)

    @property
    def seeds(self) -> range:
        """The seeds that the comparison is over."""
        first, count = self.manifest.seeds
        return range(first, first + count)

    @property
    def unmeasured(self) -> dict[str, int]:
        """measure -> samples of the comparison that lack it, if any: a command was killed, or its files were lost."""
        keys = {name: about["key"] for name, about in self.shown.items()}

        def lacking(*measures: str) -> int:
            blocks = missing(self.parts, keys, self.seeds, max(1, len(self.seeds)), measures)
            return sum(block.size * len(block.rows) for block in blocks)

        sampled = lacking()
        found = {name: lacking(f"{name}-{mark}") - sampled for name, mark in self.manifest.measures.items()}
        return {name: count for name, count in found.items() if count}

    def count(self, row: str) -> int:
        """Lines of the row in the comparison."""
        return sum(int(chosen.sum()) for _, _, chosen in self._places(row, None))

    def lines(self, row: str, seeds: range | None = None, *, measured: bool = True) -> pd.DataFrame:
        """The lines of a row, ascending in the seed: the columns of ``parts.LINES``, and those of every measure.

        Args:
            row: its name.
            seeds: which; by default those of the comparison.
            measured: whether to read the measures' columns, too.
        """
        import pandas as pd

        frames = []
        for part, place, chosen in self._places(row, seeds):
            frame = part.lines().slice(place.start, place.stop - place.start).to_pandas()
            for measure in self._measures(part) if measured else ():
                more = part.measured(measure).slice(place.start, place.stop - place.start).to_pandas()
                frame = frame.join(more.drop(columns="line", errors="ignore"))
            frames.append(frame[chosen])
        if not frames:
            return pd.DataFrame()
        return pd.concat(frames).sort_values("seed", kind="stable").reset_index(drop=True).assign(row=row)

    def columns(self, row: str, measure: str, seeds: range | None = None) -> dict[str, np.ndarray]:
        """The columns of a measure: name -> ``[n]`` or ``[n, D]``, ascending in the seed; ``seed`` is always among them.

        Args:
            row: the row's name.
            measure: the measure's, for example "fid".
            seeds: which; by default those of the comparison.
        """
        name = f"{measure}-{self.manifest.measures.get(measure, '')}"

        def read(part: Part, place: slice) -> Iterator[Column]:
            table = part.measured(name)
            for column in table.column_names:
                if column != "line":
                    yield column, table.column(column).to_numpy()[place]
            for column in part.vector_columns(name):
                yield column, part.vectors(name, column)[place]

        return self._gathered(self._places(row, seeds, need=name), read)

    def energy(self, row: str, seeds: range | None = None) -> np.ndarray:
        """``[n, steps]`` kinetic energy in each step, ascending in the seed."""
        key = self._key(row)
        found = self._gathered(self._places(row, seeds), lambda part, _: [("energy", part.energy(key))])
        return found.get("energy", np.zeros((0, 0), np.float32))

    def samples(self, row: str, seeds: range | None = None) -> np.ndarray | None:
        """``[n, ...]`` samples in the model's space, ascending in the seed; None unless all of them were kept."""
        key, places = self._key(row), list(self._places(row, seeds))
        if not all(key in part.about["kept"] for part, _, _ in places):
            return None

        def read(part: Part, _: slice) -> Iterator[Column]:
            kept = part.samples(key)
            assert kept is not None
            yield "samples", kept

        return self._gathered(places, read).get("samples")

    @staticmethod
    def _gathered(places: Iterable[Place], read: Callable[[Part, slice], Iterable[Column]]) -> dict[str, np.ndarray]:
        """``seed`` and columns, ascending in the seed; each is allocated once and filled part by part.

        Features may fill most of the host's memory, so that there is no room for copies.

        Args:
            places: see ``_places``.
            read: a part and where the row stands in it -> column, its values there.
        """
        places = list(places)
        if not places:
            return {}
        seed = np.concatenate([part.seeds[place][chosen] for part, place, chosen in places])
        order = seed.argsort(kind="stable")
        to = np.empty_like(order)
        to[order] = np.arange(len(order))
        found, begin = {"seed": seed[order]}, 0
        for part, place, chosen in places:
            here = to[begin : begin + int(chosen.sum())]
            begin += len(here)
            for name, column in read(part, place):
                values = column[chosen]
                if name not in found:
                    found[name] = np.empty((len(order), *values.shape[1:]), values.dtype)
                elif (held := np.result_type(found[name], values)) != found[name].dtype:
                    found[name] = found[name].astype(held)  # one part has numbers beyond float16
                found[name][here] = values
        return found

    def _measures(self, part: Part) -> list[str]:
        named = [f"{name}-{fingerprint}" for name, fingerprint in self.manifest.measures.items()]
        return [name for name in named if part.has(name)]

    def _key(self, row: str) -> str:
        if row not in self.manifest.rows:
            raise UserError(f"There is no row {row!r}.", f"Use one of {', '.join(self.manifest.rows) or 'none'}.")
        return self.manifest.rows[row]["key"]

    def _places(self, row: str, seeds: range | None, need: str | None = None) -> Iterator[Place]:
        """Parts with lines of the row, where they stand, and which of them count: each seed once."""
        key, seeds = self._key(row), self.seeds if seeds is None else seeds
        # Of two parts with the same seeds, the one with more measures is read.
        found = [part for part in self.parts if key in part.keys and (need is None or part.has(need))]
        found.sort(key=lambda part: (-len(self._measures(part)), part.path.name))
        taken = np.zeros(len(seeds), dtype=bool)
        for part in found:
            place = part.place(key)
            at = part.seeds[place] - seeds.start
            chosen = (at >= 0) & (at < len(seeds))
            chosen[chosen] = ~taken[at[chosen]]
            taken[at[chosen]] = True
            if chosen.any():
                yield part, place, chosen


def find_parts(folder: Path) -> tuple[list[Part], list[tuple[Part, str]]]:
    """The parts of an evaluation's folder, all of which are read once: whole ones, and damaged ones with the reason."""
    sound, torn = [], []
    for path in sorted((folder / "parts").glob("[0-9]*-[0-9]*-*")):
        part = Part(path)
        try:
            part.check()
            sound.append(part)
        except TornPart as error:
            torn.append((part, str(error)))
    return sound, torn
