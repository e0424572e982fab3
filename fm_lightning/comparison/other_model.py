"""The family "other model": networks that were trained otherwise, for example really shorter, as doses of a curve.

With a learning rate that decays, an earlier checkpoint understates what a shorter training does: its own rate had not yet
decayed. Runs that were trained to shorter lengths show it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from fm_lightning.adapters.checkpoints import DATA, read_checkpoint
from fm_lightning.adapters.kept_weights import Shelf
from fm_lightning.adapters.network import load_network
from fm_lightning.comparison.families import Family
from fm_lightning.comparison.rows import Row, StoredVelocity
from fm_lightning.data.samples import Samples
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule
from fm_lightning.hashes import weights_hash
from fm_lightning.nets.velocity import check_network

OTHER_MODEL = "other model"


def other_models(places: Sequence[str | Path | nn.Module]) -> Family:
    """Returns the family of other networks, to be passed among ``families``; dose k is the k-th of them.

    Args:
        places: run directories, checkpoints, exported folders, or networks, at least two; from the one that was trained most
            to the one that was trained least.

    Raises:
        UserError: fewer than two, two equal ones, or a file that cannot be read.
    """
    check_places(places)
    shelf: Shelf[nn.Module] = Shelf(lambda net: net.state_dict())
    models = [_Model(place, shelf) for place in places]
    contents = [model.content for model in models]
    for i, model in enumerate(models):
        if model.content in contents[:i]:
            raise UserError(f"Two other models have the weights of {model.name}.", "Leave one of them out.")

    def other(base: Schedule, dose: float) -> Row:
        model = models[round(dose) - 1]
        stored = StoredVelocity(model.content, model.load)
        return Row("family", base, velocity=stored, content=model.content, note=f"{OTHER_MODEL}, {model.name}")

    def check(data: Samples) -> None:
        for model in models:
            model.check(data)

    doses = tuple(float(k) for k in range(1, len(models) + 1))
    return Family(OTHER_MODEL, other, doses, existing=lambda base: (0.0, *doses), check=check)


def check_places(places: Sequence[str | Path | nn.Module]) -> None:
    """Raises UserError for fewer than two other models, and for one that does not exist."""
    if isinstance(places, (str, Path)) or len(places) < 2:
        count = 1 if isinstance(places, (str, Path)) else len(places)
        raise UserError(
            f"A curve needs two other models, not {count}.", "Name at least two, trained to different lengths."
        )
    for place in places:
        if not isinstance(place, nn.Module) and not _file(place).exists():
            raise UserError(f"There is no other model {_file(place)}.", "Name a run directory or a checkpoint.")


def _file(place: str | Path) -> Path:
    last = Path(place) / "checkpoints" / "last.ckpt"
    return last if last.exists() else Path(place)


class _Model:
    """Another network: where it is, what it holds, and its trained-on data where they are known."""

    def __init__(self, place: str | Path | nn.Module, shelf: Shelf[nn.Module]) -> None:
        self._shelf = shelf
        self._given: nn.Module | None = None
        self._data: dict[str, str] = {}
        if isinstance(place, nn.Module):
            self.name = type(place).__name__
            self._given = copy.deepcopy(place).eval().requires_grad_(False)
            self.content = f"model:{weights_hash(self._given)}"
        else:
            self.name, self._file = Path(place).name, _file(place)
            self._data = read_checkpoint(self._file).get(DATA, {}) if self._file.is_file() else {}
            net = load_network(self._file)
            self.content = f"model:{weights_hash(net)}"
            shelf.get(self.content, lambda: net)

    def load(self, device: torch.device) -> nn.Module:
        """The network on the device.

        Raises:
            UserError: its file has changed or disappeared.
        """
        net = self._given or self._shelf.get(self.content, self._read)
        return net.to(device)

    def _read(self) -> nn.Module:
        net = load_network(self._file)
        if f"model:{weights_hash(net)}" != self.content:
            raise UserError(f"{self._file} has changed since the doses were chosen.", "Compare again.")
        return net

    def check(self, data: Samples) -> None:
        """Raises UserError where the network was trained on other data, or cannot take these."""
        for fact, here in (("space", data.space), ("training", data.fingerprint if data.has_training_data else None)):
            there = self._data.get(fact)
            if None not in (there, here) and there != here:
                what = f"in the space {there!r}" if fact == "space" else "on other training data"
                raise UserError(f"The other model {self.name} was trained {what}.", "Leave it out of the other models.")
        try:
            check_network(self._given or self.load(torch.device("cpu")), data.shape, data.num_classes)
        except UserError as error:
            raise UserError(f"The other model {self.name} does not fit: {error.problem}", "Leave it out.") from error
