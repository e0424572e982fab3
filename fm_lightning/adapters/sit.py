"""Public SiT checkpoints, and REPA's, as velocities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fm_lightning.adapters.reversed import Reversed
from fm_lightning.adapters.state_dicts import Weights, copy_weights, read_weights
from fm_lightning.errors import OldError
from fm_lightning.nets.sit import MODELS, SiT

PROJECTORS = "projectors."  # REPA trains these beside the network


def load_sit(path_or_state: str | Path | Mapping[str, Any], model: str = "XL/2", **arguments: Any) -> SiT:
    """The network of a SiT checkpoint, in evaluation mode.

    Samples' shape, number of classes and ``learn_sigma`` are read off the weights.

    Args:
        path_or_state: see ``read_weights``: SiT's public files, or what its training script saves (``ema`` is taken).
        model: the size that the file holds.
        **arguments: other arguments of ``SiT``: ``width``, ``depth``, ``heads``, ``patch`` of no published size, ``shape`` of
            samples that are not square. The number of heads leaves no trace in the weights: a wrong one goes unnoticed.

    Raises:
        UserError: as ``read_weights``; the file holds another size (which is named) or no SiT; it is REPA's.
    """
    return _sit(read_weights(path_or_state), model, arguments)


def load_repa(path_or_state: str | Path | Mapping[str, Any], model: str = "XL/2", **arguments: Any) -> Reversed:
    """The network of a REPA checkpoint on our clock, in evaluation mode: ``-net(x, 1 - t, y)``. Arguments as ``load_sit``."""
    return Reversed(_sit(without_projectors(read_weights(path_or_state)), model, arguments)).eval()


def without_projectors(weights: Weights) -> Weights:
    """REPA's weights without those that only its training needs."""
    kept = {key: value for key, value in weights.tensors.items() if not key.startswith(PROJECTORS)}
    return Weights(kept, weights.source)


def check_sit(weights: Weights, wanted: str) -> None:
    """Refuses weights of another SiT than the one ``wanted``, naming the one that they are of.

    Raises:
        UserError: another width, depth or patch; REPA's; no SiT at all.
    """
    if any(key.startswith(PROJECTORS) for key in weights.tensors):
        raise OldError(
            f"{weights.source} with {PROJECTORS}* given",
            "a SiT: REPA's clock and sign are turned",
            "use load_repa, or wrap the network in fm_lightning.adapters.Reversed",
        )
    if (holds := size_of(weights)) != wanted:
        raise OldError(
            f"{weights.source} given, which holds {holds}", f"{wanted}", "build the network that the file holds"
        )


def size_of(weights: Weights) -> str:
    """``"SiT-B/2"``, or the numbers where no published size has them."""
    try:
        patches = weights.tensors["x_embedder.proj.weight"]
        depth = 1 + max(int(key.split(".")[1]) for key in weights.tensors if key.startswith("blocks."))
    except (KeyError, ValueError) as error:
        raise OldError(
            f"{weights.source} with the keys {', '.join(list(weights.tensors)[:4])}, ... given",
            "a SiT's (x_embedder.proj.weight, blocks.0.attn.qkv.weight, ...)",
            "give a file of a SiT",
        ) from error
    return size_name(len(patches), depth, patches.shape[-1])


def size_name(width: int, depth: int, patch: int) -> str:
    """How a SiT of this size is called."""
    for name, (*size, side) in MODELS.items():
        if (size[0], size[1], side) == (width, depth, patch):
            return f"SiT-{name}"
    return f"a SiT of width {width}, depth {depth} and patch {patch}"


def _sit(weights: Weights, model: str, arguments: Mapping[str, Any]) -> SiT:
    if model in MODELS:
        width, depth, _, patch = MODELS[model]
        size = {"width": width, "depth": depth, "patch": patch}
        check_sit(weights, size_name(**{key: arguments.get(key, value) for key, value in size.items()}))
    with torch.device("meta"):  # initial weights, which take their time, are not needed
        net = SiT(model=model, **(_read_off(weights) | dict(arguments)))
    net.to_empty(device="cpu")
    copy_weights(net, weights, "give the arguments that the file was trained with")
    return net.eval()


def _read_off(weights: Weights) -> dict[str, Any]:
    """The arguments of ``SiT`` that the weights tell, for square samples."""
    try:
        patches, tokens = weights.tensors["x_embedder.proj.weight"], weights.tensors["pos_embed"].shape[1]
        rows = len(weights.tensors["final_layer.linear.weight"])
    except KeyError as error:
        raise OldError(f"{weights.source} without {error} given", "a whole SiT", "fetch the file again") from error
    table = weights.tensors.get("y_embedder.embedding_table.weight")
    channels, patch = patches.shape[1], patches.shape[-1]
    side = patch * math.isqrt(tokens)
    return {
        "shape": (channels, side, side),
        "num_classes": 0 if table is None else len(table) - 1,
        "learn_sigma": rows == 2 * channels * patch**2,
    }
