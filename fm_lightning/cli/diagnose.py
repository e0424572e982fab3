"""``fm-lightning diagnose RUN_DIR``: where the energy goes; the verb itself is a method of ``DiagnosingTrainer``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fm_lightning.cli.command import main as command
from fm_lightning.errors import OldError


def main(args: Sequence[str]) -> None:
    """Runs the verb; a run directory stands for its configuration, by itself or after ``-c``."""
    command(["diagnose", *options(args)])


def options(args: Sequence[str]) -> list[str]:
    """``RUN_DIR ...`` or ``-c RUN_DIR ...`` as the options that name its configuration; anything else as it is.

    Raises:
        UserError: no run directory.
    """
    args = list(args)
    after_c = len(args) > 1 and args[0] in ("-c", "--config") and Path(args[1]).is_dir()
    if not after_c and (not args or args[0].startswith("-")):
        return args
    run, rest = (Path(args[1]), args[2:]) if after_c else (Path(args[0]), args[1:])
    if not (run / "config.yaml").is_file():
        raise OldError(
            f"{run} given",
            "a run directory with config.yaml",
            "type fm-lightning diagnose runs/NAME, or fm-lightning diagnose -c CONFIG.yaml",
        )
    where = run.resolve()
    return ["-c", str(run / "config.yaml"), "--name", where.name, "--root", str(where.parent), *rest]
