"""Matched controls: what a gain does besides shaping, each effect alone.

A gain changes the total displacement, leaves noise in the sample and tells the network a wrong time. Each alone moves
memorization and quality; nothing is an improvement that a control explains.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from fm_lightning.flow.gains import Constant
from fm_lightning.flow.schedule import Schedule, plain
from fm_lightning.trajectory import Trajectory


def matched_controls(schedule: Schedule, *, distance: float | None = None) -> dict[str, Schedule]:
    """The schedules that share one side effect each with a shaped one.

    ``true_clock``
        the same step sizes (up to the factor with which they reach ``t_end``), the network told the true time.
    ``early_stop``
        plain sampling on the same kind of grid, stopped at ``t = sum eta dt``; absent where that is not below ``t_end``.
    ``constant_gain``
        the constant gain with the same ``sum eta dt``.
    ``fewer_steps``
        plain sampling with a quarter of the steps.
    ``noise``
        plain samples plus noise, independent of all noise in them, as far away as the shaped samples are; needs
        ``distance``.

    Args:
        schedule: the shaped schedule.
        distance: root mean square, over samples and dimensions, of shaped minus plain samples from the same noise
            (``rms_distance``); a property of the network, hence measured, not derived.

    Returns:
        name -> Schedule; empty for a schedule without a gain.
    """
    if schedule.gain is None:
        return {}
    base = plain(schedule)
    total = schedule.total_gain
    controls = {}
    edges = schedule.edges
    advance = schedule.advances
    clock = torch.cat([torch.zeros(1, dtype=torch.float64), advance.cumsum(0)])
    if (advance > 0).all():  # a gain that reverses has no clock of its own
        clock = clock / clock[-1] * schedule.t_end
        clock[-1] = schedule.t_end
        controls["true_clock"] = replace(base, grid=clock)
    if 0 < total < schedule.t_end:
        shrink = total / schedule.t_end
        if isinstance(base.grid, str):
            controls["early_stop"] = replace(base, t_end=total)
        else:
            controls["early_stop"] = replace(base, grid=edges * shrink, t_end=1.0)
    if total > 0:
        controls["constant_gain"] = replace(schedule, gain=Constant(total / schedule.t_end))
    fewer = max(1, schedule.steps // 4)
    controls["fewer_steps"] = (
        replace(base, steps=fewer)
        if isinstance(base.grid, str)
        else replace(base, grid=edges[torch.linspace(0, schedule.steps, fewer + 1).round().long()])
    )
    if distance is not None:
        controls["noise"] = base.with_noise(distance)
    return controls


def rms_distance(a: Trajectory, b: Trajectory) -> float:
    """Root mean square over samples and dimensions of ``a.x1 - b.x1``, in the unit of the sample space."""
    return float((a.x1 - b.x1).double().square().mean().sqrt())
