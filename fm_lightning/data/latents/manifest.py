"""What a folder of latents holds: one JSON file beside its shards.

    FOLDER/manifest.json                       written last: a folder without it is not finished
    FOLDER/train-00000-of-00129.safetensors    mean, std, mirrored_mean, mirrored_std [n, c, h, w]; labels [n] int64

Every shard carries the identity of what it belongs to (source, autoencoder, form) in its own header, so that shards of two
data sets are never mixed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fm_lightning.errors import OldError
from fm_lightning.files import DamagedFile, read_json, write_json
from fm_lightning.hashes import file_hash

FILE, VERSION = "manifest.json", 1
ENCODE = "fm-lightning encode -c CONFIG"


@dataclass(frozen=True)
class Identity:
    """What the latents of one folder have in common."""

    source: str  # fingerprint of the images and labels
    autoencoder: str  # fingerprint of its weights
    mirrored: bool
    dtype: str  # of the stored latents
    image_shape: list[int]  # [C, H, W]
    rows: dict[str, int]  # split -> images
    shard_size: int
    version: int = VERSION

    def differences(self, other: Identity) -> list[str]:
        """Where the other one differs, in words."""
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
    """All there is to know of a folder of latents without opening a shard."""

    identity: Identity
    source: dict[str, Any]  # how the images were made: class and arguments, preprocessing among them
    autoencoder: str  # its name
    shape: list[int]  # [c, h, w] of a latent
    shift: float | list[float]
    factor: float | list[float]
    channel_mean: list[float]  # [c] of the training latents, posterior samples, mirrored ones included
    channel_std: list[float]
    num_classes: int  # 0: no labels
    class_names: list[str]
    shards: list[Shard]

    def of(self, split: str) -> list[Shard]:
        return [shard for shard in self.shards if shard.split == split]

    def write(self, folder: Path) -> None:
        write_json(folder / FILE, {"format": "fm_lightning.latents", **asdict(self)})

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """
        Raises:
            UserError: no manifest, or none that this version reads.
        """
        try:
            content = read_json(folder / FILE, f"Encode the images again: {ENCODE}")
            if content.pop("format") != "fm_lightning.latents" or content["identity"]["version"] != VERSION:
                raise ValueError("of another version")
            identity = Identity(**content.pop("identity"))
            return cls(identity=identity, shards=[Shard(**shard) for shard in content.pop("shards")], **content)
        except FileNotFoundError as error:
            some = any(folder.glob("*.safetensors"))
            found = "unfinished latents" if some else "no latents" if folder.is_dir() else "no folder"
            remedy = "the same command that began them" if some else ENCODE
            raise OldError(f"folder={folder} given, which holds {found}", f"its {FILE}", f"type {remedy}") from error
        except DamagedFile:
            raise
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise OldError(
                f"{folder / FILE} cannot be read ({type(error).__name__}: {error})",
                f"a manifest of version {VERSION}",
                f"encode the images again: type {ENCODE}",
            ) from error

    def verify_sizes(self, folder: Path) -> None:
        """
        Raises:
            UserError: a shard is missing or has other bytes than written; names it.
        """
        for shard in self.shards:
            file = folder / shard.file
            size = file.stat().st_size if file.exists() else None
            if size != shard.bytes:
                is_ = "is missing" if size is None else f"has {size:,} bytes"
                raise OldError(
                    f"shard {file} {is_}",
                    f"{shard.bytes:,} bytes",
                    f"copy it again, or delete it with {FILE} and type {ENCODE}, which makes only what is missing",
                )

    def verify_checksums(self, folder: Path) -> None:
        """Reads everything once.

        Raises:
            UserError: a shard does not hold what was written; names it.
        """
        for shard in self.shards:
            if (found := file_hash(folder / shard.file)) != shard.sha256:
                raise OldError(
                    f"shard {folder / shard.file} has the checksum {found[:16]}",
                    f"{shard.sha256[:16]}",
                    f"copy it again, or delete it with {FILE} and type {ENCODE}, which makes only what is missing",
                )


def open_shard(file: Path) -> tuple[dict[str, Tensor], Identity]:
    """The tensors of a shard, memory-mapped, and what it says that it belongs to.

    Raises:
        UserError: no shard of ours, or a damaged one; names it.
    """
    try:
        with safe_open(file, "pt") as shard:
            identity = Identity(**json.loads((shard.metadata() or {})["identity"]))
            # These are views of the mapped file; safetensors reads nothing but the header.
            return {name: shard.get_tensor(name) for name in shard.keys()}, identity  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise OldError(
            f"shard {file} cannot be read ({type(error).__name__}: {error})",
            "a file that fm-lightning encode wrote",
            f"delete it and type {ENCODE}, which makes only what is missing",
        ) from error
