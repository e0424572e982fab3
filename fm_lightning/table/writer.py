"""Writes an evaluation: verifies what earlier commands left, and adds blocks as they are finished."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fm_lightning.table.blocks import Block
from fm_lightning.table.claim import Claim
from fm_lightning.table.evaluation import FOLDER, Evaluation, find_parts
from fm_lightning.table.manifest import Manifest, OtherEvaluation
from fm_lightning.table.parts import Columns, Part, write_part
from fm_lightning.trajectory import Trajectory

TOGETHER = 64  # samples that are compared with base's at a time, in float64


class BaseSamples(NamedTuple):
    """Samples of plain sampling."""

    seeds: np.ndarray  # [n] int64, ascending
    samples: np.ndarray  # [n, ...] float32


class Writer:
    """Adds the blocks of one process to an evaluation.

    Args:
        run_dir: the run's directory.
        tau_split: time that separates early from late energy in the lines.

    Attributes:
        written: names of the parts that this process has written.
        claim: of the run's directory, which whoever writes holds.
    """

    def __init__(self, run_dir: str | os.PathLike[str], tau_split: float) -> None:
        self.folder = Path(run_dir) / FOLDER
        self.tau_split = tau_split
        self.written: list[str] = []
        self.claim = Claim(run_dir)

    # What is there

    def open(self, identity: Mapping[str, Any], say: Callable[[str], None] = print) -> Evaluation:
        """What earlier commands left; damaged parts are named and removed.

        Raises:
            UserError: the lines there were sampled with another identity.
        """
        manifest = Manifest.read(self.folder / "manifest.json")
        if manifest is None:
            if (self.folder / "parts").exists():
                raise OtherEvaluation(
                    f"{self.folder} holds parts, and no manifest says what they were sampled from.", self.folder
                )
            manifest = Manifest(identity=dict(identity))
        manifest.require(identity, self.folder)
        for left in (self.folder / "parts").glob(".*.tmp"):  # by a killed command: we hold the claim
            shutil.rmtree(left, ignore_errors=True)
        found = Evaluation(self.folder, manifest, *find_parts(self.folder))
        for part, reason in found.torn:
            say(f"{part.path} is damaged ({reason}): removed and sampled again")
            shutil.rmtree(part.path, ignore_errors=True)
        return found

    # Blocks

    def write(
        self,
        block: Block,
        keys: Mapping[str, str],
        trajectories: Mapping[str, Trajectory],
        base: BaseSamples | None,
        kept: Sequence[str],
        measures: Mapping[str, Mapping[str, Columns]],
    ) -> None:
        """Writes a sampled block.

        Args:
            block: what was sampled.
            keys: row name -> key.
            trajectories: row name -> its trajectory.
            base: base's samples, for the distance to them; None where they are not available.
            kept: rows whose samples are kept.
            measures: ``NAME-FINGERPRINT`` -> row name -> columns.
        """
        rows = list(block.rows)
        tables = [self._lines(name, keys[name], trajectories[name], base) for name in rows]
        samples = {keys[name]: trajectories[name].x1.float().cpu().numpy() for name in rows if name in kept}
        part = write_part(
            self.folder / "parts",
            block.first,
            block.last,
            [keys[name] for name in rows],
            pa.concat_tables(tables),
            [len(table) for table in tables],
            [trajectories[name].nfe for name in rows],
            [trajectories[name].energy.float().T.cpu().numpy() for name in rows],
            samples,
            {measure: _stacked([columns[name] for name in rows]) for measure, columns in measures.items()},
        )
        self._done(part)

    def add(self, part: Part, measures: Mapping[str, Mapping[str, Columns]]) -> None:
        """Writes measures of a part's kept samples next to them: ``NAME-FINGERPRINT`` -> key -> columns, as the part's rows."""
        for measure, columns in measures.items():
            part.add(measure, _stacked(list(columns.values())))
        self._done(part)

    def _done(self, part: Part) -> None:
        self.claim.check()
        self.written.append(part.path.name)

    def _lines(self, name: str, key: str, t: Trajectory, base: BaseSamples | None) -> pa.Table:
        assert t.seeds is not None
        seeds = t.seeds.cpu().numpy()
        early, kpe = t.early(self.tau_split), t.kpe
        sampled = len(t.times) > 1  # a floor was not integrated
        columns: dict[str, Any] = {
            "row": pa.array([name] * len(t), pa.string()),
            "key": pa.array([key] * len(t), pa.string()),
            "seed": seeds,
            "label": pa.array([None] * len(t) if t.labels is None else t.labels.cpu().tolist(), pa.int32()),
        }
        energies = {
            "kpe": kpe,
            "early": early,
            "late": t.late(self.tau_split),
            "displacement": t.displacement,
            "excess": t.excess,
            "field_energy": t.field_energy,
        }
        for column, values in energies.items():
            numbers = values.float().cpu().numpy() if sampled else [None] * len(t)
            columns[column] = pa.array(numbers, pa.float32(), from_pandas=True)  # NaN, an SDE's displacement, is null
        columns["rms_to_base"] = pa.array(_distances(t, seeds, base) if sampled else [None] * len(t), pa.float32())
        return pa.table(columns)


def _distances(t: Trajectory, seeds: np.ndarray, base: BaseSamples | None) -> list[float | None]:
    """Root mean square over dimensions of each sample's difference from base's; None where base's is missing."""
    found: list[float | None] = [None] * len(seeds)
    if base is None or not len(base.seeds):
        return found
    x1, theirs = t.x1.float().flatten(1).cpu().numpy(), base.samples.reshape(len(base.seeds), -1)
    place = np.searchsorted(base.seeds, seeds).clip(max=len(base.seeds) - 1)
    there = np.flatnonzero(base.seeds[place] == seeds)
    for start in range(0, len(there), TOGETHER):
        some = there[start : start + TOGETHER]
        squares = np.square(x1[some] - theirs[place[some]], dtype=np.float64)
        for i, rms in zip(some, np.sqrt(squares.mean(1)).tolist()):
            found[i] = rms
    return found


def _stacked(columns: Sequence[Columns]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([np.asarray(each[name]) for each in columns]) for name in columns[0]}
