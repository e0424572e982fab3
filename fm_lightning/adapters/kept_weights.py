"""Weights that training kept besides its result: earlier checkpoints, and averages of any length.

checkpoints/earlier/step-N.ckpt     the weights that a test would have measured at step N
checkpoints/averages/step-N.ckpt    two power-function averages of the weights at step N
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from fm_lightning.adapters.checkpoints import DATA, check_fits
from fm_lightning.adapters.power_average import coefficients, combine, exponent
from fm_lightning.errors import UserError
from fm_lightning.files import check_archive
from fm_lightning.hashes import text_hash

EARLIER, AVERAGES = "checkpoints/earlier", "checkpoints/averages"
HELD_BYTES = 1 << 30  # of all weights on a shelf; larger networks are read for every batch
T = TypeVar("T")
GONE = "Restore it, or compare again: doses are then chosen among the files that are left."


@dataclass(frozen=True)
class StoredWeights:
    """Weights on disk of a network that exists in memory.

    Attributes:
        content: names the weights: changes when they do.
        load: reads the network's state dict.
        rate: the learning rate at that step, where it was kept.
    """

    content: str
    load: Callable[[], Mapping[str, Tensor]]
    rate: float | None = None


def steps_kept(folder: Path, kind: str) -> dict[int, Path]:
    """Returns training step -> file, ascending, of the weights of one kind in a run's directory."""
    found = {path.stem.removeprefix("step-"): path for path in (folder / kind).glob("step-*.ckpt")}
    return dict(sorted((int(step), path) for step, path in found.items() if step.isdigit()))


def earlier_weights(folder: Path, last: int, net: nn.Module, trained_on: str | None = None) -> dict[int, StoredWeights]:
    """Returns step -> weights, ascending, of the earlier checkpoints of a run that was trained for ``last`` steps.

    Args:
        folder: the run's directory.
        last: training step of the weights that are compared.
        net: the network, whose shape the files must have.
        trained_on: hash of the training data; None if they are not known.

    Raises:
        UserError: a file of another network, of other data, or of another step than its name says.
    """

    def stored(step: int, path: Path) -> StoredWeights:
        about = _facts(path, step, net, trained_on)
        content = str(about["hash"])
        return StoredWeights(
            f"checkpoint:{content}", lambda: _network(_read(path, content)["state_dict"]), about.get("learning_rate")
        )

    return {step: stored(step, path) for step, path in steps_kept(folder, EARLIER).items() if step < last}


def rates_decay(kept: Mapping[int, StoredWeights]) -> bool:
    """Whether the learning rate fell by more than a tenth from one of the checkpoints to the latest one."""
    rates = [kept[step].rate for step in sorted(kept)]
    known = [rate for rate in rates if rate is not None]
    return bool(known) and known[-1] < 0.9 * max(known)


def averaged_weights(
    folder: Path, last: int, net: nn.Module, trained_on: str | None = None
) -> Callable[[float], StoredWeights] | None:
    """Returns ``sigma_rel`` -> the average of that length at step ``last``; None where no snapshots reach that step.

    Arguments and errors are those of ``earlier_weights``.
    """
    files = {step: path for step, path in steps_kept(folder, AVERAGES).items() if step <= last}
    if last not in files:
        return None
    contents = {step: str(_facts(path, step, net, trained_on)["hash"]) for step, path in files.items()}

    def load(sigma_rel: float) -> Mapping[str, Tensor]:
        snapshots = {step: _read(path, contents[step]) for step, path in files.items()}
        pairs = [(step, exponent(length)) for step, found in snapshots.items() for length in found["sigma_rel"]]
        states = [_network(state) for found in snapshots.values() for state in found["averages"]]
        factors = coefficients([p[0] for p in pairs], [p[1] for p in pairs], last, exponent(sigma_rel))
        return combine(states, factors.tolist())

    return lambda sigma_rel: StoredWeights(
        f"average:{text_hash(float(sigma_rel).hex(), *contents.values())}", lambda: load(sigma_rel)
    )


class Shelf(Generic[T]):
    """Keeps in memory what was used last, up to ``HELD_BYTES``: small networks are not read again for every batch.

    Args:
        tensors: a thing's tensors, by whose bytes it counts.
    """

    def __init__(self, tensors: Callable[[T], Mapping[str, Tensor]]) -> None:
        self._tensors = tensors
        self._held: dict[str, T] = {}  # least recently used first

    def get(self, name: str, load: Callable[[], T]) -> T:
        """The thing of that name, loaded where it is not held."""
        found = self._held.pop(name) if name in self._held else load()
        self._held[name] = found
        while sum(x.nbytes for held in self._held.values() for x in self._tensors(held).values()) > HELD_BYTES:
            del self._held[next(iter(self._held))]
        return found


class SharedNetwork:
    """One copy of a network that takes on stored weights in turn, so that many of them need the memory of one.

    Args:
        net: the network; it stays as it is.
    """

    def __init__(self, net: nn.Module) -> None:
        self._original = net
        self._copy: nn.Module | None = None
        self._held = ""
        self._states: Shelf[Mapping[str, Tensor]] = Shelf(lambda state: state)

    def holding(self, weights: StoredWeights) -> nn.Module:
        """Returns the copy with these weights, in evaluation mode, on the device of the original.

        Raises:
            UserError: weights of another network, or a file that has disappeared.
        """
        if self._held != weights.content:
            state = self._states.get(weights.content, weights.load)
            check_fits({f"net.{k}": v for k, v in state.items()}, _Holder(self._original), "of the kept weights")
            if self._copy is None:
                self._copy = copy.deepcopy(self._original).eval().requires_grad_(False)
            self._held = ""  # in case loading fails half way
            self._copy.load_state_dict(state)
            self._held = weights.content
        assert self._copy is not None
        return self._copy


class _Holder(nn.Module):
    """Gives a network's keys the prefix that they have in a checkpoint."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net


def _facts(path: Path, step: int, net: nn.Module, trained_on: str | None) -> dict[str, Any]:
    """What a file says of itself, its weights unread; checked against what is compared."""
    try:
        # Memory-mapped: names and shapes are read, and no weights.
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        states = [found["state_dict"]] if "state_dict" in found else list(found["averages"])
        there, data, _ = int(found["global_step"]), found.get(DATA, {}).get("training"), found["hash"]
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged, or training did not keep it for comparisons.", "Delete it.") from error
    if there != step:
        raise UserError(f"{path} holds the weights of step {there:,}.", "Give it the name that it had, or delete it.")
    if None not in (data, trained_on) and data != trained_on:
        raise UserError(f"{path} was trained on other data than are compared here.", "Delete it.")
    for state in states:
        check_fits(state, _Holder(net), path)
    return {key: value for key, value in found.items() if key not in ("state_dict", "averages")}


def _read(path: Path, content: str) -> dict[str, Any]:
    try:
        check_archive(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} has disappeared since the doses were chosen.", GONE) from error
    if found["hash"] != content:
        raise UserError(f"{path} has changed since the doses were chosen.", GONE)
    return found


def _network(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("net."): value for name, value in state.items()}
