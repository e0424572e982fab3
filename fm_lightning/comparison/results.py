"""The results of a comparison: what the loop returns, what ``results.json`` holds, and what the report draws.

The fields are fixed; only metrics keep open names, because every measure brings its own. Nothing here imports torch.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fm_lightning.errors import UserError
from fm_lightning.estimate import Interval
from fm_lightning.files import DAMAGED, SUM, json_sum, plain, typed, write_whole

SCHEMA = 5
FILE = "results.json"


@dataclass(frozen=True)
class RowResult:
    """One row of the comparison.

    Attributes:
        name: its name, which no other row has.
        kind: "base", "schedule", "control", "field", "floor" or "family"; a control and a family belong to the schedule ``of``.
        metrics: every number that was measured, by name; None for one that is undefined.
        relative: changes of the distance to real data against plain sampling, as shares of plain sampling's.
        vs_base, vs_plain, vs_parent: paired changes of metrics against plain sampling, against the same sampling without
            the gain, and of the schedule ``of`` against this control.
    """

    name: str
    kind: str
    label: str = ""
    of: str | None = None
    control: str | None = None
    plain: str | None = None
    steps: int | None = None
    description: str = ""
    nfe: float | None = None
    samples: int = 0
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    relative: dict[str, Interval] = field(default_factory=dict)
    vs_base: dict[str, Interval] = field(default_factory=dict)
    vs_plain: dict[str, Interval] = field(default_factory=dict)
    vs_parent: dict[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class QualityFacts:
    """The distance to real data that the comparison measured.

    Attributes:
        key, label: its metric's name, and the same in words.
        reference: the number of real samples that it compares with.
        width: the number of features.
        real: hash of the real features.
        samples: per row.
        unseen: the number of real samples that verdicts compare with, of which training saw the share ``seen``.
        held_out: whether these are the held-out samples.
    """

    key: str
    label: str = ""
    reference: int | None = None
    width: int | None = None
    real: str | None = None
    samples: int | None = None
    unseen: int | None = None
    seen: float | None = None
    held_out: bool = False


@dataclass(frozen=True)
class TrainingHistory:
    """What was logged in training: ``series[name][i]`` at ``steps[i]``, None where nothing was logged."""

    steps: tuple[int, ...] = ()
    series: dict[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Judged:
    """The row that a schedule is judged against, and the families' rows, three for each place where a curve reaches it."""

    base: str
    families: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    discrete: tuple[str, ...] = ()


@dataclass(frozen=True)
class MarginResult:
    """The smallest effect that matters: a share of samples, and a distance (None where none judges); see ``verdicts.margins``."""

    memorized: float | None = None
    quality: float | None = None
    floor: float | None = None
    references: int = 0


@dataclass(frozen=True)
class FamilyResult:
    """A schedule against one family; see ``verdicts.outcomes.FamilyVerdict``."""

    family: str
    outcome: str
    sentence: str = ""
    residual: Interval | None = None
    relative: Interval | None = None
    slope: float | None = None
    margin: float | None = None
    fewer_copies: float | None = None
    other_relative: Interval | None = None
    n_needed: int | None = None
    by_dose: bool = False
    p_better: float = 1.0
    p_worse: float = 1.0
    p_no_better: float = 1.0


@dataclass(frozen=True)
class AlternativeResult:
    """The verdict by another definition, and the families whose outcome it reverses; see ``verdicts.outcomes.Alternative``."""

    name: str
    outcome: str
    families: dict[str, str] = field(default_factory=dict)
    reverses: tuple[str, ...] = ()


@dataclass(frozen=True)
class VerdictResult:
    """A verdict as plain data: its numbers, and the sentences that follow from them; see ``verdicts``."""

    schedule: str
    against: str
    outcome: str
    claim: str = ""
    paragraph: str = ""
    n: int = 0
    n_needed: int | None = None
    memorized: float = math.nan
    base_memorized: float = math.nan
    held_out_memorized: float | None = None
    lowered: Interval | None = None
    measure: str | None = None
    quality: float | None = None
    base_quality: float | None = None
    quality_change: Interval | None = None
    relative_change: Interval | None = None
    other_change: Interval | None = None
    other_relative: Interval | None = None
    margin: MarginResult = field(default_factory=MarginResult)
    families: tuple[FamilyResult, ...] = ()
    seen: float | None = None
    robustness: tuple[AlternativeResult, ...] = ()


@dataclass(frozen=True)
class Results:
    """A comparison's results.

    Attributes:
        rows: in display order.
        verdicts: one for each schedule that was judged.
        judged: schedule -> what it was judged against.
        headline: the verdicts in one sentence; None where nothing was judged.
        quality: the distance to real data, if one was measured.
        config: the configuration of the run, whose names are those of the user's classes.
    """

    rows: tuple[RowResult, ...]
    name: str = ""
    headline: str | None = None
    verdicts: tuple[VerdictResult, ...] = ()
    judged: dict[str, Judged] = field(default_factory=dict)
    samples: int = 0
    quality: QualityFacts | None = None
    threshold: float | None = None
    tau_split: float | None = None
    margins: dict[str, float] = field(default_factory=dict)
    created: str | None = None
    command: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    hardware: str | None = None
    seed: int | None = None
    step: int | None = None
    space: str | None = None
    shape: tuple[int, ...] | None = None
    training_images: int | None = None
    skipped_images: int | None = None
    weights: str | None = None
    left_out: str | None = None
    duration_s: float | None = None
    train: TrainingHistory = field(default_factory=TrainingHistory)
    config: dict[str, Any] = field(default_factory=dict)
    identity: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        assert len(set(names)) == len(names), names

    def row(self, name: str) -> RowResult | None:
        """The row of that name."""
        return next((row for row in self.rows if row.name == name), None)

    def verdict(self, schedule: str) -> VerdictResult | None:
        """The verdict on a schedule; None where it was not judged."""
        return next((verdict for verdict in self.verdicts if verdict.schedule == schedule), None)

    def to_json(self) -> str:
        """The text of ``results.json``: what is not a finite number is null."""
        content = {"schema": SCHEMA} | plain(self)
        return json.dumps(
            content | {SUM: json_sum(content)}, indent=1, ensure_ascii=False, allow_nan=False, default=str
        )

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Results:
        """The results with these fields; those that no class above has are left out."""
        return typed(cls, content)

    @classmethod
    def from_json(cls, text: str) -> Results:
        """The results in the text of a ``results.json``.

        Raises:
            UserError: the text of another version, or damaged text.
        """
        try:
            content = json.loads(text)
            if isinstance(content, dict) and content.get("schema") == SCHEMA:
                if content.pop(SUM, None) != json_sum(content):
                    raise ValueError(DAMAGED)
                return cls.from_dict(content)
        except (ValueError, TypeError, KeyError, AttributeError, AssertionError) as error:
            raise UserError(
                "The results are damaged.", "Run fm-lightning report RUN_DIR to write them again"
            ) from error
        found = content.get("schema") if isinstance(content, dict) else None
        raise UserError(
            f"The results have version {found}, and this program reads version {SCHEMA}.",
            "Run fm-lightning report RUN_DIR to write them again",
        )

    def write(self, folder: Path) -> Path:
        """Writes ``results.json`` whole or not at all; returns its path."""
        return write_whole(Path(folder) / FILE, self.to_json())


def read_results(folder: Path) -> Results:
    """The results of the comparison in a run directory.

    Raises:
        UserError: there are none, or they cannot be read.
    """
    path = Path(folder) / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{folder} holds no finished comparison.", f"Run fm-lightning test -c {folder}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read {path}: {error}.", f"Run fm-lightning report {folder}") from None
    try:
        return Results.from_json(text)
    except UserError as error:
        raise UserError(f"{path}: {error.problem}", f"Run fm-lightning report {folder} to write it again") from error
