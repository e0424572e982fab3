"""Where numbers are logged: an appending CSV file, and W&B's media and summary."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:
    import wandb

HEADER = ("step", "name", "value")


class AppendingCSVLogger(Logger):
    """Appends ``step,name,value`` rows to ``metrics.csv`` in the run's directory; earlier rows stay as they are.

    One row per number, because the set of names grows with schedules and stages. A resumed run appends to the same file;
    where it repeats a step, ``read_series`` takes the later row.

    Args:
        save_dir: directory of the file; the command line fills in the run's directory.
    """

    def __init__(self, save_dir: str | None = None) -> None:
        super().__init__()
        self._save_dir = save_dir or "."

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return self._save_dir

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._save_dir) / "metrics.csv"

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | argparse.Namespace, *args: Any, **kwargs: Any) -> None:
        """Does nothing: the run's configuration is in the same folder."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as end:  # a crash may have cut the last line off
            size = end.tell()
            if size:
                end.seek(-1, io.SEEK_END)
                if end.read() != b"\n":
                    end.write(b"\r\n")
        with self.path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not size:
                writer.writerow(HEADER)
            writer.writerows((step, name, value) for name, value in metrics.items() if name != "epoch")


def read_series(path: Path) -> dict[str, list[tuple[int, float]]]:
    """``name -> [(step, value), ...]`` ascending in step from a ``metrics.csv``; empty where there is none."""
    if not path.exists():
        return {}
    series: dict[str, dict[int, float]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["step"] and row["value"]:  # neither is there in a line that a crash cut off
                series.setdefault(row["name"], {})[int(row["step"])] = float(row["value"])
    return {name: sorted(points.items()) for name, points in series.items()}


def wandb_loggers(trainer: Trainer) -> Iterator[WandbLogger]:
    """The trainer's W&B loggers, on the process that logs."""
    if trainer.is_global_zero:
        yield from (logger for logger in trainer.loggers if isinstance(logger, WandbLogger))


def figure_image(figure: Figure) -> wandb.Image:
    """A matplotlib figure as a W&B image."""
    import wandb  # here, because it takes a second that runs without W&B need not wait

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    buffer.seek(0)
    return wandb.Image(Image.open(buffer))


def log_media(trainer: Trainer, media: dict[str, Any]) -> None:
    """Sends wandb objects (Histogram, Image, Table) to every W&B logger, at the step of the numbers logged with them."""
    for logger in wandb_loggers(trainer):
        logger.experiment.log({**media, "trainer/global_step": logged_step(trainer)})


def logged_step(trainer: Trainer) -> int:
    """The step at which Lightning logs numbers now: that of the last training batch, which ``global_step`` has passed."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def log_results(trainer: Trainer, module: LightningModule, numbers: Mapping[str, float]) -> None:
    """Logs a comparison's numbers, each of which is measured once: W&B gets them as a summary (see ``wandb_media``).

    A history would hold hundreds of curves of one point.
    """
    module.log_dict(dict(numbers), logger=False, add_dataloader_idx=False)
    for logger in trainer.loggers:
        if not isinstance(logger, WandbLogger):
            logger.log_metrics(dict(numbers), step=logged_step(trainer))
