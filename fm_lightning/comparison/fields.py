"""Other velocity fields to put beside the model's, under the same seeds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch

from fm_lightning.adapters.checkpoints import load_network
from fm_lightning.flow import EmpiricalVelocity
from fm_lightning.flow.integrate import Velocity

if TYPE_CHECKING:
    from fm_lightning.data.base import FlowData


class Field(ABC):
    """Another velocity field to put beside the model's, under the same seeds."""

    @abstractmethod
    def velocity(self, data: FlowData, device: torch.device) -> Velocity:
        """The field, ready on the device."""


class ClosedForm(Field):
    """The optimal velocity of the training subset itself: what a model that memorizes perfectly would do."""

    def velocity(self, data: FlowData, device: torch.device) -> Velocity:
        return EmpiricalVelocity(data.reference().to(device))


class Checkpoint(Field):
    """The network of another run.

    Args:
        path: a checkpoint written by this package.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def velocity(self, data: FlowData, device: torch.device) -> Velocity:
        return load_network(self.path).to(device)
