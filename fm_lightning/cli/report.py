"""``fm-lightning report RUN_DIR``: recomputes thresholds, verdicts and figures of a finished comparison; samples nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from lightning import Callback

from fm_lightning.callbacks import FIDMonitor, KPEDistribution, MemorizationMonitor
from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.cli import configurations
from fm_lightning.cli.arguments import run_directories, scan
from fm_lightning.cli.hush import hush
from fm_lightning.cli.listed_options import changed, listed, split_off
from fm_lightning.cli.parser_errors import shorten, user_error
from fm_lightning.cli.run_directory import lost_samples
from fm_lightning.comparison.build import build
from fm_lightning.comparison.collect import Collector
from fm_lightning.errors import UserError
from fm_lightning.files import DamagedFile
from fm_lightning.metrics.features.named import EXTRACTORS
from fm_lightning.metrics.measure import Measure
from fm_lightning.report.loss_over_time import read_loss_over_time
from fm_lightning.report.page import save
from fm_lightning.table.claim import Claim
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.pictures import read_pictures


def main(args: Sequence[str]) -> None:
    """Writes results, table and page of one run.

    Raises:
        UserError: not exactly one run directory, no evaluation in it, or options that no callback of the run has.
    """
    hush()
    rest, changes = split_off(args)
    words = list(scan(rest))
    paths = run_directories("report", [word for word in words if word.option in ("", "--config")])
    if len(paths) != 1 or len(words) != 1:
        wrong = " ".join(rest) or "nothing"
        raise UserError(f"report takes one run directory, not {wrong}.", "Use fm-lightning report runs/NAME")
    run = paths[0]
    Evaluation.open(run)  # before the claim, which would make a missing folder
    with Claim(run):
        _report(run, changes)


def _report(run: Path, changes: Sequence[Any]) -> None:
    evaluation = Evaluation.open(run)
    for part, reason in evaluation.torn:
        print(f"{part.path} is damaged ({reason}) and left out; fm-lightning test -c {run} samples it again")
    if not evaluation.torn and (lost := lost_samples(run, evaluation)):
        print(f"{lost:,} samples are missing since the last report; fm-lightning test -c {run} samples them again")
    for measure, count in evaluation.unmeasured.items():
        print(f"{count:,} samples lack {measure} and do not count in it; fm-lightning test -c {run} measures them")
    collector = Collector(evaluation, recalled(evaluation, run, changes))
    rows = collector.rows(evaluation.shown)
    if not any(row.samples for row in rows):
        raise UserError(f"The evaluation in {run} is empty.", f"Run fm-lightning test -c {run}")
    save(run, build(evaluation, rows), collector.arrays() | read_pictures(evaluation) | read_loss_over_time(run))


def recalled(evaluation: Evaluation, run: Path, changes: Sequence[Any] = ()) -> list[Measure]:
    """The measures of the run's monitors, as its configuration has them."""
    sys.path.insert(0, str(Path.cwd()))  # a class of the user's own lies where the command is typed
    found: list[Measure] = []
    config = run / "config.yaml"
    if not config.is_file() and (run / "run.json").is_file():  # a run of Python has neither
        problem = f"{config} is missing, so thresholds and measures are unknown."
        raise UserError(problem, f"Restore it; {run}/results.json repeats its content under config")
    callbacks = _configured(config) if config.is_file() else _guessed(evaluation)
    for monitor in _built(changed(callbacks, changes)):
        try:
            measures = monitor.recalled(evaluation.folder / "measures", evaluation.manifest.measures)
        except (DamagedFile, FileNotFoundError) as error:
            problem = error.problem if isinstance(error, DamagedFile) else f"{error.filename} is missing."
            raise UserError(problem, f"Run fm-lightning test -c {run} --again evaluation") from error
        if not measures:
            print(f"{type(monitor).__name__} has measured nothing here and is left out.")
        found += measures
    for measure in reversed(found):
        evaluation.manifest.about |= measure.facts()
    return found


def _configured(config: Path) -> list[dict[str, Any]]:
    trainer = configurations.read(config).get("trainer")
    return listed((trainer if isinstance(trainer, dict) else {}).get("callbacks"))


def _built(callbacks: Sequence[dict[str, Any]]) -> list[Monitor]:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callbacks", type=list[Callback])
    try:
        # Other callbacks, such as ModelCheckpoint, may refuse to be built without a run.
        some = [c for c in callbacks if _is_monitor(str(c["class_path"]))]
        built = parser.instantiate_classes(parser.parse_object({"callbacks": some})).callbacks
    except (ArgumentError, ValueError) as error:
        raise user_error(error) or shorten(str(error), "report") from error
    return built


def _is_monitor(class_path: str) -> bool:
    module, _, name = class_path.rpartition(".")
    try:
        return issubclass(getattr(importlib.import_module(module), name), Monitor)
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


def _guessed(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Monitors of a comparison made in Python, which has no configuration but keeps its settings in the manifest."""
    about = evaluation.manifest.about
    settings: dict[type[Monitor], dict[str, Any]] = {
        KPEDistribution: {key: about[key] for key in ("tau_split",) if key in about},
        MemorizationMonitor: {key: about[key] for key in ("threshold",) if key in about},
    }
    if distances := [name for name in evaluation.manifest.measures if name in EXTRACTORS]:
        settings[FIDMonitor] = {"extractors": distances}
    return [
        {"class_path": f"fm_lightning.callbacks.{kind.__name__}", "init_args": arguments}
        for kind, arguments in settings.items()
    ]
