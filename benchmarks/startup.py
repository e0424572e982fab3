"""How long one waits: for ``fm-lightning --help``, and (``--quickstart``) from data to a schedule comparison.

    python -m benchmarks.startup [--quickstart] [--rounds 5] [--json FILE]

Each in a process of its own; the quickstart in an empty directory, without the installation.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import alternate, arguments, clocked, finish, target

HELP_SECONDS, QUICKSTART_SECONDS = 0.5, 75.0
PATIENCE = 135  # then the quickstart is stopped
ROOT = Path(__file__).parent.parent


def command(*words: str, cwd: Path | None = None, limit: float = 60) -> None:
    """Runs ``fm-lightning`` with this interpreter; fails where it fails."""
    # The installed command adds nothing to this; and it may not be on the path, or be another one.
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from fm_lightning.__main__ import main; main()"
    subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, check=True, stdout=subprocess.DEVNULL, timeout=limit)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quickstart", action="store_true", help="time `make quickstart` too (about 90 s)")
    given = parser.parse_args()
    interpreter = [sys.executable, "-c", "pass"]
    times = alternate(
        {"help": lambda: command("--help"), "python": lambda: subprocess.run(interpreter, check=True)}, given.rounds
    )
    rows: list[dict[str, Any]] = [{"what": name, **t.summary} for name, t in times.items()]
    print(f"fm-lightning --help: {times['help'].best:.3f} s, of which python itself {times['python'].best:.3f} s")
    targets = [target("fm-lightning --help", times["help"].best, HELP_SECONDS, " s")]
    if given.quickstart:
        with tempfile.TemporaryDirectory() as empty:
            extra = (
                [
                    "--trainer.max_steps",
                    "250",
                    "--trainer.val_check_interval",
                    "250",
                    "--data.init_args.test_seeds",
                    "250",
                ]
                if given.smoke
                else []
            )
            call = ("run", "-c", str(ROOT / "configs" / "digits.yaml"), *extra)
            wall: float | None = None
            try:
                wall, _ = clocked(lambda: command(*call, cwd=Path(empty), limit=PATIENCE))
                rows.append({"what": "quickstart", "seconds": wall})
                print(f"quickstart without set-up: {wall:.1f} s")
            except subprocess.TimeoutExpired:
                print(f"quickstart: not finished after {PATIENCE} s")
        targets.append(target("quickstart without set-up", wall, QUICKSTART_SECONDS, " s"))
    finish("startup", rows, targets, given.json)


if __name__ == "__main__":
    main()
