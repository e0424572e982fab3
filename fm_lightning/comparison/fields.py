"""Other velocity fields, sampled from the same seeds as the model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from fm_lightning.adapters.network import load_network
from fm_lightning.comparison.rows import Row
from fm_lightning.data.samples import Samples
from fm_lightning.errors import UserError
from fm_lightning.flow import EmpiricalVelocity
from fm_lightning.flow.integrate import Velocity
from fm_lightning.hashes import weights_hash


class Field(ABC):
    """Another velocity field, sampled from the same seeds as the model.

    Attributes:
        of_training_data: whether it is made of them.
    """

    of_training_data = False

    @abstractmethod
    def velocity(self, data: Samples, device: torch.device) -> Velocity:
        """The field, ready on the device."""

    def check_data(self, data: Samples, name: str) -> None:
        """Raises UserError where the field ``name`` needs training data and there are none."""
        if self.of_training_data and not data.has_training_data:
            raise UserError(
                f"The field {name} ({type(self).__name__}) needs training data, and {type(data).__name__} has none.",
                "Name the training data, or remove the field.",
            )

    def row(self, data: Samples, device: torch.device, base: Row) -> Row:
        """The field sampled as ``base`` is; named by its weights, if it has any, and in a table by its values."""
        velocity = self.velocity(data, device)
        weights = weights_hash(velocity) if isinstance(velocity, nn.Module) else ""
        schedule = replace(base.schedule, guidance=None)  # which is the model's own
        return Row("field", schedule, velocity=velocity, content=f"{type(velocity).__name__}:{weights}")


class Given(Field):
    """A velocity that exists in memory.

    Args:
        field: ``v(x, t, y)``.
    """

    def __init__(self, field: Velocity) -> None:
        self.field = field

    def velocity(self, data: Samples, device: torch.device) -> Velocity:
        return self.field


class ClosedForm(Field):
    """The optimal velocity of the training subset itself: what a model that memorizes perfectly would do."""

    of_training_data = True

    def velocity(self, data: Samples, device: torch.device) -> Velocity:
        return EmpiricalVelocity(data.reference().to(device))


class Checkpoint(Field):
    """The network of another run.

    Args:
        path: a checkpoint written by this package.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():  # found now, not after training
            raise UserError(f"There is no checkpoint {path}.", "Pass for example runs/NAME/checkpoints/last.ckpt")
        self.path = path

    def velocity(self, data: Samples, device: torch.device) -> Velocity:
        return load_network(self.path).to(device)
