"""Writes an evaluation: claims the run, agrees on what the lines depend on, and adds blocks as they are finished."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from fm_lightning.errors import OldError
from fm_lightning.table.blocks import Block
from fm_lightning.table.evaluation import FOLDER, Evaluation, find_parts
from fm_lightning.table.manifest import Manifest
from fm_lightning.table.parts import Columns, Part, write_part
from fm_lightning.trajectory import Trajectory

SILENT = 600.0  # seconds after which a claim from another machine counts as abandoned
TOGETHER = 64  # samples that are compared with base's at a time, in float64


class BaseSamples(NamedTuple):
    """Samples of plain sampling."""

    seeds: np.ndarray  # [n] int64, ascending
    samples: np.ndarray  # [n, ...] float32


class Writer:
    """One process's hand in an evaluation.

    Args:
        run_dir: the run's directory.
        tau_split: time that separates early from late energy in the lines.
    """

    def __init__(self, run_dir: str | os.PathLike[str], tau_split: float) -> None:
        self.folder = Path(run_dir) / FOLDER
        self.tau_split = tau_split
        self.written: list[str] = []
        self._claimed = 0.0

    # Two commands on one run

    @property
    def _claim(self) -> Path:
        return self.folder / "running.json"

    def claim(self) -> None:
        """Marks the evaluation as being written; the mark is renewed with each block.

        Raises:
            UserError: another command that is still alive has marked it, or the folder cannot be written.
        """
        try:
            found = json.loads(self._claim.read_text())
            host, pid, started, told = found["host"], int(found["pid"]), found["started"], float(found["time"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        else:
            here = host == socket.gethostname()
            mine = here and pid == os.getpid()
            alive = _started(pid) == started if here else time.time() - told < SILENT
            if alive and not mine:
                raise OldError(
                    f"another command (process {pid} on {host}) is writing {self.folder}",
                    "one at a time",
                    f"wait for it, or, if it is dead, delete {self._claim}",
                )
        self._renew()

    def _renew(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        pid = os.getpid()
        said = {"host": socket.gethostname(), "pid": pid, "started": _started(pid), "time": time.time()}
        temporary = self._claim.with_name(f".running.{pid}.tmp")
        temporary.write_text(json.dumps(said))
        os.replace(temporary, self._claim)
        self._claimed = time.monotonic()

    def release(self) -> None:
        """Takes the mark away."""
        self._claim.unlink(missing_ok=True)
        self._claimed = 0.0

    # What is there

    def open(self, identity: Mapping[str, Any], say: Callable[[str], None] = print) -> Evaluation:
        """What earlier commands left, after a look at whether it is still true; torn parts are named and removed.

        Raises:
            UserError: the lines there depend on something else than ``identity`` says.
        """
        manifest = Manifest.read(self.folder / "manifest.json")
        if manifest is None:
            if (self.folder / "parts").exists():
                raise OldError(
                    f"{self.folder} holds parts but no manifest",
                    "one that says what they were sampled from",
                    "type --again to keep them aside",
                )
            manifest = Manifest(identity=dict(identity))
        manifest.require(identity, self.folder)
        for left in (self.folder / "parts").glob(".*.tmp"):  # by a command that was killed: we hold the claim
            shutil.rmtree(left, ignore_errors=True)
        found = Evaluation(self.folder, manifest, *find_parts(self.folder))
        for part, reason in found.torn:
            say(f"{part.path} is torn ({reason}): removed, and sampled again")
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
            base: base's samples, for the distance to them; None where they are not at hand.
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

    def add(self, part: Part, measures: Mapping[str, Columns]) -> None:
        """Writes measures of a part's kept samples beside them."""
        for measure, columns in measures.items():
            part.add(measure, columns)
        self._done(part)

    def _done(self, part: Part) -> None:
        self.written.append(part.path.name)
        if self._claimed and time.monotonic() - self._claimed > SILENT / 20:
            self._renew()

    def _lines(self, name: str, key: str, t: Trajectory, base: BaseSamples | None) -> pa.Table:
        assert t.seeds is not None
        seeds = t.seeds.cpu().numpy()
        early, kpe = t.early(self.tau_split), t.kpe
        sampled = len(t.times) > 1  # a floor took no way
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
            columns[column] = pa.array(values.float().cpu().numpy() if sampled else [None] * len(t), pa.float32())
        columns["rms_to_base"] = pa.array(_distances(t, seeds, base) if sampled else [None] * len(t), pa.float32())
        return pa.table(columns)


def _distances(t: Trajectory, seeds: np.ndarray, base: BaseSamples | None) -> list[float | None]:
    """Root mean square over dimensions of each sample's difference from base's; None where that is not at hand."""
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


def _started(pid: int) -> str | None:
    """When a process of this machine began, or None where there is none: a number that is used again is another process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # one that was killed may be listed until its parent looks
    except (OSError, IndexError):
        pass
    try:  # no /proc: that it lives must do
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return "unknown"
    return "unknown"
