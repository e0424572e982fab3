"""One run, one directory: who may write there, and from where a run resumes.

    runs/NAME/  run.json  config.yaml  checkpoints/  metrics.csv  evaluation/  results.json  results.csv  report.html

Starting an unfinished run again resumes it. A finished training is refused; a finished comparison takes more rows, seeds and
measures, and is refused where nothing is new. ``--again`` first moves aside what is there, ``--again evaluation`` only the
comparison.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from fm_lightning.callbacks.sample_writer import SAMPLES
from fm_lightning.cli.run_identity import comparison, first_difference, identity, length, training
from fm_lightning.comparison.results import read_results
from fm_lightning.errors import UserError
from fm_lightning.files import read_json, write_json
from fm_lightning.table.claim import RUNNING, Claim
from fm_lightning.table.evaluation import FOLDER, Evaluation

RECORD = "run.json"
RESULTS = ("results.json", "results.csv", "report.html", "evaluation")

Again = bool | Literal["evaluation"]


class RunDirectory:
    """The directory ``root/name``.

    Args:
        root: directory of all runs.
        name: the run's name.
    """

    def __init__(self, root: str, name: str | None) -> None:
        # Commands that are printed name the directory, and work as they are typed.
        if not name or not re.fullmatch(r"[\w+=@%,-][\w.+=@%,-]*", name):
            raise UserError(f"`name={name}` cannot name the run's directory.", "Use a plain name: --name digits-1")
        self.path = Path(root) / name
        self.claim = Claim(self.path)

    @property
    def last(self) -> Path:
        """The checkpoint from which the run resumes."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def record(self) -> dict[str, Any]:
        """The content of run.json: the run's identity, steps done, W&B id; empty for a new run."""
        try:
            found = read_json(self.path / RECORD, "Use another --name, or add --again to move the run aside.")
        except FileNotFoundError:
            return {}
        if "identity" not in found:
            raise UserError(f"Cannot read {self.path}/run.json, the record of the run.", "Use another --name")
        return found

    def write(self, **entries: Any) -> None:
        """Adds entries to run.json."""
        if (record := self.record) and record | entries == record:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / RECORD, record | entries)

    def admit(self, verb: str, config: Mapping[str, Any], again: Again = False, checkpoint: str | None = None) -> None:
        """Lets a command begin or resume in this directory, or refuses it.

        Args:
            verb: the verb of the command.
            config: the resolved configuration.
            again: whether finished work will be moved aside.
            checkpoint: a checkpoint that was named explicitly.

        Raises:
            UserError: the directory holds something else, or the command's work is done already.
        """
        record = self.record
        if not record:
            if self.path.exists() and any(not _left_by_a_kill(file) for file in self.path.iterdir()):
                raise UserError(f"{self.path} holds files but no run.", "Use another --name")
            return
        trains = verb in ("fit", "run")
        # A start that failed before it made anything does not hold the name.
        if any((self.path / name).exists() for name in ("metrics.csv", "checkpoints", *RESULTS)):
            _same(self.path, record["identity"], identity(config))
            if trains:
                _same(self.path, record.get("training", {}), training(config) if "training" in record else {})
        finished = record.get("trained") == length(config)
        if trains and not checkpoint and not self.last.exists():
            self._refuse_without_checkpoint(record)
        if verb == "run" and not again and not finished:
            self._refuse_other_weights(record, config["trainer"].get("max_steps"))
        if verb == "fit" and finished:
            raise UserError(
                f"{self.path} holds a finished training ({record['step']:,} steps).",
                f"Compare its schedules with fm-lightning test -c {self.path}, raise --trainer.max_steps, "
                "start over with --again, or use another --name",
            )
        compared = (self.path / "results.json").exists() and record.get("compared") == comparison(config)
        if compared and not again and (verb == "test" or (verb == "run" and finished)) and self._is_intact():
            raise UserError(
                f"{self.path} holds a finished comparison: {self.path}/report.html.",
                f"Redraw it with fm-lightning report {self.path}, repeat it with --again evaluation, "
                "or use another --name",
            )

    def _is_intact(self) -> bool:
        """Whether no part of the comparison is damaged, missing or lacks a measure: the same command run again completes it."""
        if not (self.path / FOLDER / "manifest.json").exists():
            return False
        table = Evaluation.open(self.path)
        return not (table.torn or table.unmeasured or lost_samples(self.path, table))

    def _refuse_without_checkpoint(self, record: Mapping[str, Any]) -> None:
        """Training would start at step 0 over what is there."""
        kept = sorted((self.path / "checkpoints").glob("*.ckpt"), key=lambda file: file.stat().st_mtime)
        if kept or ("trained" in record and (self.path / "evaluation").exists()):
            fix = f"Resume with --ckpt_path {kept[-1]}, or" if kept else "Restore it, or"
            raise UserError(f"{self.last} is missing.", f"{fix} start over with --again")

    def _refuse_other_weights(self, record: Mapping[str, Any], max_steps: int | None) -> None:
        """Training on would leave a comparison of other weights."""
        step = record.get("step")
        ends = (max_steps or -1) > 0 and step is not None and step >= (max_steps or -1)
        if step is not None and not ends and (self.path / "evaluation").exists():
            raise UserError(
                f"{self.path} holds a comparison of step {step:,}, and more training changes the weights.",
                "Move the comparison aside and train on with --again evaluation",
            )

    def set_aside(self, verb: str, again: Again = True) -> Path | None:
        """Moves away what the command would write again. Returns the new place.

        Args:
            verb: "test" moves results, "predict" samples, "fit" and "run" the whole directory.
            again: "evaluation" moves results only.
        """
        written = RESULTS if again == "evaluation" else {"test": RESULTS, "predict": (SAMPLES,)}.get(verb)
        if written is None:
            if not self.path.exists():
                return None
            to = _free(self.path.with_name(f"{self.path.name}.old"))
            self.path.rename(to)
            self.claim.moved(to)
            return to
        found = [self.path / name for name in written if (self.path / name).exists()]
        if not found:
            return None
        to = _free(self.path / "earlier")
        to.mkdir(parents=True)
        for path in found:
            path.rename(to / path.name)
        return to


def lost_samples(run: Path, table: Evaluation) -> int:
    """Samples in the latest results of a run that its table no longer holds: their files were deleted."""
    try:
        rows = read_results(run).rows
    except UserError:
        return 0
    return sum(max(0, row.samples - table.count(row.name)) for row in rows if row.name in table.rows)


def _same(path: Path, there: Mapping[str, Any], here: Mapping[str, Any]) -> None:
    if difference := first_difference(there, here):
        key, was, now = difference
        raise UserError(
            f"{path} holds another run: {key} is {was} there and {now} here.",
            "Use another --name, or add --again to move that run aside.",
        )


def _left_by_a_kill(file: Path) -> bool:
    """Whether it is half a record, which was to be the first file of a run."""
    hidden = file.name.startswith((f".{RECORD}.", f".{RUNNING}.")) and file.suffix == ".tmp"
    return hidden or file.name == RUNNING


def _free(path: Path) -> Path:
    n = 1
    while (to := path.with_name(f"{path.name}-{n}")).exists():
        n += 1
    return to
