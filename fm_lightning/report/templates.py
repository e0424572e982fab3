"""The pages' templates: each is self-contained HTML, without a script or an address of anything outside."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from fm_lightning.phrases import true_minus


def template(name: str) -> Template:
    """A template of this package, for example ``diagnosis/page.html``; every page extends ``base.html``, its common look."""
    loader = PackageLoader("fm_lightning.report", "")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["minus"] = true_minus
    return environment.get_template(name)
