"""``fm-lightning falsify``: schedules against every family of trivial manipulations, with the schedules' own doses.

It is ``test`` with more rows: they are added to the run's evaluation, and only what is missing there is sampled.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fm_lightning.cli import configurations
from fm_lightning.cli.arguments import complain, noting, resolve, scan
from fm_lightning.errors import UserError


def check(args: Sequence[str]) -> None:
    """Refuses arguments that can be seen to be wrong, before Lightning is imported."""
    with tempfile.TemporaryDirectory() as folder:
        arguments(args, Path(folder))


def arguments(args: Sequence[str], folder: Path) -> list[str]:
    """The arguments of ``test`` that judge the schedules of ``--schedule`` files, or the configuration's own.

    Args:
        args: the arguments of ``falsify``, without the verb.
        folder: directory for the configuration of the schedules.

    Raises:
        UserError: no configuration, a file without schedules, or what ``resolve`` refuses.
    """
    errors: list[UserError] = []
    schedules: dict[str, Any] = {}
    rest: list[str] = []
    for word in scan(args):
        if word.option != "--schedule":
            rest += word.text
            continue
        with noting(errors):
            schedules |= _schedules(word.value or "")
    with noting(errors):
        rest = resolve("falsify", rest)
    complain(errors)
    if schedules:
        merged = {**_configured(rest), **schedules}
        file = folder / "schedules.yaml"
        file.write_text(
            yaml.safe_dump({"model": {"test_schedules": merged, "judge": list(schedules)}}, sort_keys=False)
        )
        last = max((i for i, word in enumerate(rest) if word == "-c"), default=-2)
        rest[last + 2 : last + 2] = ["-c", str(file)]
    return ["test", *rest, "--trainer.callbacks.ScheduleTable.families", "all"]


def main(args: Sequence[str]) -> None:
    """Judges, and writes the report."""
    from fm_lightning.cli.command import main as command  # imports Lightning, which takes seconds

    with tempfile.TemporaryDirectory() as folder:
        command(arguments(args, Path(folder)))


def _schedules(name: str) -> dict[str, Any]:
    """Name -> schedule: the file's content, or what it has under ``model: test_schedules:``."""
    if not name:
        raise UserError("--schedule needs a file.", "Use --schedule schedules/kts_tau")
    file = configurations.find(name, "--schedule")
    found: Any = configurations.read(file)
    model = found.get("model")
    found = model.get("test_schedules", found) if isinstance(model, dict) else found
    found = {name: schedule for name, schedule in found.items() if name != "base"} if isinstance(found, dict) else None
    if not found or not all(isinstance(schedule, dict) for schedule in found.values()):
        raise UserError(f"{file} holds no schedules.", "Compare it with configs/schedules/kts_tau.yaml")
    return found


def _configured(args: Sequence[str]) -> dict[str, Any]:
    """The schedules of the configurations among the arguments; the last file that has some counts."""
    found: dict[str, Any] = {}
    for word in scan(args):
        if word.option == "--config":
            content = configurations.read(Path(word.value or ""))
            found = (content.get("model") or {}).get("test_schedules") or found
    return found
