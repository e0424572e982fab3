"""Subject: the plain sampling that is diagnosed, read back from a run's evaluation; only what it lacks is sampled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_lightning.comparison.judge import NEIGHBOURS
from fm_lightning.comparison.rows import BASE
from fm_lightning.data.base import FlowData
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule, integrate
from fm_lightning.flow.velocity import Velocity
from fm_lightning.metrics import Measure, MemorizationRate, Reference
from fm_lightning.metrics.memorization import THRESHOLD, copied
from fm_lightning.noise import noise
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.trajectory import Trajectory

ENERGIES = ("kpe", "early", "late", "displacement", "excess")
HELD_OUT = 5000  # real images that stand for all held-out ones


@dataclass(frozen=True, eq=False, kw_only=True)
class Sampled:
    """n samples of one velocity field.

    Attributes:
        data: set up.
        trajectory: the n samples on the CPU, with their energies, labels and seeds.
        energies: ``[n]`` float64 for each of ``ENERGIES``.
        base_seed: of the noise.
    """

    data: FlowData
    trajectory: Trajectory
    energies: dict[str, Tensor]
    base_seed: int

    def __len__(self) -> int:
        return len(self.trajectory)

    @property
    def samples(self) -> Tensor:
        """``[n, ...]`` in the model's space."""
        return self.trajectory.x1

    @property
    def labels(self) -> Tensor | None:
        """``[n]`` int64, or None."""
        return self.trajectory.labels

    @property
    def seeds(self) -> Tensor:
        """``[n]`` int64."""
        assert self.trajectory.seeds is not None
        return self.trajectory.seeds

    @cached_property
    def covariates(self) -> dict[str, Tensor]:
        """What an energy depends on trivially, ``[n]`` each: the norm of the noise, and the distance from the training mean."""
        size = self.data.eval_batch_size
        norms = [start(s, self.data, self.base_seed).flatten(1).norm(dim=1) for s in self.seeds.split(size)]
        mean = torch.zeros(self.data.shape, dtype=torch.float64)
        for x in self.data.encoded(self.data.train_split).split(4096):
            mean += x.double().sum(0).cpu() / len(self.data.train_split)
        mean = mean.flatten()
        far = [(x.flatten(1).double() - mean).norm(dim=1) for x in self.samples.split(size)]
        return {"||x0||": torch.cat(norms).double(), "||x1 - mean||": torch.cat(far)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Subject(Sampled):
    """The model that is diagnosed, and its samples.

    Attributes:
        velocity: what was sampled, guidance included.
        schedule: how.
        neighbours: ``d1``, ``d2`` and ``nearest``, ``[n]``: the training images next to each sample.
        threshold: of ``d1 / d2``, below which a sample is a copy.
        tau_split: what early and late energy part at.
        device: where the network is.
        resampled: samples that the table had not kept and that were sampled again.
    """

    velocity: Velocity
    schedule: Schedule
    neighbours: dict[str, Tensor]
    threshold: float
    tau_split: float
    device: torch.device
    resampled: int

    @cached_property
    def copies(self) -> Tensor:
        """``[n]`` bool: which samples are copies."""
        return copied(self.neighbours, self.threshold)

    @cached_property
    def training(self) -> Reference:
        """The training images, encoded as they are read."""
        return training_reference(self.data, self.device)

    @cached_property
    def held_out(self) -> Tensor:
        """``[m, ...]`` real images that the model has not seen, on the CPU."""
        return self.data.floor(self.data.held_out_split)[:HELD_OUT].cpu()

    def start(self, rows: slice) -> Tensor:
        """``[k, ...]`` the noise of the samples in these rows, on the device."""
        return start(self.seeds[rows], self.data, self.base_seed).to(self.device)

    def conditions(self, rows: slice) -> dict[str, Any]:
        """What ``integrate`` needs besides the noise to sample these rows again."""
        labels = None if self.labels is None else self.labels[rows].to(self.device)
        return {"labels": labels, "seeds": self.seeds[rows], "base_seed": self.base_seed}

    def batches(self, count: int) -> Iterator[slice]:
        """Slices of the first samples, in batches of the data's evaluation size."""
        size = self.data.eval_batch_size
        return (slice(i, min(i + size, count)) for i in range(0, count, size))

    def moved(self, x: Tensor) -> Iterator[Tensor]:
        """Batches of rows ``[n, ...]``, on the device."""
        return (part.to(self.device) for part in x.split(self.data.eval_batch_size))


def read_subject(
    evaluation: Evaluation,
    data: FlowData,
    velocity: Velocity,
    schedule: Schedule,
    device: torch.device,
    base_seed: int = 0,
) -> Subject:
    """The base row of an evaluation.

    Raises:
        UserError: it has no lines.
    """
    if BASE not in evaluation.rows or not len(lines := evaluation.lines(BASE)):
        raise UserError(
            f"{evaluation.folder} has no samples of plain sampling.",
            "Run fm-lightning test with the run's configuration.",
        )
    if schedule.diffusion is not None:
        raise UserError(
            "The base schedule is an SDE, which has no displacement and no excess energy to relate to anything.",
            "Compare a base without diffusion.",
        )
    seeds = torch.from_numpy(lines.seed.to_numpy().copy())
    labels = None if lines.label.isna().any() else torch.from_numpy(lines.label.to_numpy().astype(np.int64))
    kept, resampled = evaluation.samples(BASE), 0
    if kept is None:
        samples = _sampled_again(velocity, schedule, seeds, labels, data, base_seed, device)
        resampled = len(samples)
    else:
        samples = torch.from_numpy(kept)
    trajectory, energies = _row(evaluation, BASE, samples, seeds, labels)
    found = evaluation.manifest.about
    return Subject(
        data=data,
        trajectory=trajectory,
        energies=energies,
        base_seed=base_seed,
        velocity=velocity,
        schedule=schedule,
        neighbours=_neighbours(evaluation, samples, seeds, data, device),
        threshold=float(found.get("threshold", THRESHOLD)),
        tau_split=float(found.get("tau_split", 0.6)),
        device=device,
        resampled=resampled,
    )


def read_others(evaluation: Evaluation, subject: Subject) -> dict[str, Sampled]:
    """The other fields of the table, over the subject's seeds: row name -> its samples and energies.

    Left out are those whose samples were not kept, or that miss some of the seeds.
    """
    others = {}
    for row in evaluation.rows:
        kept = evaluation.samples(row) if evaluation.manifest.rows[row]["kind"] == "field" else None
        if kept is None or not np.array_equal(evaluation.lines(row).seed.to_numpy(), subject.seeds.numpy()):
            continue
        trajectory, energies = _row(evaluation, row, torch.from_numpy(kept), subject.seeds, subject.labels)
        others[row] = Sampled(data=subject.data, trajectory=trajectory, energies=energies, base_seed=subject.base_seed)
    return others


def _row(
    evaluation: Evaluation, row: str, samples: Tensor, seeds: Tensor, labels: Tensor | None
) -> tuple[Trajectory, dict[str, Tensor]]:
    lines, about = evaluation.lines(row), evaluation.manifest.rows[row]
    trajectory = Trajectory(
        samples,
        torch.from_numpy(evaluation.energy(row)).T,
        torch.from_numpy(lines.field_energy.to_numpy().copy()),
        torch.from_numpy(lines.displacement.to_numpy().copy()),
        torch.tensor(about["times"], dtype=torch.float64),
        torch.tensor(about["gain"], dtype=torch.float64),
        evaluation.nfe(row),
        labels,
        seeds,
    )
    energies = {name: torch.from_numpy(lines[name].to_numpy(dtype=np.float64).copy()) for name in ENERGIES}
    return trajectory, energies


def training_reference(data: FlowData, device: torch.device) -> Reference:
    """The training images, as stored and on the device where they fit there; latents stay on disk."""
    stored = data.train_split.x
    return Reference(stored.to(device) if isinstance(stored, Tensor) else stored, device=device, encode=data.encode)


def _neighbours(
    evaluation: Evaluation, samples: Tensor, seeds: Tensor, data: FlowData, device: torch.device
) -> dict[str, Tensor]:
    if NEIGHBOURS in evaluation.manifest.measures:
        found = {name: torch.from_numpy(v.copy()) for name, v in evaluation.columns(BASE, NEIGHBOURS).items()}
        if found and torch.equal(found.pop("seed"), seeds):
            return found
    metric = MemorizationRate(training_reference(data, device), mirrored=data.flip)
    return columns_of(metric, (x.to(device) for x in samples.split(data.eval_batch_size)))


def columns_of(metric: Measure, batches: Iterable[Tensor | Trajectory]) -> dict[str, Tensor]:
    """The metric's columns of all batches, on the CPU."""
    parts = [metric.measure(batch) for batch in batches]
    return {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}


@torch.no_grad()
def _sampled_again(
    velocity: Velocity,
    schedule: Schedule,
    seeds: Tensor,
    labels: Tensor | None,
    data: FlowData,
    base_seed: int,
    device: torch.device,
) -> Tensor:
    parts = []
    for rows in torch.arange(len(seeds)).split(data.eval_batch_size):
        x0 = start(seeds[rows], data, base_seed).to(device)
        mine = None if labels is None else labels[rows].to(device)
        way = integrate(velocity, x0, schedule, labels=mine, seeds=seeds[rows], base_seed=base_seed)
        parts.append(way.x1.float().cpu())
    return torch.cat(parts)


def start(seeds: Tensor, data: FlowData, base_seed: int) -> Tensor:
    """``[B, ...]`` the seeds' noise."""
    return noise(seeds.tolist(), data.shape, base_seed)
