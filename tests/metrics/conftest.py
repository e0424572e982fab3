"""Measuring memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile


@pytest.fixture(scope="session")
def peak_bytes() -> Callable[[Callable[[], Any]], int]:
    """Measures the bytes that torch's allocator held at the most during a call, above those before it."""

    def measure(call: Callable[[], Any]) -> int:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as run:
            call()
        events = [e for e in run.profiler.kineto_results.events() if e.name() == "[memory]"]
        held = torch.tensor([e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]).cumsum(0)
        return int(held.max())

    return measure
