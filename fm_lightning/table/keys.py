"""Fingerprints: what decides whether a line of the evaluation table is still true, and where two definitions differ."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fm_lightning.errors import UserError


def definition(value: Any) -> Any:
    """A value as plain JSON: dataclasses by class name and the fields that differ from their defaults, floats as hex.

    Fields at their default are left out, so that a field added to a schedule later changes no key.

    Raises:
        UserError: something that has no canonical form, such as a gain that is no dataclass.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value.hex()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        name = (
            kind.__name__ if kind.__module__.startswith("fm_lightning.") else f"{kind.__module__}.{kind.__qualname__}"
        )
        given = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        changed = [(f.name, v) for f, v in given if type(v) is not type(f.default) or v != f.default]
        return {"class": name} | {name: definition(v) for name, v in changed}
    if isinstance(value, Mapping):
        return {str(k): definition(v) for k, v in sorted(value.items())}
    if isinstance(value, Sequence):
        return [definition(v) for v in value]
    raise UserError(
        f"A schedule holds a {type(value).__name__}, which has no canonical form.",
        "Declare it as a frozen dataclass of numbers and words.",
    )


def key(defined: Any) -> str:
    """16 hexadecimal digits that name a definition."""
    text = json.dumps(defined, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(there: Any, here: Any, key: str = "", into_lists: bool = True) -> Iterator[tuple[str, Any, Any]]:
    """``(dotted key, there, here)`` of all that differs between two values of plain data.

    ``into_lists`` says whether lists of equal length differ in their entries, or as a whole, as options do.
    """
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for name in {**there, **here}:
            below = f"{key}.{name}" if key else str(name)
            yield from differences(there.get(name), here.get(name), below, into_lists)
    elif into_lists and isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for i, (a, b) in enumerate(zip(there, here)):
            yield from differences(a, b, f"{key}.{i}")
    elif there != here:
        yield key, there, here
