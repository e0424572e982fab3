"""Misspelt and missing keywords of a loader, refused before anything is built."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from fm_lightning.errors import UserError


def check_keywords(
    caller: str, function: Callable[..., Any], given: Mapping[str, Any], skip: Collection[str] = ()
) -> None:
    """Raises UserError where ``function`` does not take a keyword that ``caller`` got for it, or needs one more.

    Args:
        caller: the function that the user called, for the message.
        function: what the keywords are passed to.
        given: keywords and values.
        skip: parameters that the caller sets itself.
    """
    known = {name: p for name, p in inspect.signature(function).parameters.items() if name not in skip}
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            fix = f"Did you mean {near[0]}?" if near else f"Choose among {', '.join(known)}."
            raise UserError(f"{caller} does not take {name}.", fix)
    missing = [name for name, p in known.items() if p.default is p.empty and name not in given]
    if missing:
        raise UserError(f"{caller} needs {', '.join(missing)}.", "Pass what the network was trained with.")
