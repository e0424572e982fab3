"""Hashes: what decides whether something is still the same. SHA-256, written as hexadecimal digits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a second to import, and files need none of it
    from torch import Tensor, nn

DIGITS = 16  # of a name; a million names collide with a chance of 3e-8


def text_hash(*parts: object, digits: int = DIGITS) -> str:
    """Changes when one of the parts prints differently."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:digits]


def file_hash(path: Path) -> str:
    """64 digits for the bytes of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensor_hash(tensors: Iterable[tuple[str, Tensor]], digits: int = DIGITS) -> str:
    """Changes with the names, types, shapes and bytes of tensors, and with the order they come in.

    Args:
        tensors: (name, tensor) pairs.
        digits: of the result.
    """
    found = hashlib.sha256()
    for name, value in tensors:
        found.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        found.update(tensor_bytes(value))
    return found.hexdigest()[:digits]


def weights_hash(module: nn.Module) -> str:
    """Changes with the parameters and buffers of a network, including those that no checkpoint holds."""
    return tensor_hash(sorted([*module.named_parameters(), *module.named_buffers()]), digits=2 * DIGITS)


def tensor_bytes(value: Tensor) -> Any:
    """The bytes of a tensor, on the CPU, as a buffer."""
    import torch  # whoever has a tensor has loaded it already

    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
