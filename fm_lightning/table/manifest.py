"""The manifest of an evaluation: what its lines were sampled from, and what its rows are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fm_lightning.errors import UserError
from fm_lightning.files import read_json, write_json

VERSION = 2


class OtherEvaluation(UserError):
    """A folder holds what cannot be continued; the command line has another fix for it."""

    def __init__(self, problem: str, folder: Path) -> None:
        super().__init__(problem, f"Use another folder, or delete {folder}")


@dataclass
class Manifest:
    """``manifest.json``.

    Attributes:
        identity: hashes and settings that every line depends on; if they change, the lines are no longer valid.
        rows: name -> what the row is, in display order: ``key``, ``kind``, ``of``, ``label``, ``description``, ``steps``, ...
        definitions: key -> the row's canonical definition, including rows of earlier commands.
        chosen: schedule's key -> family -> doses at each place where its curve reaches the schedule: measured once, on
            calibration seeds.
        judged: schedule -> the row that it is judged against, and its families' rows, three for each place.
        measures: measure -> fingerprint of the latest command.
        seeds: ``[first, count]`` of the comparison.
        about: what the report prints about the run: data space, sizes, hardware, versions, command.
    """

    identity: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    definitions: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, dict[str, list[list[float]]]] = field(default_factory=dict)
    judged: dict[str, dict[str, Any]] = field(default_factory=dict)
    measures: dict[str, str] = field(default_factory=dict)
    seeds: tuple[int, int] = (0, 0)
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Manifest | None:
        """The manifest, or None where there is none.

        Raises:
            UserError: it is damaged, or of another version.
        """
        fix = _sample_again(path.parent)
        try:
            found = read_json(path, fix)
        except FileNotFoundError:
            return None
        version = found.pop("version", None)
        if version != VERSION:
            raise UserError(f"{path} has version {version}, and this program reads version {VERSION}.", fix)
        return cls(**{**found, "seeds": tuple(found["seeds"])})

    def write(self, path: Path) -> None:
        """Writes it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"version": VERSION} | self.__dict__)

    def require(self, identity: Mapping[str, Any], folder: Path) -> None:
        """Raises OtherEvaluation unless the lines were sampled with this identity."""
        for name in {**self.identity, **identity}:
            there, here = self.identity.get(name), identity.get(name)
            if there != here:
                raise OtherEvaluation(
                    f"{folder} holds an evaluation with other {name.replace('_', ' ')} ({_short(there)} there, "
                    f"{_short(here)} here).",
                    folder,
                )


def _sample_again(folder: Path) -> str:
    if (folder.parent / "config.yaml").exists():
        # Not the file: a run directory stands for its root and name, too.
        return f"Set it aside and sample again: fm-lightning test -c {folder.parent} --again evaluation"
    return f"Move {folder} away and compare again."


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
