"""Claims: at most one command at a time writes into a folder.

    RUN_DIR/running.json      who writes there; renewed while its process lives, deleted at the end

A claim is a file that exactly one process can create. A claim is stale if its process is gone, or, where that cannot be seen
from this machine, if it has not been renewed for ``SILENT`` seconds. A stale claim is removed by whoever holds the claim on
*it* (a file named after it): of two processes that find it, only one may remove it, and neither can remove a newer one.
"""

from __future__ import annotations

import atexit
import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from fm_lightning.errors import UserError
from fm_lightning.files import create

RUNNING = "running.json"
SILENT = 180.0  # seconds without renewal after which a claim from another machine is stale
RENEWAL = SILENT / 9


@dataclass(frozen=True)
class Owner:
    """A process that holds a claim."""

    token: str  # of this claim alone
    machine: str
    host: str = "unknown"
    pid: int = 0
    started: str | None = None

    @classmethod
    def this_process(cls) -> Owner:
        pid = os.getpid()
        return cls(secrets.token_hex(8), _machine(), socket.gethostname(), pid, _started(pid))

    @property
    def is_ours(self) -> bool:
        """Whether it is this process, or the one that started it to use another device."""
        return self.pid in (os.getpid(), os.getppid()) and self.runs_here

    @property
    def runs_here(self) -> bool:
        return self.machine == _machine() and _started(self.pid) == self.started


class Claim:
    """The right of one process to write into a folder.

    Within one process a folder can be claimed several times; the last release frees it.

    Args:
        folder: the folder, which is made if needed.
    """

    # Of this process: folder -> its owner and how often it is claimed; folders that were made for a claim.
    _held: ClassVar[dict[Path, tuple[Owner, int]]] = {}
    _made: ClassVar[dict[Path, list[Path]]] = {}

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / RUNNING

    def take(self) -> None:
        """Claims the folder.

        Raises:
            UserError: another process that is still running holds it.
        """
        at = self.folder.resolve()
        try:
            self._take(at)
        except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
            reason = str(error.strerror).lower()
            raise UserError(f"Cannot write into {self.folder}: {reason}.", "Use another directory.") from error

    def _take(self, at: Path) -> None:
        if (found := _read(self.path)) and found.is_ours:
            self._held[at] = (found, self._held.get(at, (found, 0))[1] + 1)
            return
        # What is made for a claim alone is removed with it: a refused command leaves nothing.
        made = [folder for folder in (at, *at.parents) if not folder.exists()]
        mine = Owner.this_process()
        self._create(mine)
        self._held[at] = (mine, 1)
        threading.Thread(target=self._renew, args=(mine,), daemon=True).start()
        self._made[at] = made
        atexit.register(self._forget, mine)

    def _create(self, mine: Owner) -> None:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # a refused command has just removed the empty folder
                other = _take(self.path, mine)
                break
        if other is not None:
            raise UserError(
                f"Another command (process {other.pid} on {other.host}) is writing to {self.folder}.",
                f"Wait for it. If it no longer runs, delete {self.path}",
            )

    def release(self) -> None:
        """Frees the folder, if this process holds it."""
        at = self.folder.resolve()
        if at not in self._held:
            return
        owner, times = self._held[at]
        if times > 1:
            self._held[at] = (owner, times - 1)
            return
        self._forget(owner)

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *error: object) -> None:
        self.release()

    def check(self) -> None:
        """Makes sure that this process still holds the folder, also after the folder was moved away or deleted.

        Raises:
            UserError: this process was silent for too long, and another took over.
        """
        owner, _ = self._held.get(self.folder.resolve(), (None, 0))
        if owner is None or (found := _read(self.path)) == owner:
            return
        if found is not None:
            raise UserError(
                f"Another command has taken over {self.folder}, because this one had stopped for {SILENT / 60:.0f} minutes.",
                "Wait for it, then run the same command again.",
            )
        self._create(owner)

    def moved(self, to: Path) -> None:
        """The folder was renamed: claims its old name again, and frees the renamed one."""
        (to / RUNNING).unlink(missing_ok=True)
        self.check()

    def _renew(self, owner: Owner) -> None:
        at = self.folder.resolve()
        while True:
            time.sleep(RENEWAL)
            if at not in self._held or self._held[at][0] != owner:
                return
            if _read(self.path) == owner:
                with suppress(OSError):
                    os.utime(self.path)

    def _forget(self, owner: Owner) -> None:
        at = self.folder.resolve()
        if at not in self._held or self._held[at][0] != owner:
            return
        del self._held[at]
        if owner.pid == os.getpid() and _read(self.path) == owner:
            self.path.unlink(missing_ok=True)
            with suppress(OSError):  # the first one that is not empty
                for folder in self._made.pop(at, []):
                    folder.rmdir()


def _take(path: Path, mine: Owner) -> Owner | None:
    """Creates a claim; returns its owner where another process holds it."""
    while not create(path, json.dumps(asdict(mine))):
        owner = _read(path)
        if owner is None:  # released in between
            continue
        if not _is_stale(path, owner):
            return owner
        removing = path.with_name(f".{path.name}.{owner.token}.tmp")
        if _take(removing, mine) is not None:
            time.sleep(0.01)  # another process is removing it
            continue
        try:
            if _read(path) == owner and _is_stale(path, owner):
                path.unlink()
        finally:
            removing.unlink()
    return None


def _is_stale(path: Path, owner: Owner) -> bool:
    if owner.machine == _machine():
        return not owner.runs_here
    try:
        return _now(path.parent) - path.stat().st_mtime > SILENT
    except FileNotFoundError:
        return False  # released in between


def _read(path: Path) -> Owner | None:
    """A claim's owner; None where there is no claim."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return None
    try:
        owner = Owner(**json.loads(text))
        return owner if owner.token.isalnum() else Owner("unreadable", "")
    except (ValueError, TypeError, AttributeError):  # half written, or damaged: its age alone decides
        return Owner("unreadable", "")


def _now(folder: Path) -> float:
    """The time on the file system of a folder, whose clock may differ from this machine's."""
    probe = folder / f".{RUNNING}.{secrets.token_hex(4)}.tmp"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        probe.unlink(missing_ok=True)


def _machine() -> str:
    """Names the machine, its start and the process numbers' namespace: where two agree, a process number means the same."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process of this machine began, or None where there is none: a reused number belongs to another process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]  # a killed process may be listed until its parent reaps it
    except (OSError, IndexError):
        pass
    try:  # no /proc: that it lives must do
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        return "unknown"
    return "unknown"
