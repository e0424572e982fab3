"""Trajectory: what integration returns and the only thing that metrics and callbacks read.

Kinetic path energy (arXiv 2602.07928) of one sample, with the velocity that was really executed:

    E = 1/2 * integral_0^1 || dx/dt ||^2 dt,        dx/dt = eta(t) v(x, t)

The squared norm sums over every dimension of the sample, so the energy has the sample space's unit, squared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

PER_STEP = ("energy", "guidance_gap")  # [S, B]; all else of a sample is [B, ...]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A batch of B samples and the energy of each one's trajectory, in S steps.

    Attributes:
        x1: ``[B, ...]`` samples in the model's own space.
        energy: ``[S, B]`` float32 (float64 for a float64 state), kinetic energy spent in each step.
        field_energy: ``[B]`` the energy of the unshaped field along the same path, ``1/2 int ||v||^2 dt``.
        displacement: ``[B]`` ``1/2 ||x1 - x0||^2``, the energy of the straight line between the same ends; NaN of an SDE, whose
            path is not the velocity's alone.
        times: ``[S + 1]`` float64, the edges of the steps on the host.
        gain: ``[S]`` float64, the gain at each step's left edge, on the host.
        nfe: network evaluations a sample that sampling with this schedule alone costs, guidance's second one included.
        labels: ``[B]`` int64 class labels, or None.
        seeds: ``[B]`` int64 seeds of the initial noise, or None.
        guidance_energy: ``[B]`` the share of ``field_energy`` due to guidance,
            ``1/2 int ||v||^2 dt - 1/2 int ||v_cond||^2 dt`` along the guided path; None unless recorded (``Guided``).
        guidance_gap: ``[S, B]`` ``||v_cond - v_uncond||`` at each step's left edge, NaN where v_uncond was not evaluated;
            None unless recorded.
    """

    x1: Tensor
    energy: Tensor
    field_energy: Tensor
    displacement: Tensor
    times: Tensor
    gain: Tensor
    nfe: int
    labels: Tensor | None = None
    seeds: Tensor | None = None
    guidance_energy: Tensor | None = None
    guidance_gap: Tensor | None = None

    @classmethod
    def still(cls, x1: Tensor, labels: Tensor | None = None, seeds: Tensor | None = None) -> Trajectory:
        """Samples that were not integrated, such as real images: a trajectory of no steps and no energy."""
        nothing, edges = x1.new_zeros(len(x1)), torch.zeros(1, dtype=torch.float64)
        return cls(x1, x1.new_zeros(0, len(x1)), nothing, nothing, edges, edges[:0], 0, labels, seeds)

    def __len__(self) -> int:
        return self.x1.shape[0]

    @property
    def kpe(self) -> Tensor:
        """``[B]`` kinetic path energy."""
        return self.energy.sum(0)

    @property
    def excess(self) -> Tensor:
        """``[B]`` energy above the straight line's: what curvature and changing speed cost (at least 0)."""
        return self.kpe - self.displacement

    @property
    def power(self) -> Tensor:
        """``[S, B]`` energy per unit of time in each step."""
        dt = torch.diff(self.times).to(self.energy.device, self.energy.dtype, non_blocking=self.energy.is_cuda)
        return self.energy / dt[:, None]

    def early(self, split: float) -> Tensor:
        """``[B]`` energy of the steps whose left edge is below ``split``."""
        return self.energy[: self._split_index(split)].sum(0)

    def late(self, split: float) -> Tensor:
        """``[B]`` energy of the steps whose left edge is at or above ``split``; ``early + late = kpe``."""
        return self.energy[self._split_index(split) :].sum(0)

    def _split_index(self, split: float) -> int:
        # The edges ascend and lie on the host: counting costs no synchronisation with the device.
        return int((self.times[:-1] < split).sum())

    def to(self, *args: Any, **kwargs: Any) -> Trajectory:
        """Moves the per-sample tensors (Lightning's predict loop asks for it); ``times`` and ``gain`` stay on the host."""
        moved: dict[str, Any] = {name: value.to(*args, **kwargs) for name, value in self._per_sample()}
        return replace(self, **moved)

    def __getitem__(self, rows: slice | Tensor) -> Trajectory:
        """The samples ``rows`` (a slice or an index tensor) alone."""
        parts: dict[str, Any] = {name: v[:, rows] if name in PER_STEP else v[rows] for name, v in self._per_sample()}
        return replace(self, **parts)

    @classmethod
    def joined(cls, some: Sequence[Trajectory]) -> Trajectory:
        """Trajectories of one schedule as one batch, in their order."""
        parts: dict[str, Any] = {
            name: torch.cat([getattr(each, name) for each in some], int(name in PER_STEP))
            for name, _ in some[0]._per_sample()
        }
        return replace(some[0], **parts)

    def _per_sample(self) -> list[tuple[str, Tensor]]:
        """Name and value of what there is for each sample."""
        names = (field.name for field in fields(self) if field.name not in ("times", "gain", "nfe"))
        return [(name, value) for name in names if (value := getattr(self, name)) is not None]
