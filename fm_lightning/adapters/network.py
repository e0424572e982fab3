"""load_network: a trained network from a checkpoint, an exported folder or the Hub."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from fm_lightning.adapters.checkpoints import network_of, read_checkpoint
from fm_lightning.adapters.hub import NAME, download
from fm_lightning.adapters.model_folder import load_folder
from fm_lightning.errors import UserError


def load_network(path: str | Path, revision: str | None = None) -> nn.Module:
    """A trained velocity network in evaluation mode: the averaged weights where training kept an average.

    A checkpoint names its classes, which are imported: open only those of people you trust. Folders and models of the Hub
    hold no code and name only classes of ``fm_lightning.nets``; their networks have an attribute ``space``, the
    ``DataSpace`` of their samples.

    Args:
        path: a checkpoint; a folder that ``fm-lightning export`` wrote; or ``user/name``, such a folder on the Hub.
        revision: the commit of a model on the Hub, 40 hexadecimal digits.

    Raises:
        UserError: there is no such file, folder or model, or it is damaged or does not fit; see ``read_checkpoint``,
            ``load_folder`` and ``download``.
    """
    place = Path(path)
    if revision is None and place.is_dir():
        return load_folder(place)
    if revision is not None and not NAME.fullmatch(str(path)):
        raise UserError(f"{path} is no model on the Hub, and only those have a revision.", "Leave revision out.")
    if revision is not None or (
        NAME.fullmatch(str(path)) and not place.exists() and place.suffix not in (".ckpt", ".pt")
    ):
        if revision is None and place.parent.is_dir():
            raise UserError(
                f"There is no file or folder {path}.", 'Check the path, or pass revision=... for a model "user/name".'
            )
        return load_folder(download(str(path), revision))
    return network_of(read_checkpoint(place), place)
