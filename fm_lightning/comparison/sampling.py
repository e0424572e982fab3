"""How a batch of seeds becomes one trajectory per row of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fm_lightning.comparison.rows import Row, StoredVelocity
from fm_lightning.data.batches import SeedBatch, SeedBatches
from fm_lightning.data.samples import Samples
from fm_lightning.data.split import Encoded
from fm_lightning.flow import Schedule, integrate_many
from fm_lightning.flow.velocity import Velocity
from fm_lightning.noise import noise
from fm_lightning.trajectory import Trajectory


class SamplingListener:
    """Follows sampling, for example a progress bar."""

    def follow(self, words: str, batches: SeedBatches) -> Iterable[SeedBatch]:
        """Returns the batches, which are sampled as this is iterated; ``words`` say what for."""
        return batches

    def on_sampling(self, work: Sequence[Mapping[str, Row]], count: int, merge_rows: int) -> None:
        """A batch begins: each of these sets of rows is going to be sampled from ``count`` seeds."""

    def on_evaluation(self) -> None:
        """A velocity is about to be evaluated."""


@dataclass(frozen=True)
class Model:
    """A velocity field with all that its samples depend on besides row and seed.

    Attributes:
        velocity: ``v(x, t, y)``.
        samples: the data that it was trained on, for their shape and the labels of seeds.
        base_seed: of the noise.
        device: where sampling takes place.
        dtype: of the states.
        merge_rows: evaluate schedules that have parted in one batch of at most this many rows.
        listeners: who follows.
    """

    velocity: Velocity
    samples: Samples
    base_seed: int
    device: torch.device
    dtype: torch.dtype = torch.float32
    merge_rows: int = 0
    listeners: Sequence[SamplingListener] = ()

    def follow(self, words: str, batches: SeedBatches) -> Iterable[SeedBatch]:
        """The batches of seeds, with the listeners following; at most one of them shows a bar."""
        followed: Iterable[SeedBatch] = batches
        for listener in self.listeners:
            mine = listener.follow(words, batches)
            followed = mine if mine is not batches else followed
        return followed

    def announce(self, work: Sequence[Mapping[str, Row]], count: int) -> None:
        """Tells the listeners what a batch of seeds is going to be sampled for."""
        for listener in self.listeners if work else ():
            listener.on_sampling(work, count, self.merge_rows)

    def sample(self, rows: Mapping[str, Row], seeds: Tensor, count: int) -> dict[str, Trajectory]:
        """One trajectory per row from the noise of ``seeds [B]``, without the padding beyond ``count``."""
        labels = self.samples.labels_of(seeds)
        ahead = self.device.type == "cuda"  # a copy to a GPU need not wait for the batch before this one
        x0 = noise(seeds.tolist(), self.samples.shape, self.base_seed)
        x0 = x0.to(device=self.device, dtype=self.dtype, non_blocking=ahead)
        labels = None if labels is None else labels.to(self.device, non_blocking=ahead)
        return sample(
            rows, self.velocity, x0, labels, seeds, self.base_seed, count, self.merge_rows, evaluated=self._evaluated
        )

    def _evaluated(self) -> None:
        for listener in self.listeners:
            listener.on_evaluation()


def sample(
    rows: Mapping[str, Row],
    velocity: Velocity,
    x0: Tensor,
    labels: Tensor | None,
    seeds: Tensor,
    base_seed: int,
    count: int,
    merge_rows: int = 0,
    evaluated: Callable[[], None] | None = None,
) -> dict[str, Trajectory]:
    """One trajectory per row from the same noise, without the padding beyond ``count``.

    ``evaluated`` is called before each call of a velocity.
    """
    fields: dict[object, tuple[Velocity | StoredVelocity, dict[str, Schedule]]] = {}
    for name, row in rows.items():
        if row.images is None:
            field = row.velocity or velocity
            same = field.content if isinstance(field, StoredVelocity) else id(row.velocity)
            fields.setdefault(same, (field, {}))[1][name] = row.schedule
    sampled: dict[str, Trajectory] = {}
    for field, schedules in fields.values():
        sampled |= integrate_many(
            field.load(x0.device) if isinstance(field, StoredVelocity) else field,
            x0,
            schedules,
            labels=labels,
            seeds=seeds,
            base_seed=base_seed,
            merge_rows=merge_rows,
            evaluated=evaluated,
        )
    for name, row in rows.items():
        if row.images is not None:
            sampled[name] = _still(row.images, row.first_seed, x0, seeds, labels)
    return {name: sampled[name][:count] for name in rows}


def _still(images: Tensor | Encoded, first_seed: int, x0: Tensor, seeds: Tensor, labels: Tensor | None) -> Trajectory:
    """Images in place of samples; each is shown once."""
    # Seeds are on the host: this waits for no device.
    here = [i for i, place in enumerate((seeds - first_seed).tolist()) if 0 <= place < len(images)]
    shown = torch.tensor(here, dtype=torch.int64)
    places = (seeds[shown] - first_seed).to(images.device, non_blocking=images.device.type == "cuda")
    x1 = images[places].to(x0.device, non_blocking=x0.is_cuda)
    if labels is not None:
        labels = labels[shown.to(labels.device, non_blocking=labels.is_cuda)]
    return Trajectory.still(x1, labels, seeds[shown])
