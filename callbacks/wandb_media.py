"""What W&B gets besides the curves: tables, histograms and figures. Names begin with the stage, ``val`` or ``test``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.utils import make_grid

from fm_lightning.comparison.results import FamilyResult, Results, RowResult
from fm_lightning.report.curves import energy_profile
from fm_lightning.report.frontier import frontier
from fm_lightning.report.words import headline
from fm_lightning.training.tracking import figure_image, log_media, wandb_loggers

Arrays = Mapping[str, np.ndarray]
ROW = ("name", "kind", "of", "label", "nfe")
VERDICT = ("schedule", "against", "outcome", "claim", "n", "n_needed", "paragraph")
FAMILY = ("schedule", "family", "outcome", "residual", "margin", "n_needed", "sentence")
IN_SUMMARY = ("base", "schedule", "field")


def log_table(trainer: Any, rows: Sequence[RowResult], stage: str) -> None:
    """``{stage}/schedules``: a line per row, with its metrics."""
    if any(wandb_loggers(trainer)):
        names = sorted({name for row in rows for name in row.metrics})
        lines = [[getattr(row, key) for key in ROW] + [row.metrics.get(name) for name in names] for row in rows]
        log_media(trainer, {f"{stage}/schedules": _table(["row", *ROW[1:], *names], lines)})


def log_energies(trainer: Any, rows: Sequence[RowResult], arrays: Arrays, tau_split: float | None, stage: str) -> None:
    """``{stage}/energy_profile``, mean power over time, and in validation ``val/{row}/kpe``, a histogram over samples.

    Args:
        trainer: its W&B loggers get them; without one nothing is drawn.
        rows: the rows to draw.
        arrays: ``kpe/ROW`` ``[N]``, ``power/ROW`` and ``gain/ROW`` ``[S]``, ``times/ROW`` ``[S + 1]``.
        tau_split: time that separates early from late energy.
        stage: "val" or "test".
    """
    if not any(wandb_loggers(trainer)):
        return
    import wandb  # here, because it takes a second that runs without W&B need not wait

    media: dict[str, Any] = {}
    if stage == "val":
        for row in rows:
            if (values := arrays.get(f"kpe/{row.name}")) is not None:
                media[f"val/{row.name}/kpe"] = wandb.Histogram(np_histogram=np.histogram(values, bins=64))
    figure = energy_profile(Results(rows=tuple(rows), tau_split=tau_split), arrays)
    if figure is not None:
        media[f"{stage}/energy_profile"] = figure_image(figure)
    log_media(trainer, media)


def log_comparison(trainer: Any, results: Results, arrays: Arrays) -> None:
    """A finished comparison: each number once in the run's summary, and its tables and figures.

    ``test/{row}/{metric}``, ``test/{schedule}/outcome`` and ``headline`` stand in the summary, for plain sampling, schedules
    and fields. ``test/schedules`` is a table of all rows, ``test/samples`` their first samples. Where schedules were judged,
    ``test/frontier`` is the figure, ``test/verdicts`` has a line per schedule and ``test/families`` one per schedule and
    family.
    """
    if not any(wandb_loggers(trainer)):
        return
    rows = [row for row in results.rows if row.kind != "family"]
    log_table(trainer, results.rows, "test")
    log_energies(trainer, rows, arrays, results.tau_split, "test")
    media: dict[str, Any] = {"test/samples": pictures} if (pictures := _samples(rows, arrays)) else {}
    if results.verdicts:
        lines = [
            (verdict.schedule, *(value for key in FAMILY[1:] for value in _cells(each, key)))
            for verdict in results.verdicts
            for each in verdict.families
        ]
        verdicts = [[getattr(verdict, key) for key in VERDICT] for verdict in results.verdicts]
        media |= {
            "test/verdicts": _table(VERDICT, verdicts),
            "test/families": _table(("schedule", "family", "outcome", "residual", "low", "high", *FAMILY[4:]), lines),
        }
        figure = frontier(results, arrays)
        if figure is not None:
            media["test/frontier"] = figure_image(figure)
    log_media(trainer, media)
    numbers = {
        f"test/{row.name}/{name}": value
        for row in results.rows
        if row.kind in IN_SUMMARY
        for name, value in row.metrics.items()
        if value is not None
    }
    outcomes = {f"test/{verdict.schedule}/outcome": verdict.outcome for verdict in results.verdicts}
    for logger in wandb_loggers(trainer):
        logger.experiment.summary.update(numbers | outcomes | {"headline": headline(results)})


def _cells(family: FamilyResult, key: str) -> Sequence[Any]:
    """A field of a family's verdict; the residual takes three cells, with its interval."""
    found = getattr(family, key)
    return (found or (None,) * 3) if key == "residual" else (found,)


def _samples(rows: Sequence[RowResult], arrays: Arrays) -> list[Any]:
    """A picture of each row's first samples, where they are images ``[M, H, W, C]`` uint8."""
    import wandb  # here, because it takes a second that runs without W&B need not wait

    found = []
    for row in rows:
        images = arrays.get(f"samples/{row.name}")
        if images is not None and images.ndim == 4:
            grid = make_grid(torch.from_numpy(images).permute(0, 3, 1, 2), nrow=8, pad_value=255)
            found.append(wandb.Image(grid.permute(1, 2, 0).numpy(), caption=row.name))
    return found


def _table(columns: Iterable[str], lines: Sequence[Sequence[Any]]) -> Any:
    import wandb  # here, because it takes a second that runs without W&B need not wait

    return wandb.Table(columns=list(columns), data=[list(line) for line in lines])
