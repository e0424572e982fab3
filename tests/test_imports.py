"""What an import loads: rooms that are useful without Lightning do not wait for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

USES = {
    "metrics": "import fm_lightning.metrics as m; m.FrechetDistance, m.KernelDistance, m.MemorizationRate, m.LocalSupport",
    "verdicts": "import fm_lightning.verdicts.verdict",
    "flow": "import fm_lightning.flow",
}


@pytest.mark.parametrize("room", USES)
def test_a_room_loads_neither_lightning_nor_sklearn(room):
    line = f"{USES[room]}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout.split()
    assert not {"lightning", "sklearn"} & set(loaded)
