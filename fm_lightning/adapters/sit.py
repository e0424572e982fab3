"""Public SiT checkpoints, and REPA's, as velocities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fm_lightning.adapters.keywords import check_keywords
from fm_lightning.adapters.state_dicts import Weights, copy_weights, read_weights, some
from fm_lightning.errors import UserError
from fm_lightning.nets.sit import MODELS, SiT
from fm_lightning.nets.velocity import Velocity

PROJECTORS = "projectors."  # REPA trains these next to the network


def load_sit(path_or_state: str | Path | Mapping[str, Any], model: str = "XL/2", **arguments: Any) -> SiT:
    """The network of a SiT checkpoint, in evaluation mode.

    Samples' shape, number of classes and ``learn_sigma`` are read off the weights. REPA's files have the same names, and
    their clock runs the other way: with ``projectors.*`` they are refused, without these keys they cannot be told from
    SiT's, and the samples are wrong. Read them with ``load_repa``.

    Args:
        path_or_state: see ``read_weights``: SiT's public files, or what its training script saves (``ema`` is taken).
        model: the size that the file holds.
        **arguments: other arguments of ``SiT``: ``width``, ``depth``, ``heads``, ``patch`` of no published size, ``shape`` of
            samples that are not square. The number of heads leaves no trace in the weights: a wrong one goes unnoticed.

    Raises:
        UserError: as ``read_weights``; the file holds another size (which is named) or no SiT; it is REPA's.
    """
    return _sit(read_weights(path_or_state).unwrapped(), model, arguments)


def load_repa(path_or_state: str | Path | Mapping[str, Any], model: str = "XL/2", **arguments: Any) -> Reversed:
    """The network of a REPA checkpoint on our clock, in evaluation mode: ``-net(x, 1 - t, y)``. Arguments as ``load_sit``."""
    return Reversed(_sit(without_projectors(read_weights(path_or_state).unwrapped()), model, arguments)).eval()


class Reversed(Velocity):
    """``v(x, t, y) = -net(x, 1 - t, y)``: a network trained with data at t = 0 and velocity noise - data, on our clock.

    Args:
        net: the network on its own clock; the ``num_classes`` and ``null_label`` of a ``Velocity`` hold here too.
    """

    def __init__(self, net: Callable[..., Tensor]) -> None:
        super().__init__()
        if not callable(net):
            raise UserError(f"Reversed takes a network, not a {type(net).__name__}.", "Pass a function or a module.")
        self.net = net
        if isinstance(net, Velocity):
            self.num_classes, self.null_label = net.num_classes, net.null_label
            self.trained_on = (1 - net.trained_on[1], 1 - net.trained_on[0])

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        # t[:1] keeps the time of all samples one number, which networks embed once.
        return -self.net(x, (1 - t[:1]).expand(len(x)) if t.stride(0) == 0 else 1 - t, y)

    def evaluations(self, t: float) -> int:
        return self.net.evaluations(1 - t) if isinstance(self.net, Velocity) else 1

    def check_shape(self, shape: Sequence[int]) -> None:
        if isinstance(self.net, Velocity):
            self.net.check_shape(shape)


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
        raise UserError(
            f"{weights.source} holds {PROJECTORS}*: it is of REPA, whose clock and sign are reversed.",
            "Use load_repa, or wrap the network in fm_lightning.adapters.Reversed.",
        )
    if (holds := size_of(weights)) != wanted:
        raise UserError(f"{weights.source} holds {holds}, not {wanted}.", "Build the network that the file holds.")


def size_of(weights: Weights) -> str:
    """``"SiT-B/2"``, or the numbers where no published size has them."""
    try:
        patches = weights.tensors["x_embedder.proj.weight"]
        depth = 1 + max(int(key.split(".")[1]) for key in weights.tensors if key.startswith("blocks."))
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{weights.source} holds no SiT; its keys are {some(weights.tensors)}.",
            "Pass a file of a SiT (x_embedder.proj.weight, blocks.0.attn.qkv.weight, ...).",
        ) from error
    return size_name(len(patches), depth, patches.shape[-1])


def size_name(width: int, depth: int, patch: int) -> str:
    """How a SiT of this size is called."""
    for name, (*size, side) in MODELS.items():
        if (size[0], size[1], side) == (width, depth, patch):
            return f"SiT-{name}"
    return f"a SiT of width {width}, depth {depth} and patch {patch}"


def _sit(weights: Weights, model: str, arguments: Mapping[str, Any]) -> SiT:
    check_keywords("load_sit", SiT, arguments, skip=("model",))
    if model in MODELS:
        width, depth, _, patch = MODELS[model]
        size = {"width": width, "depth": depth, "patch": patch}
        check_sit(weights, size_name(**{key: arguments.get(key, value) for key, value in size.items()}))
    with torch.device("meta"):  # initial weights, which take their time, are not needed
        net = SiT(model=model, **(_read_off(weights) | dict(arguments)))
    net.to_empty(device="cpu")
    copy_weights(net, weights, "Pass the arguments that the network was trained with.")
    return net.eval()


def _read_off(weights: Weights) -> dict[str, Any]:
    """The arguments of ``SiT`` that the weights tell, for square samples."""
    try:
        patches, tokens = weights.tensors["x_embedder.proj.weight"], weights.tensors["pos_embed"].shape[1]
        rows = len(weights.tensors["final_layer.linear.weight"])
    except KeyError as error:
        raise UserError(f"{weights.source} lacks {error}.", "Pass the weights of a whole SiT.") from error
    table = weights.tensors.get("y_embedder.embedding_table.weight")
    channels, patch = patches.shape[1], patches.shape[-1]
    side = patch * math.isqrt(tokens)
    return {
        "shape": (channels, side, side),
        "num_classes": 0 if table is None else len(table) - 1,
        "learn_sigma": rows == 2 * channels * patch**2,
    }
