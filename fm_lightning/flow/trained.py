"""The range of times that a network was trained on, and what it means for a schedule.

Sampling begins at the largest noise level of the training, because nothing is known about larger ones. It ends at ``t = 1``
all the same: the step from the smallest noise level to no noise is the last one of every diffusion sampler.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol, runtime_checkable

from fm_lightning.errors import UserError
from fm_lightning.flow.schedule import Schedule
from fm_lightning.flow.velocity import Velocity

ROUNDING = 1e-6  # of a time: samplers keep their noise levels in float32


@runtime_checkable
class TrainedVelocity(Protocol):
    """A velocity that says at which times it was trained.

    Attributes:
        trained_on: first and last time.
    """

    trained_on: tuple[float, float]


def trained_range(velocity: Velocity) -> tuple[float, float]:
    """The first and last time at which a velocity was trained; 0 and 1 where it does not say."""
    return velocity.trained_on if isinstance(velocity, TrainedVelocity) else (0.0, 1.0)


def begin_where_trained(schedule: Schedule, velocity: Velocity) -> Schedule:
    """The schedule, beginning at the velocity's first trained time unless it has a ``t_start`` or edges of its own.

    Raises:
        UserError: it begins at a larger noise level than the velocity was trained on.
    """
    first = trained_range(velocity)[0]
    if schedule.t_start >= first - ROUNDING:
        return schedule
    if schedule.t_start or not isinstance(schedule.grid, str):
        given = "The grid" if not isinstance(schedule.grid, str) else "Sampling"
        raise UserError(
            f"{given} begins at t = {schedule.t_start:.4g}, and the network was trained only for t >= {first:.4g}.",
            f"Leave t_start out to begin there, or use at least {first!r}.",
        )
    if schedule.t_end <= first:
        raise UserError(
            f"t_end={schedule.t_end:g} is before t = {first:.4g}, where the network's training begins.",
            "Use for example t_end=1.",
        )
    return replace(schedule, t_start=first)


def where_trained(schedules: Mapping[str, Schedule], velocity: Velocity) -> dict[str, Schedule]:
    """The schedules as ``begin_where_trained`` gives them.

    Raises:
        UserError: names the schedule that begins at a larger noise level than the velocity was trained on, or ends, with some
            noise left, at a smaller one.
    """
    found: dict[str, Schedule] = {}
    last = trained_range(velocity)[1]
    for name, schedule in schedules.items():
        try:
            found[name] = begin_where_trained(schedule, velocity)
        except UserError as error:
            raise UserError(f"Schedule {name}: {error.problem}", error.fix) from error
        if last + ROUNDING < schedule.t_end < 1:
            raise UserError(
                f"Schedule {name} ends at t = {schedule.t_end:.4g}, and the network was trained only for t <= {last:.4g}.",
                "Leave t_end out to remove all noise, or end earlier.",
            )
    return found
