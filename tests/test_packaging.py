"""The wheel: built offline, installed elsewhere, it has everything that a user needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

USE = """
import sys
sys.path.insert(0, {target!r})
import fm_lightning, fm_lightning.callbacks, fm_lightning.callbacks.ema
from importlib.resources import files
from pathlib import Path
home = Path(fm_lightning.__file__).parent
assert home.is_relative_to({target!r}), home
assert not (home / "callbacks").is_symlink()
for name in ("callbacks/__init__.py", "metrics/features/digits_classifier.pt", "report/page.html", "py.typed",
             "configs/digits.yaml", "configs/wandb.yaml", "configs/schedules/kts_tau.yaml"):
    assert (home / name).stat().st_size >= 0, name
from fm_lightning.metrics import DigitsFeatures
import torch
print(fm_lightning.callbacks.EMA.__name__, tuple(DigitsFeatures()(torch.zeros(2, 1, 8, 8)).shape))
"""


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path):
    source = tmp_path / "source"
    shutil.copytree(
        ROOT, source, symlinks=True, ignore=shutil.ignore_patterns(".git", ".venv", "build", "*.egg-info", "runs")
    )
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = ["wheel", "--no-index", "--no-build-isolation", "--no-deps", "--wheel-dir", str(tmp_path / "wheels")]
    subprocess.run([*pip, *build, str(source)], check=True, timeout=200)
    (wheel,) = (tmp_path / "wheels").glob("fm_lightning-*.whl")
    target = tmp_path / "installed"
    install = ["install", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*pip, *install, str(wheel)], check=True, timeout=200)
    assert not list(target.rglob("test_*.py")), "tests stay at home"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def python(code: str, *words: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-I", "-c", code, *words],
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    assert python(USE.format(target=str(target))).startswith("EMA (2, ")
    shipped = {str(path.relative_to(ROOT / "configs")) for path in (ROOT / "configs").rglob("*.yaml")}
    assert shipped == {
        str(path.relative_to(target / "fm_lightning/configs")) for path in target.rglob("configs/**/*.yaml")
    }
    # A configuration by its name, from an empty directory.
    command = f"import sys; sys.path.insert(0, {str(target)!r}); from fm_lightning.__main__ import main; main()"
    out = python(command, "run", "-c", "toy", "--trial", "--data.init_args.test_seeds", "20", "--model.test_schedules",
                 "{base: {steps: 4}}", "--model.fields", "null")  # fmt: skip
    assert "Report: runs/toy-trial/report.html" in out
    assert (elsewhere / "runs/toy-trial/results.json").exists()
