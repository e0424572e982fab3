"""``fm-lightning`` and ``python -m fm_lightning``: answers at once, and loads Lightning only for verbs that need it."""

from __future__ import annotations

import atexit
import contextlib
import difflib
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from fm_lightning.cli import pages
from fm_lightning.errors import UserError


def main() -> None:
    """Runs the command; an error that a user can fix ends it with one line per problem and status 2."""
    verb, args = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    try:
        if verb in ("-h", "--help"):
            print(pages.overview(), end="")
        elif verb == "--version":
            print(_versions())
        elif verb not in pages.VERBS:
            raise _unknown(verb)
        elif any(word in ("-h", "--help") for word in args):
            print(pages.page(verb), end="")
        else:
            _run(verb, args)
    except UserError as error:
        _end(getattr(error, "lines", [str(error)]), 2)
    except KeyboardInterrupt:
        _end([f"{verb} was interrupted."], 130)
    except BrokenPipeError:  # ``fm-lightning ls | head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        from fm_lightning.cli.endings import unwritable  # imports Lightning, which takes seconds

        if (said := unwritable(error)) is None:
            raise
        _end([said], 2)


def command() -> NoReturn:
    """Runs ``main`` and ends the process as the interpreter does, except for taking the libraries apart, which takes seconds."""
    status: object = 0
    try:
        main()
    except SystemExit as ended:
        status = ended.code or 0
    threading._shutdown()  # type: ignore[attr-defined]  # waits for threads that still work
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # ``fm-lightning ls | head``
        pass
    except OSError as error:
        print(f"fm-lightning: Cannot write the output: {error.strerror}.", file=sys.stderr)
        status = status or 2
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else 1)


def _run(verb: str, args: list[str]) -> None:
    from fm_lightning.cli.arguments import resolve

    home = "command" if verb in pages.TRAINER_VERBS else verb
    if home == "command" or verb == "encode":
        args = resolve(verb, args)
    elif verb == "falsify":
        from fm_lightning.cli.falsify import check

        check(args)
    with _imports(verb):
        run = importlib.import_module(f"fm_lightning.cli.{home}").main
    run([verb, *args] if home == "command" else args)


@contextlib.contextmanager
def _imports(verb: str) -> Iterator[None]:
    """Ctrl-C while libraries load: they may turn the exception into another one, so the process ends in the handler."""

    def stop(number: int, frame: FrameType | None) -> None:
        print(f"fm-lightning: {verb} was interrupted before it began.", file=sys.stderr, flush=True)
        os._exit(128 + number)

    gc.disable()  # millions of objects come into being and stay: searching them for garbage takes a second
    try:
        before = signal.signal(signal.SIGINT, stop) if signal.getsignal(signal.SIGINT) != signal.SIG_IGN else None
    except ValueError:  # not the main thread
        before = None
    try:
        yield
    finally:
        gc.enable()
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _unknown(verb: str) -> UserError:
    if verb.startswith("-"):
        return UserError(f"{verb} stands before the verb.", "Begin with the verb: fm-lightning run -c digits")
    meant = difflib.get_close_matches(verb, pages.VERBS, n=1, cutoff=0.5)
    fix = f"Use fm-lightning {meant[0]}" if meant else "See fm-lightning --help"
    return UserError(f"{verb!r} is not a verb ({', '.join(pages.VERBS)}).", fix)


def _versions() -> str:
    from importlib.metadata import version

    names = ("fm-lightning", "torch", "lightning")
    return ", ".join(f"{name} {version(name)}" for name in names)


def _end(lines: list[str], status: int) -> None:
    for line in lines:
        print(f"fm-lightning: {' '.join(line.split())}", file=sys.stderr)
    raise SystemExit(status)


if __name__ == "__main__":
    command()
