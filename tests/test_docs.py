"""The documentation's site: every page is in its navigation, and every name of the API pages exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NAMES = sorted({name for page in DOCS.glob("api/*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), re.M)})


def pages(nav):
    if isinstance(nav, str):
        return [nav]
    return [page for each in (nav.values() if isinstance(nav, dict) else nav) for page in pages(each)]


def test_the_navigation_lists_every_page_once():
    listed = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    there = [str(p.relative_to(DOCS)) for p in DOCS.rglob("*") if p.suffix in (".md", ".ipynb")]
    assert sorted(listed) == sorted(there)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_the_api_exists(name):
    module, _, last = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), last)
    except AttributeError:
        found = importlib.import_module(name)
    assert found.__doc__


def test_links_between_pages_lead_somewhere():
    for page in DOCS.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in link:
                assert (page.parent / link).exists(), f"{page.relative_to(DOCS)} links {link}"
