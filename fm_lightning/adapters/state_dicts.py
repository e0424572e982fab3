"""State dicts as people leave them: in safetensors or torch files, alone or inside a checkpoint, with prefixes of wrappers."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fm_lightning.errors import UserError
from fm_lightning.files import DamagedFile, check_archive

# Where checkpoints keep the weights that training changes.
RAW = ("state_dict", "model", "net_model", "model_state_dict", "net")
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.")  # of DDP, of torch.compile, of a module around the network
INFIXES = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module.")
AVERAGE = re.compile(r"(?:^|[^a-z])(ema\d*|average|averaged|avg|swa|polyak|shadow)(?:$|[^a-z])|EMA|[a-z]Ema(?![a-z])")
LIGHTNING = "current_model_state"  # where Lightning's averaging keeps the raw weights: ``state_dict`` is the average
OURS = "fm_lightning_config"  # checkpoints of this package: what ``state_dict`` holds is what tests measure
IN_MEMORY = "the state dict"


@dataclass(frozen=True)
class Weights:
    """Tensors by name, and the place where they were found: ``"sit.pt (ema)"``."""

    tensors: dict[str, Tensor]
    source: str

    def readings(self) -> Iterator[Weights]:
        """These weights, then the same without the first wrapper's prefix, without the second's, and so on."""
        weights: Weights | None = self
        while weights is not None:
            yield weights
            weights = _without_wrapper(weights)

    def unwrapped(self) -> Weights:
        """The weights without any wrapper's prefix."""
        *_, last = self.readings()
        return last


def read_weights(path_or_state: str | Path | Mapping[str, Any]) -> Weights:
    """Reads a network's weights from a file, or from what was loaded from one, onto the CPU.

    Args:
        path_or_state: a ``.safetensors`` file; a file of ``torch.save``, read with ``weights_only=True``; a state dict; or
            a checkpoint that holds one under ``ema``, ``model_ema``, ``state_dict``, ``model``, ... An average is
            preferred to the weights that it was taken of.

    Raises:
        UserError: the file is missing, damaged or holds more than plain data; it holds no weights (its keys are listed),
            or several between which the names do not decide (they are listed).
    """
    if isinstance(path_or_state, Mapping):
        content, source = path_or_state, IN_MEMORY
    elif isinstance(path_or_state, str | Path):
        content, source = _read(Path(path_or_state)), str(path_or_state)
    else:
        raise UserError(f"A {type(path_or_state).__name__} holds no weights.", "Pass a file or a state dict.")
    return _find(content, source)


def copy_weights(net: nn.Module, weights: Weights, remedy: str) -> str:
    """Copies weights into ``net``, whose names and shapes they must have exactly, wrappers' prefixes apart.

    Returns:
        the place where they were found.

    Raises:
        UserError: the first key that is missing, has another shape or no place; ``remedy`` says what to do.
    """
    wanted = net.state_dict()
    weights = _best_reading(weights, wanted)
    for key in wanted:
        if key not in weights.tensors:
            _refuse_infixes(weights, wanted)
            raise UserError(f"{weights.source} lacks {key} (of shape {list(wanted[key].shape)}).", remedy)
        value, given = wanted[key], weights.tensors[key]
        if given.shape != value.shape:
            raise UserError(
                f"{key} of {weights.source} has shape {list(given.shape)}, not {list(value.shape)}.", remedy
            )
        if given.is_floating_point() != value.is_floating_point():  # quantized weights would be copied as they are
            raise UserError(f"{key} of {weights.source} is {given.dtype}, not {value.dtype}.", remedy)
    for key in weights.tensors:
        if key not in wanted:
            raise UserError(f"{key} of {weights.source} has no place in the network.", remedy)
    net.load_state_dict(weights.tensors)
    return weights.source


def some(keys: Iterable[Any], limit: int = 4) -> str:
    """The first keys of many, for a message."""
    names = [str(key) for key in keys]
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "") if names else "none"


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(f"There is no file {path}.", "Pass the path of the weights.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path):
            check_archive(path, "Copy the file again.")  # torch.load ignores the checksums
        # SiT's own training script keeps its arguments as a Namespace, which is plain data too.
        with torch.serialization.safe_globals([argparse.Namespace]):
            # Mapped, so that only what is copied is read: half of a checkpoint belongs to the optimizer.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except DamagedFile:
        raise
    except Exception as error:  # of a text, the unpickler's own mistakes
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise UserError(
                f"{path} holds more than plain data.", "If you trust it, load it yourself and pass the state dict."
            ) from error
        raise UserError(
            f"{path} cannot be read as weights: it is truncated or foreign.", "Copy the file again."
        ) from error


def _find(content: Any, source: str, place: tuple[str, ...] = ()) -> Weights:
    """The weights in what a file holds, averages first; ``place`` is the keys on the way to ``content``."""
    here = f"{source} ({'/'.join(place)})" if place else source
    if _is_state(content):
        return Weights(dict(content), here)
    if not isinstance(content, Mapping):
        raise UserError(f"{here} holds a {type(content).__name__}.", "Pass a state dict: tensors by name.")
    parts = {str(key): value for key, value in content.items() if _is_part(value)}
    ours = OURS in content or ("state_dict" in parts and LIGHTNING in parts)
    averages = [] if ours else [key for key in parts if AVERAGE.search(key)]
    if len(averages) > 1:
        raise _ambiguous(source, [(*place, key) for key in averages])
    if averages:
        return _find(parts[averages[0]], source, (*place, averages[0]))
    chosen = next((key for key in RAW if isinstance(parts.get(key), Mapping)), None)
    if chosen is None:
        raise UserError(
            f"{here} holds no weights under a known name; its keys are {some(content, 8)}.",
            f"Pass the state dict, or a file with it under one of {', '.join(('ema', *RAW))}.",
        )
    if not ours:
        others = {key: value for key, value in parts.items() if key != chosen}
        alike: list[tuple[str, ...]] = [(key,) for key, value in others.items() if _same_names(value, parts[chosen])]
        if found := alike or list(_hidden_averages(others)):
            raise _ambiguous(source, [(*place, *keys) for keys in [(chosen,), *found]])
    return _find(parts[chosen], source, (*place, chosen))


def _is_state(content: Any) -> bool:
    """Whether it is tensors by name."""
    return isinstance(content, Mapping) and bool(content) and all(isinstance(v, Tensor) for v in content.values())


def _is_part(content: Any) -> bool:
    """Whether it may be weights: a mapping with names or a list, with a tensor somewhere that is not a single number."""
    if isinstance(content, Mapping):
        return all(isinstance(key, str) for key in content) and any(map(_is_tensor_or_part, content.values()))
    return isinstance(content, list | tuple) and any(map(_is_tensor_or_part, content))


def _is_tensor_or_part(content: Any) -> bool:
    return content.ndim > 0 if isinstance(content, Tensor) else _is_part(content)


def _hidden_averages(parts: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The keys on the way to averages inside other parts, such as a callback's state."""
    for key, value in parts.items():
        if isinstance(value, Mapping):
            inside = {str(k): v for k, v in value.items() if _is_part(v)}
            yield from ((key, k) for k in inside if AVERAGE.search(k))
            yield from (
                (key, *rest) for rest in _hidden_averages({k: inside[k] for k in inside if not AVERAGE.search(k)})
            )


def _same_names(one: Any, other: Any) -> bool:
    if not (_is_state(one) and _is_state(other)):
        return False
    names = [Weights(dict(part), "").unwrapped().tensors.keys() for part in (one, other)]
    return names[0] == names[1]


def _ambiguous(source: str, places: list[tuple[str, ...]]) -> UserError:
    where = "".join(f"[{key!r}]" for key in places[-1])
    load = "state" if source == IN_MEMORY else f"torch.load({source!r})"
    return UserError(
        f"{source} holds several sets of weights: {', '.join('/'.join(keys) for keys in places)}.",
        f"Save the one you want to a file of its own: torch.save({load}{where}, 'weights.pt')",
    )


def _without_wrapper(weights: Weights) -> Weights | None:
    """The weights without the outermost wrapper's prefix; None where there is none."""
    tensors = weights.tensors
    if any(key.startswith("module.") for key in tensors):  # torch's AveragedModel counts next to its module
        tensors = {key: value for key, value in tensors.items() if key != "n_averaged"}
    for prefix in WRAPPERS:
        inside = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        if inside and len(inside) == len(tensors):
            return Weights(inside, weights.source)
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        head, _, tail = key.partition(".")
        groups.setdefault(head, {})[tail] = value
    averages = [head for head, group in groups.items() if AVERAGE.search(head) and _is_part(group)]
    raw = next((head for head in ("net", "model") if head in groups), None)
    if raw is None:
        return None
    # A module around the network keeps its average next to it: ``net.*`` and ``net_ema.*``.
    alike = [head for head in averages if _same_names(groups[head], groups[raw])]
    if len(alike) == len(averages) == 1:
        return Weights(groups[alike[0]], f"{weights.source} ({alike[0]}.*)")
    if averages:
        raise UserError(
            f"{weights.source} holds {raw}.* and {', '.join(f'{head}.*' for head in averages)}.",
            "Save the weights you want to a file of their own, without that prefix.",
        )
    # Other tensors, a loss's or a metric's, are no part of the network.
    return Weights(groups["net"], weights.source) if raw == "net" else None


def _best_reading(weights: Weights, wanted: Mapping[str, Tensor]) -> Weights:
    """The reading with exactly the wanted names; else the one with most of them, for the message."""
    readings: list[Weights] = []
    for reading in weights.readings():
        if reading.tensors.keys() == wanted.keys():
            return reading
        readings.append(reading)
    return max(readings[::-1], key=lambda reading: len(reading.tensors.keys() & wanted.keys()))


def _refuse_infixes(weights: Weights, wanted: Mapping[str, Tensor]) -> None:
    """Names a wrapper inside the keys where the network's names are found without it."""
    for infix in INFIXES:
        key = next((k for k in weights.tensors if f".{infix}" in k and k not in wanted), None)
        if key is not None and key.replace(infix, "") in wanted:
            raise UserError(
                f"The names in {weights.source} contain {infix!r}, for example {key}.",
                f"Pass the state dict with k.replace({infix!r}, '') for each of its names k.",
            )
