"""A working directory for the ImageNet configurations."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_imagenet import make_workplace


@pytest.fixture
def workplace(tmp_path, tmp_path_factory, monkeypatch):
    """The working directory, with latents, archive and weights under the names of the configurations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    monkeypatch.setenv("FM_LIGHTNING_CACHE", str(tmp_path_factory.mktemp("cache")))
    make_workplace(tmp_path)
    return tmp_path
