"""Comparison: the rows of a schedule table.

A row is the model under a schedule, a control of such a schedule, another velocity field under the same seeds, or a floor:
real images (held-out ones, copies of training data), sent through the same metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fm_lightning.data.samples import TEST_SEED, Samples
from fm_lightning.data.split import Encoded
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule
from fm_lightning.flow.gains import Gain
from fm_lightning.flow.integrate import Velocity
from fm_lightning.flow.schedule import plain
from fm_lightning.flow.true_clock import true_clock
from fm_lightning.guidance import Guidance
from fm_lightning.table.keys import definition, key

BASE, HELD_OUT = "base", "held_out"
LONGEST = 60  # characters of a schedule's name


@dataclass(frozen=True)
class StoredVelocity:
    """A velocity that is loaded when it is sampled.

    Attributes:
        content: names it.
        load: makes it, for a device; valid until another one is loaded.
    """

    content: str
    load: Callable[[torch.device], Velocity]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        kind: "base", "schedule", "control", "family" (a trivial manipulation at a dose), "calibration" (one that only
            calibration seeds see), "field" or "floor".
        schedule: how it is sampled; a floor's is never used.
        of: the schedule that a control belongs to.
        velocity: another field than the model's.
        images: a floor's images; seed ``first_seed + i`` shows image i, and beyond the last one there is nothing to show.
        first_seed: of a floor.
        content: fingerprint of the field or the images, whose row is another one when they change.
        plain: the row that samples as this one does, without its gain; of schedules with a gain.
        note: what it is, where its schedule does not say it.
    """

    kind: str
    schedule: Schedule
    of: str | None = None
    velocity: Velocity | StoredVelocity | None = None
    images: Tensor | Encoded | None = None
    first_seed: int = 0
    content: str = ""
    plain: str | None = None
    note: str = ""

    @property
    def definition(self) -> Any:
        """What the row's lines depend on besides the evaluation's identity, as plain JSON."""
        return {"schedule": None if self.kind == "floor" else definition(self.schedule), "content": self.content}

    @property
    def key(self) -> str:
        """Names the definition: rows with equal keys are sampled once."""
        return key(self.definition)

    def facts(self, name: str) -> dict[str, Any]:
        """What a manifest says of the row."""
        floor = self.kind == "floor"
        edges = self.schedule.edges
        return {
            "kind": self.kind,
            "of": self.of,
            "control": name.rpartition(".")[2] if self.of else None,
            "plain": self.plain,
            "label": self.label(name),
            "description": FLOORS[name] if floor else describe(self.schedule),
            "steps": 0 if floor else self.schedule.steps,
            "times": [] if floor else edges.tolist(),
            "gain": [] if floor else self.schedule.eta(edges[:-1]).tolist(),
        }

    def label(self, name: str) -> str:
        """A few words for a table; ``name`` is the row's."""
        s = self.schedule
        if self.note:
            return self.note
        if self.kind == "control":
            return "same steps, true clock"
        words = {"floor": FLOORS.get(name, name), "field": name}.get(self.kind)
        sampling = str(s.gain) if s.gain is not None else f"plain, {s.steps} {s.solver} steps"
        return words or ", ".join([sampling, *_manipulations(s)])


def describe(s: Schedule) -> str:
    """All that a schedule is, in words."""
    grid = f"{s.grid} grid" if isinstance(s.grid, str) else f"grid of {len(s.grid)} edges"
    words = [f"gain {s.gain}" if s.gain else "no gain", f"{s.steps} {s.solver} steps", f"{grid} to t = {s.t_end:.6g}"]
    return ", ".join([*words, *_manipulations(s)])


def _manipulations(s: Schedule) -> list[str]:
    words = []
    if s.diffusion is not None:
        words.append(str(s.diffusion))
    if s.guidance is not None:
        words.append(str(s.guidance))
    if s.t_start:
        words.append(f"from t = {s.t_start:.6g}")
    if s.told_time != "grid":
        words.append(f"told time: {s.told_time}")
    if s.x0_scale != 1:
        words.append(f"initial noise x {s.x0_scale:g}")
    if s.inject_noise is not None:
        words.append(f"noise {s.inject_noise[1]:.6g} put in at t = {s.inject_noise[0]:.6g}")
    if s.blend:
        words.append(f"{s.blend:.6g} of the start blended in")
    return words + [f"end noise {sigma:.6g}" for sigma in s.noises if sigma]


FLOORS = {HELD_OUT: "real data, held out", "copies": "training data"}


def schedule_rows(schedules: Mapping[str, Schedule]) -> dict[str, Row]:
    """Rows of the model under each schedule; plain sampling comes first, added where it is missing.

    Raises:
        UserError: a name that is another kind of row's, or that a logged name, a file or a figure cannot hold.
    """
    check_schedules(schedules)
    first = next(iter(schedules.values()), Schedule())
    rows = {BASE: Row("base", schedules.get(BASE, plain(first)))}
    rows |= {name: Row("schedule", s) for name, s in schedules.items() if name != BASE}
    return rows


def guided_rows(rows: Mapping[str, Row], guidance: Guidance) -> dict[str, Row]:
    """The rows under this guidance, unless their schedules have their own; None where nothing is guided."""
    found = {}
    for name, row in rows.items():
        mine = row.schedule.guidance or guidance
        nothing = mine.scale == 1 and not mine.record
        found[name] = replace(row, schedule=replace(row.schedule, guidance=None if nothing else mine))
    return found


def check_schedules(schedules: Mapping[str, Schedule]) -> None:
    """Raises UserError for anything but names with schedules."""
    if not isinstance(schedules, Mapping):
        problem = f"Schedules are named, but these are of type {type(schedules).__name__}."
        raise UserError(problem, 'Pass for example {"shaped": Schedule(KTS())}')
    for name, schedule in schedules.items():
        _check_name(name)
        check_schedule(name, schedule)


def check_schedule(name: str, schedule: Schedule) -> None:
    """Raises UserError for anything but a schedule."""
    if not isinstance(schedule, Schedule):
        kind = type(schedule).__name__
        fix = f"Pass Schedule({kind}(...))" if isinstance(schedule, Gain) else "Pass for example Schedule(KTS())"
        raise UserError(f"{name} is of type {kind}, not a Schedule.", fix)


def _check_name(name: str) -> None:
    fix = "Rename it, for example to kts_001."
    if not isinstance(name, str):
        raise UserError(f"The schedule name {name!r} is not text.", fix)
    if not name or len(name) > LONGEST:
        raise UserError(f"The schedule name {name[:20]!r} has {len(name)} characters.", f"Use 1 to {LONGEST}.")
    if name in FLOORS:
        raise UserError(f"The name {name!r} is that of the row of {FLOORS[name]}.", fix)
    # ".", "~" and "/" separate the parts of other rows' names and of logged names.
    if wrong := [letter for letter in name if letter in "./~" or letter.isspace() or not letter.isprintable()]:
        raise UserError(f"The schedule name {name!r} contains {wrong[0]!r}.", fix)


def plain_row(rows: Mapping[str, Row], name: str) -> str:
    """The row that samples as ``name`` does (solver, grid, steps) without its gain; base where there is none."""
    wanted = plain(rows[name].schedule)
    same = (n for n, row in rows.items() if row.kind in ("base", "schedule") and row.schedule == wanted)
    return next(same, BASE)


def check_fields(rows: Mapping[str, Row], names: Iterable[str]) -> None:
    """Raises UserError for names of fields that a row cannot have, or that a schedule already has."""
    for name in names:
        _check_name(name)
        if name in rows:
            raise UserError(
                f"A field has the name of the schedule {name}.", "Rename the field, for example to empirical."
            )


def check_judged(rows: Mapping[str, Row], names: Sequence[str]) -> None:
    """Refuses names of no schedule.

    Raises:
        UserError: names the schedules that can be judged.
    """
    if isinstance(names, str):
        raise UserError(f"judge={names!r} is a single name, not a list of names.", f"Pass judge=[{names!r}]")
    able = [name for name, row in rows.items() if row.kind == "schedule"]
    for name in names:
        if name not in able:
            what = "the base, against which others are judged" if name == BASE else "no schedule"
            fix = f"Choose among {', '.join(able)}." if able else "Add a schedule."
            raise UserError(f"judge names {name!r}, which is {what}.", fix)


def judged_rows(rows: Mapping[str, Row], names: Sequence[str]) -> dict[str, Row]:
    """The rows, with what judging the schedules of ``names`` needs in addition.

    A schedule that samples otherwise than base (solver, grid, steps) is judged against the same sampling without its gain: a
    row for that, ``name_plain``, comes before it unless there is one. One with a gain is followed by its step sizes with
    the true clock, ``name.true_clock``: the discretisation without the mis-told time.
    """
    out: dict[str, Row] = {}
    for name, row in rows.items():
        shaped = name in names and row.schedule.gain is not None
        if shaped:
            known, own = {**rows, **out}, Row("schedule", plain(row.schedule))
            if known[plain_row(known, name)].schedule != own.schedule:
                out.setdefault(f"{name}_plain", own)
        out[name] = row
        if shaped and (clock := true_clock(row.schedule)) is not None:
            out[f"{name}.true_clock"] = Row("control", clock, of=name)
    return {
        name: replace(row, plain=plain_row(out, name)) if row.kind == "schedule" and row.schedule.gain else row
        for name, row in out.items()
    }


def floor_rows(data: Samples, base: Schedule) -> dict[str, Row]:
    """Real images: held-out ones, and the training data themselves."""
    splits = {
        HELD_OUT: (data.held_out_split, data.comparison_fingerprint),
        "copies": (data.train_split, data.fingerprint),
    }
    return {
        name: Row("floor", base, images=data.floor(split), first_seed=TEST_SEED, content=f"{name}:{content}")
        for name, (split, content) in splits.items()
    }
