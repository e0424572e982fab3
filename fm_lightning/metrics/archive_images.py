"""The images of an .npz archive in ADM's format, read batch by batch: the reference of its precision and recall."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from fm_lightning.errors import UserError


class ArchiveImages:
    """uint8 images ``[N, H, W, C]`` that an archive holds as ``arr_0``; at most one batch of them is in memory.

    Args:
        path: the archive, for example ``VIRTUAL_imagenet256_labeled.npz`` with 10,000 images, or a model's samples.

    Attributes:
        shape: ``(N, H, W, C)``.

    Raises:
        UserError: no such file, no such archive, or no such images in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        with self._open() as file:
            self.shape = self._header(file)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def fingerprint(self) -> str:
        """Changes with the images."""
        digest = hashlib.sha256(repr(self.shape).encode())
        for batch in self.batches(256):
            digest.update(batch.numpy().tobytes())
        return digest.hexdigest()[:16]

    def batches(self, size: int) -> Iterator[Tensor]:
        """uint8 ``[<= size, C, H, W]``, in the order of the archive.

        Raises:
            UserError: the archive ends early, or was damaged.
        """
        with self._open() as file:
            count, *image = self._header(file)
            each = int(np.prod(image))
            for start in range(0, count, size):
                some = min(size, count - start)
                try:
                    read = file.read(some * each)
                except (zipfile.BadZipFile, OSError, EOFError) as error:  # a checksum that fails, a disk that does
                    raise self._error(f"are damaged after image {start} ({error})") from error
                if len(read) < some * each:
                    raise self._error(f"end after image {start + len(read) // each}")
                yield torch.frombuffer(bytearray(read), dtype=torch.uint8).view(some, *image).permute(0, 3, 1, 2)

    def _open(self) -> IO[bytes]:
        try:
            return zipfile.ZipFile(self.path).open("arr_0.npy")
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise self._error(f"cannot be read ({' '.join(str(error).split())})") from error

    def _header(self, file: IO[bytes]) -> tuple[int, int, int, int]:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except Exception as error:  # a member that is no array
            raise self._error(f"cannot be read ({' '.join(str(error).split())})") from error
        if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or 0 in shape or fortran:
            raise self._error(f"are {list(shape)} of {dtype}" + (" in Fortran order" if fortran else ""))
        return shape

    def _error(self, what: str) -> UserError:
        return UserError(
            f"The images in {self.path} {what}.",
            "Use an .npz archive with arr_0, uint8 [N, H, W, 3], or leave precision_recall, kid and cmmd out.",
        )
