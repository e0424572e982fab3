"""One run, one directory: who may write there, and where a run goes on.

    runs/NAME/  run.json  config.yaml  checkpoints/  metrics.csv  evaluation/  results.json  results.csv  report.html

Starting again on an unfinished run resumes it. A finished training refuses; a finished comparison takes more rows, seeds and
measures, and refuses where nothing is new. ``--again`` moves what is there aside first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fm_lightning.callbacks.sample_writer import SAMPLES
from fm_lightning.errors import OldError
from fm_lightning.files import read_json, write_json
from fm_lightning.table.claim import RUNNING, Claim
from fm_lightning.training.trainer import unless_all

RECORD = "run.json"
RESULTS = ("results.json", "results.csv", "report.html", "evaluation")
# What makes two runs the same: everything that training depends on. Rows to compare, devices and loggers may change.
_IDENTITY_MODEL = (
    "net",
    "path",
    "coupling",
    "times",
    "optimizer",
    "scheduler",
    "label_dropout",
    "weights",
    "base_seed",
)
# What a comparison is asked for: with the same again there is nothing to do.
_COMPARED_MODEL = ("test_schedules", "val_schedules", "judge", "fields", "floors", "guidance")
_NOT_IDENTITY_DATA = ("eval_batch_size", "val_seeds", "test_seeds", "predict_seeds", "cache_dir")


class RunDirectory:
    """The directory ``root/name``.

    Args:
        root: directory of all runs.
        name: the run's name.
    """

    def __init__(self, root: str, name: str | None) -> None:
        if not name or set(name) & set("/\\") or name.startswith("."):
            raise OldError(f"name {name!r} given", "a plain directory name for the run", "type e.g. --name digits-1")
        self.path = Path(root) / name
        self.claim = Claim(self.path)

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run goes on from."""
        return self.path / "checkpoints" / "last.ckpt"

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says: the run's identity, steps done, W&B id; empty for a new run."""
        try:
            return read_json(self.path / RECORD, "Use another --name, or add --again to move the run aside.")
        except FileNotFoundError:
            return {}

    def write(self, **entries: Any) -> None:
        """Adds entries to run.json."""
        if (record := self.record) and record | entries == record:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / RECORD, record | entries)

    def admit(self, command: str, config: Mapping[str, Any], again: bool = False) -> None:
        """Lets a command begin or go on in this directory, or says why not.

        Args:
            command: the verb.
            config: of the run that wants in, resolved.
            again: what is done already will be set aside.

        Raises:
            UserError: the directory holds something else, or the command's work is done already.
        """
        record = self.record
        if not record:
            if self.path.exists() and any(not _left_by_a_kill(file) for file in self.path.iterdir()):
                raise OldError(f"{self.path} holds files but no run", "a new or empty directory", "type another --name")
            return
        # A start that failed before it made anything does not hold the name.
        made = any((self.path / name).exists() for name in ("metrics.csv", "checkpoints", *RESULTS))
        if made and (difference := next(_differences(record["identity"], identity(config)), None)):
            key, there, here = difference
            raise OldError(
                f"{self.path} holds another run ({key} is {there} there and {here} here)",
                "the same configuration",
                "type another --name, or --again to move it aside",
            )
        trained = record.get("trained") == length(config)
        compared = (self.path / "results.json").exists() and record.get("compared") == comparison(config)
        if command == "fit" and trained:
            raise OldError(
                f"{self.path} holds a finished training ({record['step']} steps)",
                "a new or unfinished run",
                (
                    f"type `fm-lightning test -c {self.path}/config.yaml` to compare schedules, --again to start over, or "
                    "another --name"
                ),
            )
        if compared and not again and (command == "test" or (command == "run" and trained)):
            raise OldError(
                f"{self.path} holds a finished comparison (report: {self.path}/report.html)",
                "new schedules, seeds or callbacks, or an unfinished one",
                f"type fm-lightning report {self.path} to draw it anew, --again to repeat it, or another --name",
            )

    def set_aside(self, command: str) -> Path | None:
        """Moves what the command would write anew: results ("test"), samples ("predict"), or all. Returns where to."""
        written = {"test": RESULTS, "predict": (SAMPLES,)}.get(command)
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


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What training depends on, out of a resolved configuration."""
    data = dict(config["data"])
    data["init_args"] = {k: v for k, v in (data.get("init_args") or {}).items() if k not in _NOT_IDENTITY_DATA}
    return {"model": {key: config["model"].get(key) for key in _IDENTITY_MODEL}, "data": data}


def length(config: Mapping[str, Any]) -> dict[str, Any]:
    """When the training that a configuration asks for is finished."""
    trainer = config["trainer"]
    ends = {key: trainer.get(key) for key in ("max_steps", "max_epochs", "max_time")}
    return ends | {"limit_train_batches": unless_all(trainer.get("limit_train_batches"))}


def comparison(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the comparison that a configuration asks for depends on, beside the run's identity."""
    data = config["data"].get("init_args") or {}
    return {
        "model": {key: config["model"].get(key) for key in _COMPARED_MODEL},
        "test_seeds": data.get("test_seeds"),
        "limit": unless_all(config["trainer"].get("limit_test_batches")),
        "callbacks": config["trainer"].get("callbacks"),
    }


def _left_by_a_kill(file: Path) -> bool:
    """Whether it is half a record, which was to be the first file of a run."""
    hidden = file.name.startswith((f".{RECORD}.", f".{RUNNING}.")) and file.suffix == ".tmp"
    return hidden or file.name == RUNNING


def _free(path: Path) -> Path:
    n = 1
    while (to := path.with_name(f"{path.name}-{n}")).exists():
        n += 1
    return to


def _differences(there: Any, here: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for name in {**there, **here}:
            yield from _differences(there.get(name), here.get(name), f"{key}.{name}" if key else name)
    elif there != here:
        yield key, there, here
