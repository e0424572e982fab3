"""The loss at each time of the bridge, on training and on held-out samples, next to two losses that no network trained.

The closed-form field has the smallest loss that is possible on the training samples: it knows them all. The Gaussian field
knows their mean and covariance alone. All fields are evaluated at the same (sample, noise, time), so that their differences
are paired.

    loss(t) = E || v(x_t, t, y) - (x1 - x0) ||^2,  averaged over the sample's dimensions
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fm_lightning.data.samples import Samples
from fm_lightning.data.split import Split
from fm_lightning.estimate import Estimate
from fm_lightning.flow import EmpiricalVelocity, GaussianVelocity, LinearPath
from fm_lightning.noise import PROFILE, epoch_order, noise

SIDES = ("train", "held_out")
LARGEST = 2**28  # numbers in a training set whose closed form is computed: 2 GiB in float64
KEPT = 2**24  # numbers drawn once and kept in memory: 64 MiB
Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]  # x0, x1 [B, ...], t [B], y [B] -> [B]


@dataclass(frozen=True)
class Draws:
    """Which (sample, noise, time) the loss is evaluated at: ``per_bin`` in each of ``bins`` bins of [0, 1].

    Times are the midpoints of equal intervals. Each pass over a split visits every sample once, in a random order, so that
    samples are visited equally often up to one. Both splits have the same noise and times.
    """

    bins: int
    per_bin: int
    base_seed: int

    def __len__(self) -> int:
        return self.bins * self.per_bin

    @property
    def edges(self) -> np.ndarray:
        """``[bins + 1]``."""
        return np.linspace(0, 1, self.bins + 1)

    def times(self, places: Tensor) -> Tensor:
        """``[B]`` float64."""
        return (places.double() + 0.5) / len(self)

    def noise(self, places: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``[B, *shape]`` float32."""
        return noise(places, shape, self.base_seed, PROFILE)

    def samples(self, count: int) -> Tensor:
        """``[len(self)]`` int64: which of a split's ``count`` samples belongs to each draw."""
        passes = -(-len(self) // count)
        order = np.concatenate([epoch_order(self.base_seed, e, count) for e in range(passes)])
        return torch.from_numpy(order[: len(self)])


def budget(seeds: int, steps: int, bins: int, most: int = 200) -> int:
    """Returns the draws per bin that cost at most a tenth of sampling ``seeds`` in ``steps``, between 2 and ``most``."""
    return max(2, min(most, seeds * steps // (10 * len(SIDES) * bins)))


class LossOverTime:
    """Evaluates the loss at the same draws for the network, the closed form and the Gaussian.

    Args:
        data: prepared data.
        path: the bridge.
        draws: where to evaluate.
        batch: draws evaluated together.
        device: where.
        share: (rank, processes): every process evaluates its part.
    """

    def __init__(
        self,
        data: Samples,
        path: LinearPath,
        draws: Draws,
        batch: int,
        device: torch.device | str = "cpu",
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.data, self.path, self.draws, self.batch, self.device = data, path, draws, batch, torch.device(device)
        self.splits: dict[str, Split] = {"train": data.train_split, "held_out": data.held_out_split}
        self.samples = {side: draws.samples(len(split)) for side, split in self.splits.items()}
        self.share = share
        # Drawing noise sample by sample takes longer than a small network.
        self._keeps = 2 * len(SIDES) * len(draws) * int(np.prod(data.shape)) <= KEPT
        self._kept: dict[tuple[str, int], tuple[Tensor, Tensor, Tensor, Tensor | None]] = {}

    def losses(self, loss: Loss, side: str) -> Tensor:
        """``[len(draws)]`` float64 losses of this process's draws, zero elsewhere; every process calls ``loss`` equally often."""
        found = torch.zeros(len(self.draws), dtype=torch.float64)
        rank, world = self.share
        rounds = -(-len(self.draws) // world)
        for start in range(0, rounds, self.batch):
            places = torch.arange(start, min(start + self.batch, rounds)) * world + rank
            mine = places < len(self.draws)
            places = places.clamp_max(len(self.draws) - 1)
            key = (side, start)
            batch = self._kept[key] if key in self._kept else self._batch(places, side)
            if self._keeps:
                self._kept[key] = batch
            values = loss(*batch).double().cpu()
            found[places[mine]] = values[mine]
        return found

    def _batch(self, places: Tensor, side: str) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        split, index = self.splits[side], self.samples[side][places]
        # Not ``fetch``, which gives the moments of a posterior for training on latents: their means, as for the held-out ones.
        x1 = self.data.encode(split.x[index].to(self.device))
        x0 = self.draws.noise(places, tuple(x1.shape[1:])).to(x1)
        return x0, x1, self.draws.times(places).to(x1), None if split.y is None else split.y[index].to(self.device)

    @cached_property
    def references(self) -> dict[tuple[str, str], Tensor]:
        """(field, side) -> losses: closed form on training samples, Gaussian on both; none where ``left_out`` says why."""
        if self.left_out:
            return {}
        points, labels = self._training_points()
        closed, gaussian = _ClosedForm(points, labels), GaussianVelocity(points)
        found = {("closed_form", "train"): self.losses(self._loss_of(closed), "train")}
        return found | {("gaussian", side): self.losses(self._loss_of(gaussian), side) for side in SIDES}

    @property
    def left_out(self) -> str:
        """Why there are no references; empty if there are."""
        if self.path.sigma_min:
            return "The closed form and the Gaussian need a path with sigma_min = 0."
        if len(self.data.train_split) * int(np.prod(self.data.shape)) * (2 if self.data.flip else 1) > LARGEST:
            return "The training set is too large for the closed form and the Gaussian."
        return ""

    def _training_points(self) -> tuple[Tensor, Tensor | None]:
        """All that training sees, mirror images included, and its labels."""
        stored, views = self.data.memorization_reference()
        index = torch.arange(len(stored))
        points = self.data.encode(torch.as_tensor(stored[index]).to(self.device))
        y = self.data.train_split.y
        labels = None if y is None else y[index if views is None else views].to(self.device)
        if self.data.flip and views is None:
            points, labels = torch.cat([points, points.flip(-1)]), None if labels is None else labels.repeat(2)
        return points, labels

    def _loss_of(self, field: Any) -> Loss:
        field = field.to(self.device)

        def loss(x0: Tensor, x1: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
            t = t.double()
            x_t, target = self.path(x0.double(), x1.double(), t)
            return (field(x_t, t, y) - target).square().flatten(1).mean(1)

        return loss


class _ClosedForm(torch.nn.Module):
    """The closed form of each sample's own class, or of all samples where there are no labels."""

    def __init__(self, points: Tensor, labels: Tensor | None) -> None:
        super().__init__()
        classes = [-1] if labels is None else labels.unique().tolist()
        fields = {str(k): EmpiricalVelocity(points if labels is None else points[labels == k]) for k in classes}
        self.fields = torch.nn.ModuleDict(fields)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        if y is None:
            return self.fields["-1"](x, t)
        found = torch.empty_like(x)
        for k, field in self.fields.items():
            rows = y == int(k)
            if rows.any():
                found[rows] = field(x[rows], t[rows])
        return found


# From losses to numbers

# (field, side) minus (field, side): what is reported as a paired difference.
DIFFERENCES = {
    "gap": (("network", "held_out"), ("network", "train")),
    "above_closed_form": (("network", "train"), ("closed_form", "train")),
    "above_gaussian": (("network", "held_out"), ("gaussian", "held_out")),
}


def summary(losses: Mapping[tuple[str, str], Tensor], measured: LossOverTime) -> dict[str, Any]:
    """The losses as JSON keeps them: per bin and over all times, each with its 95% interval.

    On the training side the samples are all there are, so intervals are about noise and time. Held-out samples stand for
    others, so their draws count as one per sample.
    """
    draws = measured.draws
    curves = {f"{field}/{side}": _curve(values, measured, side) for (field, side), values in losses.items()}
    pairs = {name: pair for name, pair in DIFFERENCES.items() if all(key in losses for key in pair)}
    return {
        "edges": draws.edges.tolist(),
        "per_bin": draws.per_bin,
        "left_out": measured.left_out,
        "curves": curves,
        "differences": {
            name: _curve(losses[here] - losses[there], measured, here[1]) for name, (here, there) in pairs.items()
        },
    }


def _curve(values: Tensor, measured: LossOverTime, side: str) -> dict[str, Any]:
    cluster = measured.samples[side].numpy() if side == "held_out" else np.arange(len(values))
    array, per_bin = values.numpy(), measured.draws.per_bin
    bins = [slice(k * per_bin, (k + 1) * per_bin) for k in range(measured.draws.bins)]
    found = [_mean(array[part], cluster[part]) for part in bins]
    return {
        **{name: [_finite(getattr(each, name)) for each in found] for name in ("value", "low", "high")},
        "all": [_finite(end) for end in _over_bins(found, array, cluster, bins)],
    }


def _finite(value: float) -> float | None:
    """None for the ends of an interval that one sample has not."""
    return value if np.isfinite(value) else None


def _mean(values: np.ndarray, cluster: np.ndarray) -> Estimate:
    """The mean, with an error that takes the values of one cluster as one observation."""
    return Estimate.of(float(values.mean()), _by_cluster(values - values.mean(), cluster))


def _by_cluster(centred: np.ndarray, cluster: np.ndarray) -> np.ndarray:
    """``[clusters]``: contributions whose mean square over their number is the mean's squared error."""
    _, place = np.unique(cluster, return_inverse=True)
    sums = np.bincount(place, centred)
    return sums * len(sums) / len(centred)


def _over_bins(found: list[Estimate], values: np.ndarray, cluster: np.ndarray, bins: list[slice]) -> Iterator[float]:
    """The mean over all times with its interval: the loss differs from bin to bin, which is no error."""
    centred = values - np.concatenate([np.full(part.stop - part.start, e.value) for e, part in zip(found, bins)])
    return iter(Estimate.of(float(values.mean()), _by_cluster(centred, cluster)))
