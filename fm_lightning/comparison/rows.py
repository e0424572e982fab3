"""Comparison: the rows of a schedule table.

A row is the model under a schedule, a control of such a schedule, another velocity field under the same seeds, or a floor:
data that nobody sampled (held-out real ones, copies of training data), sent through the same metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule, integrate_many, matched_controls, rms_distance
from fm_lightning.flow.integrate import Velocity
from fm_lightning.flow.schedule import plain

if TYPE_CHECKING:
    from fm_lightning.data.split import Encoded

BASE = "base"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        kind: "base", "schedule", "control", "field" or "floor".
        schedule: how it is sampled; a floor's is never used.
        of: the schedule that a control belongs to.
        velocity: another field than the model's.
        images: a floor's images; seed ``first_seed + i`` shows image i, and beyond the last one there is nothing to show.
        first_seed: of a floor.
    """

    kind: str
    schedule: Schedule
    of: str | None = None
    velocity: Velocity | None = None
    images: Tensor | Encoded | None = None
    first_seed: int = 0

    def label(self, name: str) -> str:
        """A few words for a table; ``name`` is the row's."""
        s = self.schedule
        if self.kind == "control":
            return {
                "true_clock": "same steps, true clock",
                "early_stop": f"stopped at t={s.t_end:.4g}",
                "constant_gain": f"constant {s.gain}",
                "fewer_steps": f"{s.steps} plain steps",
                "noise": f"noise σ={s.end_noise:.3g}",
            }[name.rpartition(".")[2]]
        words = {"floor": FLOORS.get(name, name), "field": name}.get(self.kind)
        return words or (str(s.gain) if s.gain is not None else f"plain, {s.steps} {s.solver} steps")


FLOORS = {"held_out": "real data, held out", "copies": "training data"}


def schedule_rows(schedules: Mapping[str, Schedule]) -> dict[str, Row]:
    """Rows of the model under each schedule; plain sampling comes first, added where it is missing.

    Raises:
        UserError: a name that could not be told from a control's, or cannot stand in a logged name.
    """
    for name in schedules:
        if not name or set(name) & set("./ "):
            raise UserError(
                f"schedule name {name!r} given, expected one without '.', '/' or blanks; type e.g. 'kts_001'"
            )
    first = next(iter(schedules.values()), Schedule())
    rows = {BASE: Row("base", schedules.get(BASE, plain(first)))}
    rows |= {name: Row("schedule", s) for name, s in schedules.items() if name != BASE}
    return rows


def plain_row(rows: Mapping[str, Row], name: str) -> str:
    """The row that samples as ``name`` does (solver, grid, steps) without its gain; base where there is none."""
    wanted = plain(rows[name].schedule)
    same = (n for n, row in rows.items() if row.kind in ("base", "schedule") and row.schedule == wanted)
    return next(same, BASE)


def check_controls(rows: Mapping[str, Row], names: Sequence[str]) -> None:
    """Refuses names of no schedule, and of schedules without a gain.

    Raises:
        UserError: names the schedules that can be controlled.
    """
    shaped = [name for name, row in rows.items() if row.schedule.gain is not None]
    for name in names:
        if name not in shaped:
            what = "which has no gain to control" if name in rows else "which is no schedule"
            raise UserError(
                f"controls_for names {name!r}, {what}, expected schedules with a gain ({', '.join(shaped) or 'none given'}); "
                f"type controls_for: [{', '.join(shaped)}]"
            )


def control_rows(
    rows: Mapping[str, Row], names: Sequence[str], velocity: Velocity, x0: Tensor, labels: Tensor | None
) -> dict[str, Row]:
    """The rows, each schedule of ``names`` followed by its matched controls (``name.control``).

    One that samples otherwise than base (solver, grid, steps) is judged against the same sampling without its gain: a row
    for that, ``name_plain``, comes before it unless there is one.

    Args:
        rows: as ``schedule_rows`` gives them.
        names: the schedules to control.
        velocity: the model.
        x0: ``[n, ...]`` noise of calibration seeds, on which the distance for the noise control is measured.
        labels: ``[n]`` labels of those seeds.

    Raises:
        UserError: an unknown name, or a schedule without a gain.
    """
    check_controls(rows, names)
    shaped = {name: rows[name].schedule for name in names}
    pairs = shaped | {f"{name}.plain": plain(s) for name, s in shaped.items()}
    trajectories = integrate_many(velocity, x0, pairs, labels=labels) if pairs else {}
    out: dict[str, Row] = {}
    for name, row in rows.items():
        if name in shaped:
            known, own = {**rows, **out}, Row("schedule", plain(row.schedule))
            if known[plain_row(known, name)].schedule != own.schedule:
                out.setdefault(f"{name}_plain", own)
        out[name] = row
        if name in shaped:
            distance = rms_distance(trajectories[name], trajectories[f"{name}.plain"])
            for control, schedule in matched_controls(row.schedule, distance=distance).items():
                out[f"{name}.{control}"] = Row("control", schedule, of=name)
    return out
