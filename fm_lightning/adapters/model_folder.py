"""A folder that holds a network for others to load, on a disk or on the Hub.

    model.safetensors    its weights
    config.json          its class and arguments, the space of its samples, hashes of the weights
    results.json         what was measured of it
    README.md            the model card

Nothing in it is code, and nothing in it is run: the class is one of ``fm_lightning.nets``, by its name.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from fm_lightning import nets
from fm_lightning.adapters.checkpoints import check_fits
from fm_lightning.adapters.data_space import DataSpace
from fm_lightning.adapters.keywords import check_keywords
from fm_lightning.errors import UserError
from fm_lightning.files import DamagedFile, write_whole
from fm_lightning.hashes import file_hash, weights_hash

FORMAT = 1  # of config.json
WEIGHTS, CONFIG, RESULTS, CARD = "model.safetensors", "config.json", "results.json", "README.md"
NETWORKS = ("Guided", "ResidualMLP", "SiT", "UNet")  # the classes of fm_lightning.nets that a file may name
AGAIN = "Copy the whole exported folder again."
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def described(net: Any) -> Any:
    """The ``class_path`` and ``init_args`` of a configuration, with class names of ``fm_lightning.nets`` only.

    Raises:
        UserError: names a class that is not among them.
    """
    if isinstance(net, Mapping) and "class_path" in net:
        path = str(net["class_path"])
        name = path.rpartition(".")[2]
        if not path.startswith("fm_lightning.nets.") or name not in NETWORKS:
            raise UserError(
                f"The network {path} cannot be rebuilt without its code.",
                f"Only {', '.join(NETWORKS)} of fm_lightning.nets can be exported.",
            )
        arguments = net.get("init_args") or {}
        return {"class": name, "init_args": {key: described(value) for key, value in arguments.items()}}
    return net


def built(description: Any, path: Path) -> nn.Module:
    """The network that ``described`` describes, with random weights.

    Raises:
        UserError: an unknown class, or arguments that it does not take; names the file ``path``.
    """
    name = description.get("class") if isinstance(description, Mapping) else None
    if name not in NETWORKS:
        raise UserError(
            f"{path} names the class {name}, which is not among {', '.join(NETWORKS)} of fm_lightning.nets.",
            "Load it with the program that wrote it.",
        )
    given = description.get("init_args")
    if not isinstance(given, Mapping):
        raise DamagedFile(path, "it has no arguments of the network", AGAIN)
    arguments = {
        key: built(value, path) if isinstance(value, Mapping) else tuple(value) if isinstance(value, list) else value
        for key, value in given.items()
    }
    kind = getattr(nets, name)
    check_keywords(f"{path}: {name}", kind, arguments)
    try:
        return kind(**arguments)
    except UserError:
        raise
    except Exception as error:  # of any type: the arguments have any type
        raise DamagedFile(path, f"{name} cannot be built ({error})", AGAIN) from error


def write_network(folder: Path, net: nn.Module, description: Mapping[str, Any], space: DataSpace, about: Any) -> None:
    """Writes ``model.safetensors`` and ``config.json`` of a network.

    Args:
        folder: exists.
        net: built from ``description``.
        description: see ``described``.
        space: of its samples.
        about: plain data on its training.

    Raises:
        UserError: the weights cannot be written.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in net.state_dict().items()}
    try:
        safetensors.torch.save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    except safetensors.SafetensorError as error:  # of a full disk, too
        raise UserError(
            f"Cannot write {folder / WEIGHTS}: {error}.", "Make room, then run the same command again"
        ) from error
    content = {
        "library_name": "fm_lightning",
        "format": FORMAT,
        "net": description,
        "space": space.to_dict(),
        "weights": {"sha256": file_hash(folder / WEIGHTS), "identity": weights_hash(net)},
        "training": about,
    }
    write_whole(folder / CONFIG, json.dumps(content, indent=2, ensure_ascii=False))
    shutil.copymode(folder / CONFIG, folder / WEIGHTS)  # safetensors writes files that only their owner can read


def load_folder(folder: Path) -> nn.Module:
    """The network in a folder, in evaluation mode; its attribute ``space`` is the ``DataSpace`` of its samples.

    Raises:
        UserError: a file is missing, damaged, of a later version or of other weights; a class that is not known; pickles only.
    """
    config = read_config(folder)
    path, weights = folder / WEIGHTS, config["weights"]
    if not path.is_file():
        raise UserError(f"{folder} holds no {WEIGHTS}.", AGAIN)
    try:
        space = DataSpace.from_dict(config["space"])
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedFile(folder / CONFIG, error, AGAIN) from error
    net = built(config["net"], folder / CONFIG)
    try:
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise DamagedFile(path, error, AGAIN) from error
    check_fits(state, net, path)
    if file_hash(path) != weights["sha256"]:
        raise UserError(f"{path} is not the file that {CONFIG} was written with.", AGAIN)
    _check_results(folder / RESULTS, weights["identity"])
    net.load_state_dict(state)
    net.space = space  # type: ignore[assignment]
    return net.eval().requires_grad_(False)


def read_config(folder: Path) -> dict[str, Any]:
    """The content of ``config.json``.

    Raises:
        UserError: there is none, or not one that this version reads.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise _no_config(folder)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedFile(path, error, AGAIN) from error
    if not isinstance(found, dict) or found.get("library_name") != "fm_lightning":
        fix = "Use a folder that fm-lightning export wrote."
        if isinstance(found, dict) and "_class_name" in found:
            fix = f"Load {found['_class_name']} with diffusers, and pass it to FromDiffusers."
        raise UserError(f"{path} was not written by fm-lightning export.", fix)
    if found.get("format") != FORMAT:
        raise UserError(
            f"{path} has format {found.get('format')}, and this program reads format {FORMAT}.",
            "Update it with pip install --upgrade fm-lightning",
        )
    weights = found.get("weights")
    if not (isinstance(weights, dict) and {"sha256", "identity"} <= weights.keys() and "space" in found):
        raise DamagedFile(path, "it says nothing of the weights or their space", AGAIN)
    return found


def _no_config(folder: Path) -> UserError:
    if (last := folder / "checkpoints" / "last.ckpt").is_file():
        return UserError(
            f"{folder} is a run.", f"Pass its checkpoint {last}, or export it: fm-lightning export {folder}"
        )
    names = sorted(file.name for file in folder.iterdir())
    pickles = [name for name in names if name.endswith(PICKLES)]
    if pickles and not any(name.endswith(".safetensors") for name in names):
        return UserError(
            f"{folder} holds only pickles ({', '.join(pickles[:3])}), which can run code, and no {CONFIG}.",
            f"Build the network, and call load_weights(net, '{folder / pickles[0]}'), which reads tensors only.",
        )
    return UserError(f"{folder} holds no {CONFIG}.", AGAIN)


def _check_results(path: Path, identity: str) -> None:
    """Refuses results of other weights. A folder without results is a network all the same."""
    if not path.is_file():
        return
    try:
        measured = json.loads(path.read_text(encoding="utf-8"))["identity"]["weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedFile(path, "it does not say of which weights it is", AGAIN) from error
    if measured != identity:
        raise UserError(
            f"{path} holds results of other weights ({measured}, not {identity}).",
            "Delete it, or copy the whole exported folder again.",
        )
