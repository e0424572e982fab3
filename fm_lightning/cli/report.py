"""``fm-lightning report RUN_DIR``: thresholds, changes, verdicts and figures anew from a run's evaluation; nothing is sampled."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser
from lightning import Callback

from fm_lightning.callbacks import FIDMonitor, KPEDistribution, MemorizationMonitor
from fm_lightning.callbacks.monitor import Monitor
from fm_lightning.cli.callback_options import changed_callbacks, split_off
from fm_lightning.cli.hush import hush
from fm_lightning.cli.parser_errors import shorten, user_error
from fm_lightning.comparison.build import build
from fm_lightning.comparison.collect import Collector
from fm_lightning.errors import OldError
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.features.named import EXTRACTORS
from fm_lightning.metrics.measure import Measure
from fm_lightning.report.build import save
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.pictures import read_pictures


def main(args: Sequence[str]) -> None:
    """Writes results, table and page of one run.

    Raises:
        UserError: not one run directory, no evaluation in it, or options that no callback of the run has.
    """
    hush()
    rest, changes = split_off(args)
    if len(rest) != 1 or rest[0].startswith("-"):
        raise OldError(f"report {' '.join(args)!r} given", "one run directory", "type fm-lightning report RUN_DIR")
    run = Path(rest[0])
    if run.is_file():
        raise OldError(f"{run} given", "a run directory", f"type fm-lightning report {run.parent}")
    if not run.is_dir():
        raise OldError(f"{run} given", "an existing run directory", "type fm-lightning report runs/NAME")
    evaluation = Evaluation.open(run)
    for part, reason in evaluation.torn:
        print(f"{part.path} is torn ({reason}) and left out; fm-lightning test samples it again")
    collector = Collector(evaluation, recalled(evaluation, run, changes))
    rows = collector.rows(evaluation.shown)
    if not any(row["samples"] for row in rows):
        raise OldError(
            f"{run} holds an evaluation without lines", "a comparison", f"type fm-lightning test -c {run}/config.yaml"
        )
    save(run, build(evaluation, rows), collector.arrays() | read_pictures(evaluation))


def recalled(evaluation: Evaluation, run: Path, changes: Sequence[Any] = ()) -> list[Measure]:
    """The measures of the run's monitors, as its configuration has them."""
    sys.path.insert(0, str(Path.cwd()))  # a class of the user's own lies where the command is typed
    found: list[Measure] = []
    config = run / "config.yaml"
    for monitor in _configured(config, changes) if config.is_file() else _guessed(evaluation):
        measures = monitor.recalled(evaluation.folder / "measures", evaluation.manifest.measures)
        if not measures:
            print(f"{type(monitor).__name__} has measured nothing here and is left out.")
        found += measures
    for measure in reversed(found):
        evaluation.manifest.about |= measure.facts()
    return found


def _configured(config: Path, changes: Sequence[Any]) -> list[Monitor]:
    written = (yaml.safe_load(config.read_text()).get("trainer") or {}).get("callbacks") or []
    listed = changed_callbacks(written if isinstance(written, list) else [written], changes)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--callbacks", type=list[Callback])
    try:
        # A ModelCheckpoint or a progress bar has no part in this, and may refuse to be built without a run.
        some = [c for c in listed if _is_monitor(str(c["class_path"]))]
        built = parser.instantiate_classes(parser.parse_object({"callbacks": some})).callbacks
    except (ArgumentError, ValueError) as error:
        raise user_error(error) or shorten(str(error), "report", (), (str(config),)) from error
    return built


def _is_monitor(class_path: str) -> bool:
    module, _, name = class_path.rpartition(".")
    try:
        return issubclass(getattr(importlib.import_module(module), name), Monitor)
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


def _guessed(evaluation: Evaluation) -> list[Monitor]:
    """Of a run that was started from Python and has no configuration."""
    monitors: list[Monitor] = [KPEDistribution(), MemorizationMonitor()]
    distances: list[FeatureExtractor | str] = [name for name in evaluation.manifest.measures if name in EXTRACTORS]
    return [*monitors, FIDMonitor(distances)] if distances else monitors
