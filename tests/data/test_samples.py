"""Samples serve whoever compares without Lightning."""

from __future__ import annotations

import subprocess
import sys


def test_samples_need_no_lightning():
    code = """
import sys, torch
from fm_lightning.data import Samples, Split

class Points(Samples):
    shape = (2,)
    def load(self):
        self.train_split, self.held_out_split, self.real_split = (Split(torch.randn(n, 2)) for n in (5, 6, 7))

data = Points()
data.prepare()
assert data.reference().shape == (5, 2) and data.fingerprint and not data.has_pixels
assert "lightning" not in sys.modules, "Lightning was imported"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
