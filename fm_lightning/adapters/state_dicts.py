"""State dicts as people leave them: in safetensors or torch files, plain or inside a checkpoint, with prefixes of wrappers."""

from __future__ import annotations

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fm_lightning.errors import OldError, UserError

# Where checkpoints keep weights, averages first.
NESTINGS = ("ema", "ema_model", "ema_state_dict", "state_dict", "model", "net_model", "model_state_dict", "net")
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")  # of DDP, of torch.compile, of a module around the network


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and where they were found: ``"sit.pt (ema)"``."""

    tensors: dict[str, Tensor]
    source: str


def read_weights(path_or_state: str | Path | Mapping[str, Any]) -> Weights:
    """The network's weights in a file, or in what was loaded from one, on the CPU, without the wrappers' prefixes.

    Args:
        path_or_state: a ``.safetensors`` file; a file of ``torch.save``, read with ``weights_only=True``; a state dict; or
            a checkpoint that holds one under ``ema``, ``ema_model``, ``state_dict``, ``model``, ``net_model``, ... (the
            first of these: averages are preferred).

    Raises:
        UserError: the file is missing, damaged or holds more than plain data; no weights are found (the keys found are
            listed).
    """
    if isinstance(path_or_state, Mapping):
        content, source = path_or_state, "the state dict"
    elif isinstance(path_or_state, str | Path):
        content, source = _read(Path(path_or_state)), str(path_or_state)
    else:
        raise OldError(
            f"weights of type {type(path_or_state).__name__} given", "a file or a state dict", "give one of the two"
        )
    tensors, place = _tensors(content, source)
    return Weights(_unwrapped(tensors), source + (f" ({place})" if place else ""))


def copy_weights(net: nn.Module, weights: Weights, remedy: str) -> None:
    """Copies into ``net``, whose names and shapes they must have exactly.

    Raises:
        UserError: the first key that is missing, has another shape or no place; ``remedy`` says what to do.
    """
    wanted = net.state_dict()
    for key, value in wanted.items():
        shape = list(value.shape)
        if key not in weights.tensors:
            raise OldError(f"{weights.source} without {key} given", f"its shape {shape}", remedy)
        given = weights.tensors[key]
        if list(given.shape) != shape:
            raise OldError(f"{key} of shape {list(given.shape)} given by {weights.source}", f"{shape}", remedy)
        if given.is_floating_point() != value.is_floating_point():  # quantized weights would be copied as they are
            raise OldError(f"{key} of {given.dtype} given by {weights.source}", f"{value.dtype}", remedy)
    for key, given in weights.tensors.items():
        if key not in wanted:
            raise OldError(f"{key} of shape {list(given.shape)} given by {weights.source}", "no such key", remedy)
    net.load_state_dict(weights.tensors)


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise OldError(f"weights {path} given", "an existing file", "give the path of one")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # SiT's own training script keeps its arguments as a Namespace, which is plain data too.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, so that only what is copied is read: half of a checkpoint belongs to the optimizer.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path):
            raise OldError(
                f"weights {path} that hold more than plain data given",
                "tensors",
                "load the file yourself where you trust it, and give the state dict",
            ) from error
        raise _damaged(path) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> UserError:
    return OldError(
        f"weights {path} that cannot be read (truncated or foreign) given",
        "safetensors or a file of torch.save",
        "fetch the file again",
    )


def _tensors(content: Any, source: str) -> tuple[dict[str, Tensor], str]:
    """The first mapping of names to tensors, and the keys on the way to it."""
    if isinstance(content, Mapping) and content and all(isinstance(value, Tensor) for value in content.values()):
        return dict(content), ""
    if isinstance(content, Mapping):
        for key in NESTINGS:
            if isinstance(content.get(key), Mapping):
                tensors, place = _tensors(content[key], f"{source} ({key})")
                return tensors, f"{key}/{place}" if place else key
        found = ", ".join(map(str, list(content)[:8])) + (", ..." if len(content) > 8 else "")
        raise OldError(
            f"{source} with the keys {found or 'of nothing'} given",
            f"tensors by name, or these under one of {', '.join(NESTINGS)}",
            "give the part that holds the weights",
        )
    raise OldError(f"{source} holding a {type(content).__name__} given", "tensors by name", "give a state dict")


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without prefixes; where some keys belong to a ``net.`` and others do not, the network is what belongs."""
    for prefix in WRAPPERS:
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if inside and (prefix == "net." or len(inside) == len(tensors)):
            return _unwrapped(inside)
    return tensors
