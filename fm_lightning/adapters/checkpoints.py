"""Checkpoints: plain data only, opened with ``weights_only=True``, and refused in one line where they do not fit."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fm_lightning.errors import OldError

CONFIG = "fm_lightning_config"  # the run's resolved configuration, which makes a checkpoint describe itself


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU.

    Raises:
        UserError: the file is missing, truncated, or no checkpoint of this package.
    """
    path = Path(path)
    if not path.is_file():
        raise OldError(
            f"checkpoint {path} given", "an existing file", "type --ckpt_path runs/NAME/checkpoints/last.ckpt"
        )
    remedy = "type --ckpt_path with a file that `fm-lightning fit` wrote, e.g. runs/NAME/checkpoints/last.ckpt"
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError, KeyError) as error:
        what = "holds more than plain data" if isinstance(error, pickle.UnpicklingError) else "cannot be read"
        raise OldError(f"checkpoint {path} {what} (truncated or foreign)", "a whole checkpoint", remedy) from error
    if not isinstance(checkpoint, dict) or CONFIG not in checkpoint or "state_dict" not in checkpoint:
        raise OldError(f"checkpoint {path} was not written by fm-lightning", "one that was", remedy)
    return checkpoint


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
            raise OldError(
                f"checkpoint {path} does not fit the configured network: {key} is {there} in the checkpoint",
                f"{here}",
                "type the configuration that the run was trained with (-c runs/NAME/config.yaml)",
            )


def load_network(path: str | Path) -> nn.Module:
    """The velocity network of a checkpoint, built from the configuration inside it, in evaluation mode.

    It holds the averaged weights where training kept an average.

    Raises:
        UserError: as ``read_checkpoint`` and ``check_fits``.
    """
    from jsonargparse import ArgumentParser

    checkpoint = read_checkpoint(path)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(nn.Module, "net")
    config = parser.parse_object({"net": checkpoint[CONFIG]["model"]["net"]})
    net = parser.instantiate_classes(config).net
    state = {k.removeprefix("net."): v for k, v in checkpoint["state_dict"].items() if k.startswith("net.")}
    check_fits(state, net, path)
    net.load_state_dict(state)
    return net.eval().requires_grad_(False)
