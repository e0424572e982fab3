"""The runs of a study: their commands, which are finished, and what they left."""

from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from fm_lightning.cli import configurations
from fm_lightning.cli.run_directory import RunDirectory
from fm_lightning.cli.run_identity import comparison, first_difference, identity, length, training
from fm_lightning.errors import UserError
from fm_lightning.study.axes import SEED, Point, Values
from fm_lightning.study.curves import Curve
from fm_lightning.training.tracking import read_series

# The seed reaches these by a link; they are no options of their own.
_LINKED = ("model.base_seed", "data.init_args.base_seed")
_MEASURES = ("MemorizationMonitor", "FIDMonitor", "KPEDistribution")


@dataclass(frozen=True)
class Plan:
    """The study's runs: where they are, and the options that each one's command has.

    Attributes:
        folder: ``ROOT/STUDY``.
        options: the configuration and the options that all runs share, as typed.
        points: the runs.
    """

    folder: Path
    options: Sequence[str]
    points: Sequence[Point]

    def command(self, point: Point) -> list[str]:
        """The words after ``fm-lightning`` that run a point, or resume it."""
        own = [word for axis, value in point.values.items() for word in (f"--{axis}", _typed(value))]
        return ["fit", *self.options, "--root", str(self.folder), "--name", point.name, *own]


def _typed(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _record(run: Path) -> dict[str, Any]:
    place = run.resolve()
    return RunDirectory(str(place.parent), place.name).record


def is_finished(run: Path) -> bool:
    """Whether the run was trained to its end; one whose record is damaged is run again, and says what is wrong."""
    try:
        return "trained" in _record(run)
    except UserError:
        return False


def run_missing(plan: Plan) -> list[str]:
    """Runs what is missing, one after the other, each in a process of its own.

    Returns:
        the names of the runs that failed.

    Raises:
        KeyboardInterrupt: the study was interrupted; the run in progress has saved a checkpoint.
    """
    failed = []
    left = [point for point in plan.points if not is_finished(plan.folder / point.name)]
    if there := len(plan.points) - len(left):
        print(f"{there} of {len(plan.points)} runs are finished already", flush=True)
    for number, point in enumerate(left, 1):
        print(f"\nRun {number} of {len(left)}: {point.name}", flush=True)
        status = _wait_for([sys.executable, "-m", "fm_lightning", *plan.command(point)])
        if status in (128 + signal.SIGINT, 128 + signal.SIGTERM, -signal.SIGINT, -signal.SIGTERM):
            raise KeyboardInterrupt
        if status:
            print(f"{point.name} failed (status {status})", flush=True)
            failed.append(point.name)
    return failed


def _wait_for(command: Sequence[str]) -> int:
    """Runs a command; signals reach it, and it ends first."""
    process = subprocess.Popen(command)

    def stop(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGTERM)

    # A terminal sends Ctrl-C to both processes. The run saves a checkpoint, and its status says so.
    before = {n: signal.signal(n, h) for n, h in ((signal.SIGINT, lambda *_: None), (signal.SIGTERM, stop))}
    try:
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_options(plan: Plan) -> None:
    """Has the parser read commands in which every value of every axis occurs: some seconds, instead of a night.

    Raises:
        UserError: what the parser refuses, for example an axis that names no option.
    """
    seen: set[str] = set()
    commands = []
    for point in plan.points:
        values = {repr(pair) for pair in point.values.items()}
        if values - seen and not is_finished(plan.folder / point.name):
            commands.append(plan.command(point))
            seen |= values
    found = subprocess.run([sys.executable, "-c", _PARSE], input=json.dumps(commands), capture_output=True, text=True)
    if found.returncode:
        lines = [line for line in found.stderr.splitlines() if line.startswith("fm-lightning: ")]
        text = lines[-1].removeprefix("fm-lightning: ") if lines else (found.stderr.strip().splitlines() or ["?"])[-1]
        problem, dot, fix = text.partition(". ")
        raise UserError(f"{problem.rstrip('.')}.", fix if dot else "Try the commands of study --print")


# In one process, because importing Lightning takes longer than all the rest.
_PARSE = """
import json, sys
from fm_lightning.__main__ import main
for words in json.load(sys.stdin):
    sys.argv[1:] = [*words, "--print_config"]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


# What runs left


def read_curves(runs: Iterable[tuple[str, Path]], axes: Sequence[str]) -> tuple[list[Curve], dict[str, str]]:
    """The curves of finished runs, and why others have none.

    Args:
        runs: (name, directory) of each.
        axes: what may differ between them.

    Raises:
        UserError: runs that differ in something that is no axis, or two at the same place.
    """
    curves: list[Curve] = []
    missing: dict[str, str] = {}
    first: tuple[str, dict[str, Any]] | None = None
    for name, run in runs:
        try:
            record = _record(run)
        except UserError as error:
            missing[name] = f"cannot be read: {error.problem}"
            continue
        if "trained" not in record:
            missing[name] = "was not trained to its end" if record else "was not started"
            continue
        config = configurations.read(run / configurations.SAVED)
        same = _without(_decides(config), axes)
        if first is None:
            first = (name, same)
        elif other := first_difference(first[1], same):
            key, there, here = other
            raise UserError(
                f"{first[0]} and {name} differ in {key} ({there} and {here}), which is no axis.",
                f"Leave one of them out, or add the axis with --axes.{key}",
            )
        values = {axis: _value(config, axis) for axis in axes}
        curve = Curve.of(name, values, read_series(run / "metrics.csv"), int(record.get("step") or 0))
        if curve is None:
            missing[name] = "has no validations (metrics.csv)"
            continue
        for earlier in curves:
            if earlier.values == values:
                raise UserError(
                    f"{earlier.name} and {name} have the same place in the study.", "Leave one of them out."
                )
        curves.append(curve)
    return curves, missing


def _decides(config: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that curves depend on: training, its length, and how samples are measured."""
    data = config["data"].get("init_args") or {}
    callbacks = [
        c for c in comparison(config)["callbacks"] or [] if str(c["class_path"]).rpartition(".")[2] in _MEASURES
    ]
    return {
        **identity(config),
        **training(config),
        "length": length(config),
        "measured": {
            "val_seeds": data.get("val_seeds"),
            "val_schedules": config["model"].get("val_schedules"),
            "callbacks": {str(c["class_path"]).rpartition(".")[2]: c.get("init_args") for c in callbacks},
        },
        SEED: config.get(SEED),
    }


def _without(config: Mapping[str, Any], axes: Sequence[str]) -> dict[str, Any]:
    """A copy without the axes: what is shared with the run's configuration stays there, for its place in the study."""
    own = copy.deepcopy(dict(config))
    for axis in (*axes, *(_LINKED if SEED in axes else ())):
        *path, last = axis.split(".")
        at: Any = own
        for key in path:
            at = at.get(key) if isinstance(at, dict) else None
        if isinstance(at, dict):
            at.pop(last, None)
    return own


def _value(config: Mapping[str, Any], axis: str) -> Any:
    at: Any = config
    for key in axis.split("."):
        at = at.get(key) if isinstance(at, Mapping) else None
    return at


def differing(runs: Sequence[Path]) -> Values:
    """axis -> None for each usual axis in which runs of other origin differ."""
    usual = ("data.init_args.n", "model.net.init_args.width", SEED)
    configs = [configurations.read(run / configurations.SAVED) for run in runs]
    return {axis: None for axis in usual if len({repr(_value(config, axis)) for config in configs}) > 1}
