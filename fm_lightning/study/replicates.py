"""Replicates: which runs repeat one experiment with another seed, and which are experiments of their own.

Runs are replicates if they were trained in the same way on the same data, their numbers were measured in the same way, and both
their seeds and their weights differ. What only observes may differ: monitors, validations, kept weights, and which rows,
families and seeds a comparison has. What only one of them measured is compared there alone. Nothing else is ever pooled.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fm_lightning.comparison.results import Results
from fm_lightning.errors import UserError
from fm_lightning.study.observers import averages, observes, what_decides
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.keys import differences
from fm_lightning.table.manifest import Manifest

MEASURED_WITH = ("threshold", "tau_split", "quality")  # of results: numbers measured otherwise are other numbers
COUNTED_WITH = ("mirrored", "leave_out_duplicates")  # of MemorizationMonitor: they too decide what is a copy
OWN = ("weights", "base_seed", "label_seed", "merge_rows")  # of a table's identity: what each replicate has for itself
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

    @property
    def callbacks(self) -> Sequence[Mapping[str, Any]]:
        """The configured callbacks."""
        found = (self.results.config.get("trainer") or {}).get("callbacks") or []
        return [found] if isinstance(found, Mapping) else found

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
    if one.identity.get("training_data") != other.identity.get("training_data"):
        return f"{other.name} has other training data than {one.name}"
    for run in (one, other):
        if not run.results.config:
            return f"{run.name} has no configuration, so how it was trained is unknown"
    here, there = _measured(one), _measured(other)
    both = [key for key in here if key in there]  # what was not measured in one of them contradicts nothing
    # What reads validations may end a training by them, as EarlyStopping does; which callbacks do is unknown.
    unknown = any(not (observes(each) or averages(each)) for each in (*one.callbacks, *other.callbacks))
    settled = (
        _trained(one, unknown) | {key: here[key] for key in both},
        _trained(other, unknown) | {key: there[key] for key in both},
    )
    if difference := next(differences(*settled), None):
        key, mine, theirs = difference
        return f"{key} is {_short(mine)} in {one.name} and {_short(theirs)} in {other.name}"
    if one.identity.get("weights") == other.identity.get("weights"):
        return f"{one.name} and {other.name} have the same weights, sampled with other seeds"
    if one.identity["base_seed"] == other.identity["base_seed"]:
        return f"{one.name} and {other.name} have the same base_seed={one.identity['base_seed']}, so they share their noise"
    return None


def _trained(run: Run, validations: bool) -> dict[str, Any]:
    """What decided the weights, apart from the seed, and what their samples depend on besides.

    Args:
        run: a finished comparison.
        validations: whether the training may have depended on its validations.
    """
    found = what_decides(run.results.config, validations)
    if run.callbacks:
        kept = [each for each in run.callbacks if not observes(each, validations)]
        found["trainer"] = found["trainer"] | {"callbacks": _by_class(kept)}
    if not validations and not found.get("trainer", {}).get("max_time"):
        found["step"] = run.results.step  # another one where a training was cut off, or an earlier checkpoint compared
    return found | {key: value for key, value in run.identity.items() if key not in OWN}


def _measured(run: Run) -> dict[str, Any]:
    """What numbers and verdicts were measured with, without what was not measured."""
    found = {key: getattr(run.results, key) for key in MEASURED_WITH}
    if run.results.quality is not None:  # one of them may have more samples
        found["quality"] = {key: value for key, value in asdict(run.results.quality).items() if key != "samples"}
    if run.results.verdicts:
        found["margins"] = dict(run.results.margins)
    for each in run.callbacks:
        if str(each["class_path"]).endswith(".MemorizationMonitor"):
            found["MemorizationMonitor"] = {name: (each.get("init_args") or {}).get(name) for name in COUNTED_WITH}
    return {key: value for key, value in found.items() if value is not None}


def _by_class(callbacks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Class name -> arguments, so that a callback that only one run has is named; a second of one class gets a number."""
    found: dict[str, Any] = {}
    for each in callbacks:
        name = str(each["class_path"]).rpartition(".")[2]
        again = sum(known.partition(" ")[0] == name for known in found)
        found[f"{name} {again + 1}" if again else name] = each.get("init_args") or {}
    return found


def _require_two(one: Run, other: Run) -> None:
    if one.identity == other.identity:
        weights = one.identity.get("weights")
        raise UserError(
            f"{one.name} and {other.name} are the same run{f' (weights {weights[:8]})' if weights else ''}.",
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
                "Compare these runs apart." if row == NAMED[0] else "Rename it in one of them.",
            )


def _short(value: Any) -> str:
    """A value in a few words; definitions keep floats as hexadecimal digits."""
    if value is None:
        return "not given"
    if isinstance(value, str) and value.lstrip("-").startswith("0x"):
        return f"{float.fromhex(value):g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
