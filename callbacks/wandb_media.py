"""What W&B gets of rows besides numbers: tables, histograms, figures. Names begin with the stage, ``val`` or ``test``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torchvision.utils import make_grid

from fm_lightning.report.curves import energy_profile
from fm_lightning.report.frontier import frontier
from fm_lightning.report.words import headline
from fm_lightning.training.tracking import figure_image, log_media, wandb_loggers

Arrays = Mapping[str, np.ndarray]
VERDICT = ("schedule", "against", "outcome", "claim", "n", "n_needed", "paragraph")
FAMILY = ("family", "outcome", "residual", "low", "high", "margin", "n_needed", "sentence")


def log_table(trainer: Any, rows: Sequence[Mapping[str, Any]], stage: str) -> None:
    """``{stage}/schedules``: a line for each row, with its metrics."""
    if any(wandb_loggers(trainer)):
        names = sorted({key for row in rows for key in row["metrics"]})
        lines = [
            [row[key] for key in ("name", "kind", "of", "label", "nfe")] + [row["metrics"].get(name) for name in names]
            for row in rows
        ]
        log_media(trainer, {f"{stage}/schedules": _table(["row", "kind", "of", "label", "nfe", *names], lines)})


def log_energies(
    trainer: Any, rows: Sequence[Mapping[str, Any]], arrays: Arrays, tau_split: float | None, stage: str
) -> None:
    """``{stage}/{row}/kpe``, a histogram over samples, and ``{stage}/energy_profile``, mean power over time.

    Args:
        trainer: whose W&B loggers get them; without one nothing is drawn.
        rows: name, kind, of and label of each.
        arrays: ``kpe/ROW`` ``[N]``, ``power/ROW`` and ``gain/ROW`` ``[S]``, ``times/ROW`` ``[S + 1]``.
        tau_split: time that separates early from late energy.
        stage: "val" or "test".
    """
    if not any(wandb_loggers(trainer)):
        return
    import wandb  # here, because it takes a second that runs without W&B need not wait

    media: dict[str, Any] = {
        f"{stage}/{key.removeprefix('kpe/')}/kpe": wandb.Histogram(np_histogram=np.histogram(values, bins=64))
        for key, values in arrays.items()
        if key.startswith("kpe/")
    }
    figure = energy_profile({"rows": rows, "tau_split": tau_split}, arrays)
    if figure is not None:
        media[f"{stage}/energy_profile"] = figure_image(figure)
    log_media(trainer, media)


def log_samples(trainer: Any, samples: Mapping[str, np.ndarray], stage: str) -> None:
    """``{stage}/{row}/samples``: a grid of each row's images ``[M, H, W, C]`` uint8; nothing of other data."""
    if not any(wandb_loggers(trainer)):
        return
    import wandb  # here, because it takes a second that runs without W&B need not wait

    media = {}
    for name, images in samples.items():
        if images.ndim == 4:
            grid = make_grid(torch.from_numpy(images).permute(0, 3, 1, 2), nrow=8, pad_value=255)
            media[f"{stage}/{name}/samples"] = wandb.Image(grid.permute(1, 2, 0).numpy())
    log_media(trainer, media)


def log_comparison(trainer: Any, results: Mapping[str, Any], arrays: Arrays) -> None:
    """All of a finished comparison: its table, energies and samples, and where schedules were judged ``test/frontier`` and
    the tables ``test/verdicts`` (a line for each schedule and family) and ``test/claims`` (one for each schedule).

    The headline stands in the run's summary. Families' rows are in ``test/schedules`` alone.
    """
    if not any(wandb_loggers(trainer)):
        return
    rows = [row for row in results["rows"] if row["kind"] != "family"]
    log_table(trainer, results["rows"], "test")
    log_energies(trainer, rows, arrays, results.get("tau_split"), "test")
    samples = {row["name"]: arrays.get(f"samples/{row['name']}") for row in rows}
    log_samples(trainer, {name: images for name, images in samples.items() if images is not None}, "test")
    verdicts = results["verdicts"]
    media: dict[str, Any] = {}
    if verdicts:
        media["test/claims"] = _table(VERDICT, [[verdict[key] for key in VERDICT] for verdict in verdicts])
        lines = [
            [verdict["schedule"], family["family"], family["outcome"], *(family["residual"] or [None] * 3)]
            + [family[key] for key in ("margin", "n_needed", "sentence")]
            for verdict in verdicts
            for family in verdict["families"]
        ]
        media["test/verdicts"] = _table(("schedule", *FAMILY), lines)
        figure = frontier(results, arrays)
        if figure is not None:
            media["test/frontier"] = figure_image(figure)
        log_media(trainer, media)
    for logger in wandb_loggers(trainer):
        logger.experiment.summary["headline"] = headline(results)


def _table(columns: Iterable[str], lines: Sequence[Sequence[Any]]) -> Any:
    import wandb  # here, because it takes a second that runs without W&B need not wait

    return wandb.Table(columns=list(columns), data=[list(line) for line in lines])
