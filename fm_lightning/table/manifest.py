"""The manifest of an evaluation: what its lines were sampled from, and what its rows are."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fm_lightning.errors import OldError

VERSION = 1


@dataclass
class Manifest:
    """``manifest.json``.

    Attributes:
        identity: hashes and settings that every line depends on; other ones make the lines untrue.
        rows: name -> what the row is, in display order: ``key``, ``kind``, ``of``, ``label``, ``description``, ``steps``, ...
        definitions: key -> the row's canonical definition; those of rows that were asked for earlier stay.
        chosen: schedule's key -> family -> doses at each place where its curve reaches the schedule: measured on calibration
            seeds, read back, never measured anew.
        judged: schedule -> the row that it is judged against, and its families' rows, three for each place.
        measures: measure -> fingerprint of the latest command.
        seeds: ``[first, count]`` of the comparison.
        about: what the report says about the run: data space, sizes, hardware, versions, command.
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
            UserError: a file that is none, or of another version.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("identity"), dict):
            raise OldError(f"{path} given", "the manifest of an evaluation", "type --again to keep it aside")
        if found.get("version") != VERSION:
            raise OldError(
                f"{path} of version {found.get('version')!r} given", f"{VERSION}", "type --again to keep it aside"
            )
        del found["version"]
        return cls(**{**found, "seeds": tuple(found.get("seeds", (0, 0)))})

    def write(self, path: Path) -> None:
        """Writes it whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps({"version": VERSION} | self.__dict__, indent=1, ensure_ascii=False))
        os.replace(temporary, path)

    def require(self, identity: Mapping[str, Any], folder: Path) -> None:
        """Raises UserError unless the lines were sampled from just this."""
        for name in {**self.identity, **identity}:
            there, here = self.identity.get(name), identity.get(name)
            if there != here:
                raise OldError(
                    (
                        f"{folder} holds an evaluation with other {name.replace('_', ' ')} ({_short(there)} there, "
                        f"{_short(here)} here)"
                    ),
                    "the same",
                    "type --again to keep it aside and sample anew, or another --name",
                )


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
