"""Probed: the first samples, resampled with a probe attached, for what no table stores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fm_lightning.diagnosis.answer import Missing, unless_refused
from fm_lightning.diagnosis.commitment import CommitmentProbe
from fm_lightning.diagnosis.power_profile import PowerProbe, bridge_log_density, bridge_power
from fm_lightning.diagnosis.subject import Subject
from fm_lightning.flow import EmpiricalVelocity, Schedule, integrate
from fm_lightning.flow.likelihood import log_likelihood
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.noise import noise

PLACES = 20  # times at which the bridge's density is asked along the way
CLOSED = 3e8  # numbers of a training set that the closed form holds in memory, 8 bytes each
EXACT = 64  # dimensions up to which the divergence is exact: each costs a backward pass a step
BRIDGE_SEED = 40_000_000  # of the noise of held-out bridges


@dataclass(frozen=True, eq=False)
class LogDensity:
    """The likelihood of B samples: ``log_p [B]`` in nats, its standard error or None, and what it cost."""

    log_p: Tensor
    standard_error: Tensor | None
    forwards: int
    backwards: int


@dataclass(frozen=True, eq=False)
class Probed:
    """B samples, watched.

    Attributes:
        times: ``[S]`` float64, the steps' left edges.
        commitment: ``[B]`` time after which the nearest training image of the denoised estimate stays the final one.
        network: ``[S, B]`` power of the network along its own way.
        bridge_times: ``[T]`` of the steps where the bridge's density was asked.
        bridge_density: ``[T, B]`` its log at the network's states.
        gap: ``[B]`` mean norm of the conditional minus the unconditional velocity; None without guidance.
        closed: power of the closed form ``[S, m]`` "along the network's way", "along its own way" and "on held-out bridges", or
            why there is none.
        likelihood: of the samples, or why there is none.
    """

    times: Tensor
    commitment: Tensor
    network: Tensor
    bridge_times: Tensor
    bridge_density: Tensor
    gap: Tensor | None
    closed: dict[str, Tensor] | Missing
    likelihood: LogDensity | Missing

    def __len__(self) -> int:
        return self.network.shape[1]


class _Watch:
    """Several probes at once: commitment, power, and the bridge's density at some steps."""

    def __init__(self, reference: Reference, closed: EmpiricalVelocity | None, steps: int) -> None:
        self.commitment, self.power = CommitmentProbe(reference), PowerProbe()
        self.closed = None if closed is None else PowerProbe(closed)
        self.reference, self.every = reference, max(1, steps // PLACES)
        self.times: list[float] = []
        self.density: list[Tensor] = []

    def __call__(self, i: int, t: float, x: Tensor, v: Tensor) -> None:
        for probe in (self.commitment, self.power, self.closed):
            if probe is not None:
                probe(i, t, x, v)
        if i % self.every == 0 and t < 1:
            self.times.append(t)
            self.density.append(bridge_log_density(x, t, self.reference).cpu())


def probe(subject: Subject, count: int) -> Probed:
    """Samples the first ``count`` seeds again, along the base schedule."""
    count = min(count, len(subject))
    schedule = subject.schedule
    if not schedule.method.fixed_steps:  # no probe can follow an adaptive solver
        schedule = replace(schedule, solver="rk4", steps=25)
    closed = unless_refused(lambda: _closed_form(subject))
    field = None if isinstance(closed, Missing) else closed
    parts = [_watched(subject, rows, schedule, field) for rows in subject.batches(count)]
    watches, ways = zip(*parts)
    times = watches[0].power.times
    gaps = [way.guidance_gap for way in ways if way.guidance_gap is not None]
    return Probed(
        times,
        torch.cat([watch.commitment.commitment(way.x1).cpu() for watch, way in parts]),
        torch.cat([watch.power.power.cpu() for watch in watches], 1),
        torch.tensor(watches[0].times, dtype=torch.float64),
        torch.cat([torch.stack(watch.density) for watch in watches], 1),
        torch.cat([gap.nanmean(0).cpu() for gap in gaps]).double() if gaps else None,
        closed if isinstance(closed, Missing) else _powers(subject, count, schedule, closed, watches, times),
        unless_refused(lambda: _likelihood(subject, count, schedule)),
    )


def _closed_form(subject: Subject) -> EmpiricalVelocity | Missing:
    numbers = len(subject.training) * subject.training.size
    if numbers > CLOSED:
        return Missing(
            f"a training set of {numbers:.1e} numbers: the closed form would hold {8 * numbers / 2**30:.0f} GiB"
        )
    return EmpiricalVelocity(subject.data.reference()).to(subject.device)


@torch.no_grad()
def _watched(subject: Subject, rows: slice, schedule: Schedule, closed: EmpiricalVelocity | None):
    watch = _Watch(subject.training, closed, schedule.steps)
    way = integrate(subject.velocity, subject.start(rows), schedule, **subject.conditions(rows), probe=watch)
    return watch, way


@torch.no_grad()
def _powers(subject: Subject, count: int, schedule: Schedule, closed: EmpiricalVelocity, watches, times: Tensor):
    own = []
    for rows in subject.batches(count):
        seen = PowerProbe()
        integrate(closed, subject.start(rows), schedule, seeds=subject.seeds[rows], probe=seen)
        own.append(seen.power.cpu())
    held = subject.held_out[:count].to(subject.device)
    x0 = noise(range(BRIDGE_SEED, BRIDGE_SEED + len(held)), subject.data.shape, subject.base_seed).to(held)
    inside = times[times < 1]
    return {
        "along the network's way": torch.cat([watch.closed.power.cpu() for watch in watches], 1),
        "along its own way": torch.cat(own, 1),
        "on held-out bridges": bridge_power(closed, x0, held, inside).cpu(),
    }


def _likelihood(subject: Subject, count: int, schedule: Schedule) -> LogDensity:
    probes = 0 if subject.samples[0].numel() <= EXACT else 8
    found = [
        log_likelihood(subject.velocity, subject.start(rows), schedule, **subject.conditions(rows), probes=probes)
        for rows in subject.batches(count)
    ]
    errors = [part.standard_error.cpu() for part in found if part.standard_error is not None]
    return LogDensity(
        torch.cat([part.log_p.cpu() for part in found]),
        torch.cat(errors) if errors else None,
        sum(part.forwards for part in found),
        sum(part.backwards for part in found),
    )
