"""torchcfm's U-Net in our words: its arguments and its state dicts (those of guided-diffusion, its origin).

The two networks are the same function. They differ in the names of the weights, in 1x1 convolutions over
pixels (theirs have one spatial dimension), and in the order of the attention's rows (theirs: head, then q k
v, unless ``use_new_attention_order``; ours: q k v, then head).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fm_lightning.adapters.keywords import check_keywords
from fm_lightning.adapters.state_dicts import Weights, read_weights, some
from fm_lightning.errors import UserError
from fm_lightning.nets.unet import UNet
from fm_lightning.nets.unet_blocks import SelfAttention

# What UNetModelWrapper takes where channel_mult is not given, by the image's width.
_CHANNEL_MULT: dict[int, tuple[float, ...]] = {
    28: (1, 2, 2),
    32: (1, 2, 2, 2),
    64: (1, 2, 3, 4),
    128: (1, 1, 2, 3, 4),
    256: (1, 1, 2, 2, 4, 4),
    512: (0.5, 1, 1, 2, 2, 4, 4),
}

# Ours -> theirs, applied one after the other.
_NAMES: list[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"^out\.", "out.2."),
    (r"^norm\.", "out.0."),
    (r"^stem\.", "input_blocks.0.0."),
    (r"^down\.(\d+)\.", lambda match: f"input_blocks.{int(match[1]) + 1}."),
    (r"^middle\.", "middle_block."),
    (r"^up\.", "output_blocks."),
    (r"^time\.", "time_embed."),
    (r"^label\.", "label_emb."),
    (r"\.norm1\.", ".in_layers.0."),
    (r"\.conv1\.", ".in_layers.2."),
    (r"\.emb\.", ".emb_layers.1."),
    (r"\.norm2\.", ".out_layers.0."),
    (r"\.conv2\.", ".out_layers.3."),
    (r"\.skip\.", ".skip_connection."),
    (r"\.proj\.", ".proj_out."),
    (r"^(input_blocks.*)\.conv\.", r"\1.op."),
]


def load_torchcfm(path_or_state: str | Path | Mapping[str, Any], **arguments: Any) -> UNet:
    """torchcfm's ``UNetModelWrapper(**arguments)`` with these weights, as a ``UNet`` in eval mode.

    Args:
        path_or_state: see ``read_weights``: its ``state_dict()``, or a checkpoint of torchcfm's CIFAR-10 scripts, of which
            ``ema_model`` is taken; in memory or in a file.
        **arguments: those of ``UNetModelWrapper``, by name: ``dim``, ``num_channels``, ... The number of
            heads and the attention order leave no trace in the weights' shapes: wrong ones go unnoticed.

    Raises:
        UserError: as ``read_weights``; the first key that does not fit, with its shapes; an argument that is misspelt, missing
            or has no counterpart.
    """
    check_keywords("load_torchcfm", options, arguments)
    net = UNet(**options(**arguments))
    load(net, path_or_state, legacy_order=not arguments.get("use_new_attention_order", False))
    return net.eval()


def options(
    *,
    dim: Sequence[int],
    num_channels: int,
    num_res_blocks: int,
    channel_mult: Sequence[float] | None = None,
    learn_sigma: bool = False,
    class_cond: bool = False,
    num_classes: int = 1000,
    use_checkpoint: bool = False,
    attention_resolutions: str = "16",
    num_heads: int = 1,
    num_head_channels: int = -1,
    num_heads_upsample: int = -1,
    use_scale_shift_norm: bool = False,
    dropout: float = 0.0,
    resblock_updown: bool = False,
    use_fp16: bool = False,
    use_new_attention_order: bool = False,
) -> dict[str, Any]:
    """The arguments with which ``UNet`` is the network of ``UNetModelWrapper`` with these."""
    if learn_sigma:
        raise UserError(
            "load_torchcfm does not take learn_sigma=True: a velocity has no sigma.",
            "Load a network that was trained without it.",
        )
    if use_fp16:
        raise UserError("load_torchcfm does not take use_fp16=True.", "Leave it out and use autocast or .half().")
    if num_head_channels == -1 and num_heads_upsample not in (-1, num_heads):
        raise UserError(
            f"load_torchcfm needs num_heads_upsample={num_heads}, like num_heads, not {num_heads_upsample}.",
            "Use a network with equally many heads on the way up.",
        )
    width = dim[-1]
    if channel_mult is None and width not in _CHANNEL_MULT:
        raise UserError(
            f"load_torchcfm knows no channel_mult for dim={list(dim)}.",
            "Pass the channel_mult that the network was trained with.",
        )
    channel_mult = _CHANNEL_MULT[width] if channel_mult is None else channel_mult
    # torchcfm turns a resolution into the factor width // resolution, and skips factors that do not occur.
    factors = {width // int(resolution) for resolution in attention_resolutions.split(",")}
    return {
        "shape": tuple(dim),
        "num_channels": num_channels,
        "num_res_blocks": num_res_blocks,
        "channel_mult": tuple(channel_mult),
        "attention_resolutions": [width // 2**i for i in range(len(channel_mult)) if 2**i in factors],
        "num_heads": num_heads,
        "num_head_channels": None if num_head_channels == -1 else num_head_channels,
        "num_classes": num_classes if class_cond else 0,
        "dropout": dropout,
        "use_scale_shift_norm": use_scale_shift_norm,
        "resblock_updown": resblock_updown,
        "checkpoint": use_checkpoint,
    }


def load(net: nn.Module, path_or_state: str | Path | Mapping[str, Any] | Weights, legacy_order: bool = True) -> None:
    """Copies torchcfm's weights into ``net``, a ``UNet`` of the same architecture.

    Args:
        net: changed in place.
        path_or_state: see ``read_weights``.
        legacy_order: the attention's rows run over heads first (``use_new_attention_order=False``).

    Raises:
        UserError: as ``read_weights``; the first key that is missing, has another shape, or has no place in ``net``.
    """
    weights = path_or_state if isinstance(path_or_state, Weights) else read_weights(path_or_state).unwrapped()
    given, source = dict(weights.tensors), weights.source
    if not is_torchcfm(weights):
        raise UserError(
            f"{source} holds no U-Net of torchcfm; its keys are {some(given)}.",
            "Pass its state dict (time_embed.0.weight, input_blocks.0.0.weight, ...).",
        )
    advice = "Pass load_torchcfm the arguments that the checkpoint was trained with."
    loaded: dict[str, Tensor] = {}
    for name, wanted in net.state_dict().items():
        key = torchcfm_name(name)
        shape = wanted.shape[:3] if re.search(r"\.(qkv|proj_out)\.weight$", key) else wanted.shape
        if key not in given:
            raise UserError(f"{source} lacks {key} (of shape {list(shape)}).", advice)
        value = given.pop(key)
        if value.shape != shape:
            raise UserError(f"{key} of {source} has shape {list(value.shape)}, not {list(shape)}.", advice)
        loaded[name] = value.reshape(wanted.shape)
    for key in given:
        raise UserError(f"{key} of {source} has no place in the network.", advice)
    for name, layer in net.named_modules():
        if legacy_order and isinstance(layer, SelfAttention):
            for key in (f"{name}.qkv.weight", f"{name}.qkv.bias"):
                loaded[key] = loaded[key].unflatten(0, (layer.heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    net.load_state_dict(loaded)


def is_torchcfm(weights: Weights) -> bool:
    """Whether the names are those of torchcfm's (and guided-diffusion's) U-Net."""
    return "input_blocks.0.0.weight" in weights.tensors


def torchcfm_name(name: str) -> str:
    """``down.0.0.conv1.weight`` to ``input_blocks.1.0.in_layers.2.weight``."""
    for ours, theirs in _NAMES:
        name = re.sub(ours, theirs, name)
    return name
