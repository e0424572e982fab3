"""The manifest of a folder of latents: one JSON file next to its shards.

    FOLDER/manifest.json                       written last: a folder without it is not finished
    FOLDER/train-00000-of-00129.safetensors    mean, std, mirrored_mean, mirrored_std [n, c, h, w]; labels [n] int64

Every shard has the identity of its data set (source, autoencoder, form) in its header, so that shards of two data sets are
never mixed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.files import DamagedFile, read_json, write_json
from fm_lightning.hashes import file_hash

FILE, VERSION = "manifest.json", 1
ENCODE = "fm-lightning encode -c CONFIG"
_AGAIN = f"Copy it again, or delete it and {FILE} and run {ENCODE}, which encodes only what is missing."


@dataclass(frozen=True)
class Identity:
    """Properties shared by all latents of a folder."""

    source: str  # fingerprint of the images and labels
    autoencoder: str  # fingerprint of its weights
    mirrored: bool
    dtype: str  # of the stored latents
    image_shape: list[int]  # [C, H, W]
    rows: dict[str, int]  # split -> images
    shard_size: int
    version: int = VERSION

    def differences(self, other: Identity) -> list[str]:
        """Lists the differences of another identity, in words."""
        mine, theirs = asdict(self), asdict(other)
        return [f"{key} {theirs[key]} instead of {mine[key]}" for key in mine if mine[key] != theirs[key]]


@dataclass(frozen=True)
class Shard:
    """One file: rows ``start`` to ``stop`` of a split."""

    split: str
    start: int
    stop: int
    file: str
    bytes: int = 0
    sha256: str = ""

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Manifest:
    """Description of a folder of latents, read without opening a shard."""

    identity: Identity
    source: dict[str, Any]  # class and arguments of the images, including preprocessing
    autoencoder: str  # its name
    shape: list[int]  # [c, h, w] of a latent
    shift: float | list[float]
    factor: float | list[float]
    channel_mean: list[float]  # [c] of the training latents, posterior samples, mirrored ones included
    channel_std: list[float]
    num_classes: int  # 0: no labels
    class_names: list[str]
    shards: list[Shard]
    copies: dict[str, int] = field(default_factory=dict)  # equal images, see ``Copies``

    def of(self, split: str) -> list[Shard]:
        return [shard for shard in self.shards if shard.split == split]

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, {"format": "fm_lightning.latents", **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Reads the manifest of a folder.

        Raises:
            UserError: no manifest, or one that this version cannot read.
        """
        try:
            content = read_json(folder / FILE, f"Encode the images again: {ENCODE}")
            if content.pop("format") != "fm_lightning.latents" or content["identity"]["version"] != VERSION:
                raise ValueError("of another version")
            identity = Identity(**content.pop("identity"))
            return cls(identity=identity, shards=[Shard(**shard) for shard in content.pop("shards")], **content)
        except FileNotFoundError as error:
            some = any(folder.glob("*.safetensors"))
            found = "unfinished latents" if some else "no latents"
            if not folder.is_dir():
                raise UserError(f"folder={folder} does not exist.", f"Run {ENCODE}") from error
            fix = "Run the command that started them again." if some else f"Run {ENCODE}"
            raise UserError(f"folder={folder} holds {found}, without {FILE}.", fix) from error
        except DamagedFile:
            raise
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"Cannot read {folder / FILE} ({type(error).__name__}: {error}).", f"Encode the images again: {ENCODE}"
            ) from error

    def verify_sizes(self, folder: Path) -> None:
        """Compares the sizes of all shards with the manifest.

        Raises:
            UserError: a shard is missing or has another size; names it.
        """
        for shard in self.shards:
            file = folder / shard.file
            size = file.stat().st_size if file.exists() else None
            if size != shard.bytes:
                what = "is missing" if size is None else f"has {size:,} bytes, not {shard.bytes:,}"
                raise UserError(f"Shard {file} {what}.", _AGAIN)

    def verify_checksums(self, folder: Path) -> None:
        """Reads all shards and compares their checksums with the manifest.

        Raises:
            UserError: a shard has changed; names it.
        """
        for shard in self.shards:
            if (found := file_hash(folder / shard.file)) != shard.sha256:
                raise UserError(
                    f"Shard {folder / shard.file} has the checksum {found[:16]}, not {shard.sha256[:16]}.", _AGAIN
                )


def open_shard(file: Path) -> tuple[dict[str, Tensor], Identity]:
    """Opens a shard: its tensors, memory-mapped, and its identity.

    Raises:
        UserError: a file that is no shard or is damaged; names it.
    """
    try:
        with safe_open(file, "pt") as shard:
            identity = Identity(**json.loads((shard.metadata() or {})["identity"]))
            # These are views of the mapped file; safetensors reads nothing but the header.
            return {name: shard.get_tensor(name) for name in shard.keys()}, identity  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"Cannot read shard {file} ({type(error).__name__}: {error}).",
            f"Delete it and run {ENCODE}, which encodes only what is missing.",
        ) from error
