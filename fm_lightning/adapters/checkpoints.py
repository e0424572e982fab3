"""Checkpoints: plain data, opened with ``weights_only=True``, verified, and refused in one line where they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.files import DamagedFile, check_archive

DATA = "fm_lightning_data"  # what the network was trained on: the hash of the training data, and their space
CONFIG = "fm_lightning_config"  # the run's resolved configuration, which makes a checkpoint describe itself


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; every byte of it is verified by its checksum.

    Raises:
        UserError: the file is missing, damaged, or no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"There is no checkpoint {path}.", "Use one that training wrote: runs/NAME/checkpoints/last.ckpt"
        )
    try:
        check_archive(path)  # torch.load ignores the checksums
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except DamagedFile as error:
        raise DamagedFile(path, error.reason, _newest_whole(path)) from error
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError) as error:
        reason = "it holds more than plain data" if isinstance(error, pickle.UnpicklingError) else error
        raise DamagedFile(path, reason, _newest_whole(path)) from error
    if not isinstance(checkpoint, dict) or CONFIG not in checkpoint or "state_dict" not in checkpoint:
        raise UserError(
            f"{path} was not written by fm-lightning.", "Use one that training wrote: runs/NAME/checkpoints/last.ckpt"
        )
    return checkpoint


def _newest_whole(path: Path) -> str:
    """What can be used in place of a damaged checkpoint."""
    others = [file for file in path.parent.glob("*.ckpt") if file != path]
    for file in sorted(others, key=lambda file: file.stat().st_mtime, reverse=True):
        with suppress(DamagedFile):
            check_archive(file)
            return f"Use the newest whole checkpoint next to it: {file}"
    return "There is no other checkpoint next to it; restore it, or train again."


def check_fits(state: Mapping[str, Tensor], module: nn.Module, path: str | Path) -> None:
    """Compares names and shapes before anything is loaded.

    Raises:
        UserError: names the first key that does not fit, with both shapes.
    """
    expected = module.state_dict()
    for key in [*expected, *(k for k in state if k not in expected)]:
        there = list(state[key].shape) if key in state else "missing"
        here = list(expected[key].shape) if key in expected else "no such key"
        if there != here:
            raise UserError(
                f"{path} does not fit the configured network: {key} is {there} in the checkpoint and {here} in the network.",
                "Use the configuration that it was trained with.",
            )


def network_of(checkpoint: Mapping[str, Any], path: str | Path) -> nn.Module:
    """The velocity network of a checkpoint, built from the configuration inside it, in evaluation mode.

    Raises:
        UserError: as ``check_fits``.
    """
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "net")
    config = parser.parse_object({"net": checkpoint[CONFIG]["model"]["net"]})
    net = parser.instantiate_classes(config).net
    state = network_state(checkpoint)
    check_fits(state, net, path)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)


def network_state(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of the network in a checkpoint: the average where training kept one."""
    state = checkpoint["state_dict"]
    return {key.removeprefix("net."): value for key, value in state.items() if key.startswith("net.")}
