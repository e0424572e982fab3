"""``fm-lightning falsify``: a schedule against every family of trivial manipulations, with the schedule's own doses.

It is ``test`` with more rows: they go into the run's evaluation, and only what is missing there is sampled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fm_lightning.errors import OldError

EXAMPLE = "fm-lightning falsify -c configs/digits.yaml --schedule FILE"


def arguments(args: Sequence[str], folder: Path) -> list[str]:
    """The arguments of ``test`` that judge the schedules of ``--schedule`` files, or the configuration's own.

    Args:
        args: those of ``falsify``, without the verb.
        folder: where the configuration of the schedules goes.

    Raises:
        UserError: no configuration, or a file that holds no schedules.
    """
    configs: list[Path] = []
    schedules: dict[str, Any] = {}
    rest: list[str] = []
    left = iter(args)
    for argument in left:
        name, given, value = argument.partition("=")
        if name in ("-c", "--config", "--schedule"):
            value = value if given else next(left, "")
            if name == "--schedule":
                schedules |= _schedules(Path(value))
            else:
                configs.append(Path(value) / "config.yaml" if Path(value).is_dir() else Path(value))
        else:
            rest.append(argument)
    if not configs:
        raise OldError("falsify given without a configuration", "one or a run directory", f"type {EXAMPLE}")
    chosen = [part for config in configs for part in ("-c", str(config))]
    if schedules:
        merged = {**_already(configs), **schedules}
        file = folder / "schedules.yaml"
        file.write_text(
            yaml.safe_dump({"model": {"test_schedules": merged, "judge": list(schedules)}}, sort_keys=False)
        )
        chosen += ["-c", str(file)]
    return ["test", *chosen, "--trainer.callbacks.ScheduleTable.families", "all", *rest]


def main(args: Sequence[str]) -> None:
    """Judges, and writes the report."""
    from fm_lightning.cli.command import main as command

    with tempfile.TemporaryDirectory() as folder:
        command(arguments(args, Path(folder)))


def _schedules(file: Path) -> dict[str, Any]:
    """Name -> schedule: the file's content, or what it has under ``model: test_schedules:``."""
    found = _read(file)
    found = (found.get("model") or {}).get("test_schedules", found) if isinstance(found, dict) else found
    found = {name: schedule for name, schedule in found.items() if name != "base"} if isinstance(found, dict) else None
    if not found or not all(isinstance(schedule, dict) for schedule in found.values()):
        raise OldError(
            f"--schedule {file} given, which holds no schedules",
            "'name: {gain: ..., steps: 100}'",
            "compare with configs/schedules/kts_tau.yaml",
        )
    return found


def _already(configs: Sequence[Path]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for config in configs:
        content = _read(config)
        found = ((content or {}).get("model") or {}).get("test_schedules") or found
    return found


def _read(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text())
    except OSError as error:
        raise OldError(f"{file} given", "an existing file", f"type {EXAMPLE}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OldError(
            f"{file} given, which cannot be read", "YAML of the form 'key: value'", f"type {EXAMPLE}"
        ) from error
