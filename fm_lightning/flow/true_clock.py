"""A control that no dose curve replaces: a gain's step sizes with the true clock."""

from __future__ import annotations

from dataclasses import replace

import torch

from fm_lightning.flow.schedule import Schedule, plain


def true_clock(schedule: Schedule) -> Schedule | None:
    """The step sizes of a shaped schedule, up to the factor with which they reach ``t_end``, the network told the true time.

    What this does is the discretisation's; what the schedule does beyond it comes from the time that the network is told.

    Returns:
        None for a schedule without a gain, and for a gain that reverses: it has no clock of its own.
    """
    if schedule.gain is None:
        return None
    advance = schedule.advances
    if not (advance > 0).all():
        return None
    clock = torch.cat([torch.zeros(1, dtype=torch.float64), advance.cumsum(0)])
    clock = schedule.t_start + clock / clock[-1] * (schedule.t_end - schedule.t_start)
    clock[-1] = schedule.t_end
    return replace(plain(schedule), grid=clock)
