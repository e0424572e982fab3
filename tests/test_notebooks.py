"""The notebooks run from the first cell to the last, on small settings; what is committed is what they print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
SMALL = {
    "verdict-on-your-own-model": {"SEEDS": 60, "STEPS": 4, "TRAINING": 3},
    "from-training-to-a-claim": {"STEPS": 20, "SEEDS": 60, "TRAINING_SEEDS": (0, 1)},
}
RUN = """
import sys
from pathlib import Path
from notebook_runner import run
notebook, names = run(Path(sys.argv[1]), {parameters!r})
figures = sum("image/png" in output.get("data", ()) for cell in notebook["cells"] for output in cell.get("outputs", ()))
print("figures", figures, "lightning" in sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(path, tmp_path):
    """In a process of its own, which has loaded nothing before."""
    if path.stem.startswith("verdict"):
        pytest.importorskip("diffusers")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "MPLBACKEND": "agg"}
    ended = subprocess.run(
        [sys.executable, "-c", RUN.format(parameters=SMALL[path.stem]), str(path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert ended.returncode == 0, ended.stderr
    figures, lightning = ended.stdout.split()[-2:]
    assert int(figures) >= 2
    assert lightning == "False", "not even for the command, which is a process of its own"


def test_there_are_two():
    assert {path.stem for path in NOTEBOOKS} == SMALL.keys()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_of_one_whole_run(path):
    assert path.stat().st_size < 400_000
    assert str(ROOT) not in path.read_text()
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    shown = [output for cell in cells for output in cell["outputs"]]
    assert shown, "a reader on the web sees what it prints"
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", ()) for output in shown) >= 2
    assert not [output for output in shown if output["output_type"] == "error"]
