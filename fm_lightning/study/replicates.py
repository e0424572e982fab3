"""Replicates: which runs repeat one experiment with another seed, and which are experiments of their own.

Runs are replicates if their configurations and training data are the same, and both their seeds and their weights differ.
What a comparison asks for may differ: a row that only one of them has is compared there alone. Nothing else is ever pooled.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fm_lightning.comparison.results import Results
from fm_lightning.errors import UserError
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.keys import differences
from fm_lightning.table.manifest import Manifest

# What another run of the same experiment may do otherwise: where and how long it works, and which rows and seeds it compares.
_FREE = {
    "": {"name", "seed_everything", "threads", "root"},
    "model": {"base_seed", "test_schedules", "val_schedules", "judge", "fields", "floors"},
    "data.init_args": {"base_seed", "eval_batch_size", "val_seeds", "test_seeds", "predict_seeds", "cache_dir"},
    "trainer": {
        "accelerator",
        "default_root_dir",
        "devices",
        "enable_model_summary",
        "enable_progress_bar",
        "log_every_n_steps",
        "logger",
        "num_nodes",
        "num_sanity_val_steps",
        "profiler",
        "strategy",
    },
}
MEASURED_WITH = ("threshold", "tau_split", "quality")  # of results: numbers measured otherwise are other numbers
NAMED = ("base", "schedule")  # rows that mean what their name says; each run matches its own controls and families


@dataclass(frozen=True)
class Run:
    """A finished comparison.

    Attributes:
        name: its directory's.
        results: what was found in it.
        evaluation: the table that they were made from.
    """

    name: str
    results: Results
    evaluation: Evaluation

    @property
    def manifest(self) -> Manifest:
        return self.evaluation.manifest

    @property
    def identity(self) -> Mapping[str, Any]:
        return self.manifest.identity

    def rows(self, *kinds: str) -> list[str]:
        """The names of the rows of these kinds, in display order."""
        return [name for name, about in self.manifest.rows.items() if about["kind"] in kinds]


@dataclass(frozen=True)
class Experiment:
    """Runs that are replicates of one another; of one run alone, mostly.

    Attributes:
        runs: in the order given.
        apart: why its first run is no replicate of the first run of each experiment before it, a phrase each.
    """

    runs: tuple[Run, ...]
    apart: tuple[str, ...] = ()


def experiments(runs: Sequence[Run]) -> list[Experiment]:
    """The runs by experiment.

    Raises:
        UserError: the same run twice, or a row's name that means different things in two of them.
    """
    for one, other in itertools.combinations(runs, 2):
        _require_two(one, other)
        _require_same_rows(one, other)
    found: list[list[Run]] = []
    apart: list[tuple[str, ...]] = []
    for run in runs:
        reasons = [next((r for member in group if (r := no_replicate(member, run))), None) for group in found]
        if None in reasons:
            found[reasons.index(None)].append(run)
        else:
            found.append([run])
            apart.append(tuple(reason for reason in reasons if reason is not None))
    return [Experiment(tuple(group), why) for group, why in zip(found, apart)]


def no_replicate(one: Run, other: Run) -> str | None:
    """Why two runs are no replicates of each other, as a phrase; None if they are."""
    if one.identity["training_data"] != other.identity["training_data"]:
        return f"{other.name} has other training data than {one.name}"
    if difference := next(differences(_settled(one), _settled(other)), None):
        key, there, here = difference
        return f"{key} is {_short(there)} in {one.name} and {_short(here)} in {other.name}"
    if one.identity["weights"] == other.identity["weights"]:
        return f"{one.name} and {other.name} have the same weights, sampled with other seeds"
    if one.identity["base_seed"] == other.identity["base_seed"]:
        return f"{one.name} and {other.name} have the same base_seed={one.identity['base_seed']}, so they share their noise"
    return None


def _settled(run: Run) -> dict[str, Any]:
    """What replicates have in common: their configuration, and what was measured with what."""
    measured = {key: getattr(run.results, key) for key in MEASURED_WITH}
    if run.results.quality is not None:  # one of them may have more samples
        measured["quality"] = {key: value for key, value in asdict(run.results.quality).items() if key != "samples"}
    fixed = _fixed(run.results.config)
    if "callbacks" in (trainer := fixed.get("trainer", {})):
        trainer["callbacks"] = _by_class(trainer["callbacks"] or [])
    return fixed | measured


def _by_class(callbacks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Class name -> arguments, so that a callback that only one run has is named; a second of one class gets a number."""
    found: dict[str, Any] = {}
    for each in callbacks:
        name = str(each["class_path"]).rpartition(".")[2]
        again = sum(known.partition(" ")[0] == name for known in found)
        found[f"{name} {again + 1}" if again else name] = each.get("init_args") or {}
    return found


def _fixed(config: Mapping[str, Any], key: str = "") -> dict[str, Any]:
    """The configuration without what replicates are free in."""
    kept = {name: value for name, value in config.items() if name not in _FREE.get(key, ())}
    return {
        name: _fixed(value, f"{key}.{name}" if key else name) if isinstance(value, Mapping) else value
        for name, value in kept.items()
    }


def _require_two(one: Run, other: Run) -> None:
    if one.identity == other.identity:
        raise UserError(
            f"{one.name} and {other.name} are the same run (weights {one.identity['weights'][:8]}).",
            "Remove one of them.",
        )


def _require_same_rows(one: Run, other: Run) -> None:
    here = other.rows(*NAMED)
    for row in one.rows(*NAMED):
        if row not in here:
            continue
        a, b = (run.manifest.definitions[run.manifest.rows[row]["key"]] for run in (one, other))
        if difference := next(differences(a, b), None):
            key, there, here_too = difference
            raise UserError(
                f"Row {row!r} has {key} {_short(there)} in {one.name} and {_short(here_too)} in {other.name}.",
                "Rename it in one of them.",
            )


def _short(value: Any) -> str:
    """A value in a few words; definitions keep floats as hexadecimal digits."""
    if value is None:
        return "not given"
    if isinstance(value, str) and value.lstrip("-").startswith("0x"):
        return f"{float.fromhex(value):g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
