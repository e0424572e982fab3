"""Copying by several measures, each compared with equally many held-out real images, and where they disagree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from fm_lightning.diagnosis.answer import Answer, Missing, numpy, unless_refused
from fm_lightning.diagnosis.copy_metrics import COPY_MEASURES, CopyMeasure
from fm_lightning.diagnosis.copy_metrics.measure import share
from fm_lightning.diagnosis.features import Features
from fm_lightning.diagnosis.subject import Subject, columns_of
from fm_lightning.errors import UserError
from fm_lightning.estimate import Interval
from fm_lightning.metrics import MemorizationRate
from fm_lightning.metrics.memorization import THRESHOLD, copied
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.phrases import number, thousands, with_span

THRESHOLDS = (0.1, 0.2, THRESHOLD, 0.4, 0.5)
Saying = Literal["copies", "no more than real images", "fewer than real images", "no floor"]
ROBUST = 5  # d1 over the distance to this neighbour: near-duplicates of one image do not hide a copy


def copy_measures(subject: Subject, features: Features | None = None) -> Answer:
    """Each measure's value, interval, floor and verdict; the ratio at several thresholds; pairs of measures.

    Distances are the model's space's, the cosine is that of ``features``, or of the samples themselves without any.
    """
    answer = Answer()
    held = subject.held_out.to(subject.device)
    found, flags = _ratios(subject, held)
    for kind in COPY_MEASURES:
        measured = unless_refused(partial(_measured, kind, subject, held, features))
        if isinstance(measured, Missing):
            found[kind.name] = {"label": kind.label, "reason": measured.reason}
            answer.sentences.append(f"{kind.label}: not measured ({measured.reason}).")
        else:
            found[kind.name], flags[kind.name] = measured
    sayings: dict[str, Saying] = {entry["label"]: entry["saying"] for entry in found.values() if "saying" in entry}
    pairs, disputed = disagreement(flags)
    answer.numbers |= {
        "measures": found,
        "pairs": pairs,
        "disputed": int(disputed.sum()),
        "agree": agree(sayings),
        "n": len(subject),
        "held_out": len(held),
    }
    answer.arrays |= {f"copied/{name}": numpy(values) for name, values in flags.items()}
    answer.sentences += [_sentence(entry) for entry in found.values() if "saying" in entry]
    answer.sentences.append(_verdict(answer.numbers, sayings))
    return answer


def _ratios(subject: Subject, held: Tensor) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor]]:
    """The paper's ratio, also at other thresholds, and the one with a farther neighbour: entries and copies."""
    k, limit = min(ROBUST, len(subject.training)), subject.threshold
    floor = MemorizationRate(subject.training, limit, subject.data.flip).measure(held)
    entry = {"label": "d1 / d2 (F_mem)"} | _shares(subject.neighbours, floor, limit)
    entry["thresholds"] = {f"{t:.3g}": _shares(subject.neighbours, floor, t) for t in THRESHOLDS}
    found, flags = {"ratio": entry}, {"ratio": copied(subject.neighbours, limit).cpu()}
    far = unless_refused(lambda: MemorizationRate(subject.training, limit, subject.data.flip, k=k))
    if not isinstance(far, Missing) and k > 2:
        mine = columns_of(far, subject.moved(subject.samples))
        mine, there = ({"d1": c["d1"], "d2": c[f"d{k}"]} for c in (mine, far.measure(held)))
        found["robust"] = {"label": f"d1 / d{ROBUST}, near-duplicates aside"} | _shares(mine, there, limit)
        flags["robust"] = copied(mine, limit)
    return found, flags


def _shares(columns: Mapping[str, Tensor], floor: Mapping[str, Tensor], threshold: float) -> dict[str, Any]:
    value, there = (share(copied(c, threshold)) for c in (columns, floor))
    return {"value": value, "floor": there, "saying": saying(value, there, False), "unit": "share"}


def _measured(
    kind: type[CopyMeasure], subject: Subject, held: Tensor, features: Features | None
) -> tuple[dict[str, Any], Tensor]:
    if kind.described and features is not None:
        metric, rows = kind.of(Reference(features.training), features.held_out), iter([features.samples])
    else:
        metric, rows = kind.of(subject.training, held), subject.moved(subject.samples)
    columns = columns_of(metric, rows)
    value, floor = metric.value(columns), metric.floor
    entry = {
        "label": kind.label,
        "value": value,
        "floor": floor,
        "saying": saying(value, floor, kind.lower_is_copying),
        "unit": kind.unit,
        "lower_is_copying": kind.lower_is_copying,
    }
    return entry, metric.copied(columns).cpu()


def _written(interval: Interval, unit: str) -> str:
    """An interval in its unit."""
    value, low, high = ((100 if unit == "share" else 1) * part for part in interval)
    return with_span(value, low, high, number, 1, "" if unit == "z" else "%")


def _sentence(entry: Mapping[str, Any]) -> str:
    floor = "no floor" if entry["floor"] is None else f"held-out real images {_written(entry['floor'], entry['unit'])}"
    return f"{entry['label']}: {_written(entry['value'], entry['unit'])}; {floor}: {entry['saying']}."


def _verdict(numbers: Mapping[str, Any], sayings: Mapping[str, Saying]) -> str:
    alike = (
        "All measures that have a floor say the same of the set"
        if numbers["agree"]
        else f"The measures disagree about the set: {', '.join(f'{label} says “{what}”' for label, what in sayings.items())}"
    )
    counts = f"{thousands(numbers['disputed'])} of {thousands(numbers['n'])}"
    return f"{alike}; some but not all of them take {counts} samples for copies."


# Where measures disagree: about the set, and about single samples.


def saying(value: Interval, floor: Interval | None, lower_is_copying: bool) -> Saying:
    """A measure's verdict on a set: copying if the intervals of value and floor do not touch and the value is on that side."""
    if floor is None:
        return "no floor"
    if value.low <= floor.high and floor.low <= value.high:
        return "no more than real images"
    return "copies" if (value.value < floor.value) == lower_is_copying else "fewer than real images"


def agree(sayings: Mapping[str, Saying]) -> bool:
    """Whether all measures with a floor say the same about the set."""
    return len(set(sayings.values()) - {"no floor"}) <= 1


def disagreement(copies: Mapping[str, Tensor]) -> tuple[list[dict[str, Any]], Tensor]:
    """Compares measures sample by sample.

    Args:
        copies: measure -> ``[n]`` bool of the same samples, from ``copied``.

    Returns:
        every two measures, and ``[n]`` bool: the samples that some but not all measures take for copies.

    Raises:
        UserError: no measures, or counts that differ.
    """
    if not copies or len({len(flags) for flags in copies.values()}) > 1:
        counts = ", ".join(f"{name} of {len(flags)}" for name, flags in copies.items()) or "no measures"
        raise UserError(f"Cannot compare {counts}.", "Apply every measure to the same samples.")
    flags = torch.stack(list(copies.values()))
    pairs = [_pair(a, b, copies[a], copies[b]) for a, b in itertools.combinations(copies, 2)]
    return pairs, flags.any(0) & ~flags.all(0)


def _pair(first: str, second: str, a: Tensor, b: Tensor) -> dict[str, Any]:
    """Counts of copies by both measures and by one alone, and Cohen's kappa; None where both call all samples the same."""
    n = len(a)
    both, only_a, only_b = (int(v.sum()) for v in (a & b, a & ~b, ~a & b))
    share_a, share_b = (both + only_a) / n, (both + only_b) / n
    chance = share_a * share_b + (1 - share_a) * (1 - share_b)
    kappa = None if chance == 1 else ((n - only_a - only_b) / n - chance) / (1 - chance)
    counts = {"both": both, "only_first": only_a, "only_second": only_b, "n": n}
    return {"first": first, "second": second, **counts, "kappa": kappa}
