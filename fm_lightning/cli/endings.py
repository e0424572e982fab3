"""How a failed command ends: one line per problem, an exit status, and the user's own part of a traceback."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import sysconfig
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from lightning.fabric.utilities.rank_zero import rank_zero_only

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_NOT_LOGGED = re.compile(
    r"Early stopping conditioned on metric (\S+) which is not|ModelCheckpoint\(monitor='([^']+)'\) could not find"
)
GO_ON = "run the same command again"
_PACKAGE = Path(__file__).resolve().parents[1]
_LIBRARIES = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "purelib", "platlib")]
_PARENT = os.getppid()  # of a process that was launched for a further device: the one of the first device


def is_rank_zero() -> bool:
    """Whether this is the first process, which prints for all."""
    return not getattr(rank_zero_only, "rank", 0)


def fail(*messages: str, status: int = 2, wait: float = 5.0) -> NoReturn:
    """Ends the process with one line per message on stderr.

    The process of another device waits for the first one, which mostly fails for the same reason and prints it, and prints
    only if the first one does not end. (Lightning kills the first process when another one ends before it.)
    """
    if not is_rank_zero():
        until = time.monotonic() + wait
        while time.monotonic() < until:
            if os.getppid() != _PARENT:
                raise SystemExit(status)
            time.sleep(0.05)
    for message in messages:
        print(f"fm-lightning: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(status)


def crash(error: Exception, place: Path, go_on: str = GO_ON) -> NoReturn:
    """Ends the process after an unforeseen exception: prints the frames of the user's own files and one line.

    Args:
        error: the exception.
        place: path to which ``.error.txt`` is appended for the whole traceback.
        go_on: what to do once a full disk has room again.
    """
    if said := unwritable(error, go_on) or explain(error):
        fail(said)
    # The parser that builds objects wraps what their code raised.
    cause = next((e for e in chain(error) if _own(e)), error)
    own, frames = _own(cause), traceback.extract_tb(cause.__traceback__)
    shown = own or [f for f in frames if _is_ours(Path(f.filename))] or frames
    whole = place.with_name(f"{place.name}.error.txt")
    written = ""
    if is_rank_zero():
        with contextlib.suppress(OSError):
            whole.parent.mkdir(parents=True, exist_ok=True)
            whole.write_text("".join(traceback.format_exception(error)))
            written = f" The whole traceback is in {whole}"
        if own:
            print("Traceback (your own files, most recent call last):", file=sys.stderr)
            print("".join(traceback.format_list(own)), end="", file=sys.stderr)
    text = " ".join(str(cause).split())
    text = text if len(text) <= 300 else f"{text[:297]}..."
    at = f" in {_short(shown[-1].filename)}, line {shown[-1].lineno}" if shown else ""
    fail(f"{type(cause).__name__}{at}: {text or 'no message'}.{written}", status=1)


def unwritable(error: BaseException, go_on: str = GO_ON) -> str | None:
    """The message for a full disk, or one that cannot be written to; None for any other exception."""
    for link in chain(error):
        if isinstance(link, OSError) and link.errno in _UNWRITABLE:
            where = link.filename2 or link.filename or "the run's folder"  # of a copy the second is where to
            reason = os.strerror(link.errno).lower()
            return f"Cannot write {where}: {reason}. Finished work is kept; make room, then {go_on}"
    return None


def explain(error: BaseException) -> str | None:
    """The message for an error of Lightning's that a user can fix: a missing package, or a monitor that nothing logs."""
    for link in chain(error):
        text = " ".join(str(link).replace("`", "").split())
        problem, hint, fix = text.partition(" HINT: Try running ")
        if isinstance(link, ImportError) and hint:
            return f"{problem.partition(' Requirement ')[0]} Run {fix.rstrip('.')}"
        if found := _NOT_LOGGED.search(text):
            kind = "ModelCheckpoint" if found[2] else "EarlyStopping"
            return f"{kind} monitors {found[1] or found[2]}, which is not logged. Use for example monitor: val/loss"
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and what it came from."""
    seen: list[BaseException] = []
    link = error
    while link is not None and link not in seen:
        yield link
        seen.append(link)
        link = link.__cause__ or link.__context__


def is_own(error: BaseException) -> bool:
    """Whether an exception, or what it came from, was raised in the user's own files."""
    return any(_own(link) for link in chain(error))


def _own(error: BaseException) -> list[traceback.FrameSummary]:
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(Path(frame.filename))]


def _is_ours(file: Path) -> bool:
    return file.resolve().is_relative_to(_PACKAGE) or file.resolve().is_relative_to(_PACKAGE.parent / "callbacks")


def _is_users(file: Path) -> bool:
    file = file.resolve()
    known = any(file.is_relative_to(library) for library in _LIBRARIES) or "site-packages" in file.parts
    return file.exists() and not known and not _is_ours(file)


def _short(file: str) -> str:
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file
