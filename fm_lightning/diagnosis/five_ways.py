"""Copying in five ways, each compared with equally many held-out real images, and where they disagree."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from fm_lightning.diagnosis.answer import Answer, Missing, numpy, unless_refused
from fm_lightning.diagnosis.copy_metrics import (
    AuthPct,
    CalibratedDistance,
    CopyMeasure,
    DataCopying,
    DescriptorCosine,
    Interval,
    disagreement,
    saying,
)
from fm_lightning.diagnosis.features import Features
from fm_lightning.diagnosis.subject import Subject
from fm_lightning.errors import UserError
from fm_lightning.estimate import wilson
from fm_lightning.metrics import MemorizationRate
from fm_lightning.metrics.features.space import FeatureSpace
from fm_lightning.metrics.memorization import THRESHOLD, copied
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.phrases import thousands

THRESHOLDS = (0.1, 0.2, THRESHOLD, 0.4, 0.5)
DESCRIBES = 16  # numbers in a descriptor, at least
ROBUST = 5  # d1 over the distance to this neighbour: near-duplicates of one image do not hide a copy
LABELS = {
    "ratio": "d1 / d2 (F_mem)",
    "robust": f"d1 / d{ROBUST}, near-duplicates aside",
    "calibrated": "calibrated distance",
    "authenticity": "authenticity (AuthPct)",
    "data_copying": "C_T",
    "cosine": "cosine",
}


def five_ways(subject: Subject, features: Features | None = None) -> Answer:
    """Each measure's value, interval, floor and verdict; the ratio at several thresholds; pairs of measures.

    Distances are the model's space's, the cosine is that of ``features``, or of the samples themselves without any. SSCD's
    threshold means nothing for other descriptors: here a copy has a larger cosine than 99% of held-out images, so that the
    floor is 1% by construction.
    """
    answer = Answer()
    reference, held_out, space = subject.training, subject.held_out, FeatureSpace()
    held = held_out.to(subject.device)
    makers: dict[str, Callable[[], CopyMeasure]] = {
        "calibrated": lambda: CalibratedDistance(reference, held, neighbours=min(50, len(reference)), space=space),
        "authenticity": lambda: AuthPct(reference, held, space=space),
        "data_copying": lambda: DataCopying(reference, held, space=space),
        "cosine": lambda: _cosine(subject, features),
    }
    found: dict[str, dict] = {}
    flags: dict[str, Tensor] = {}
    for name, (entry, mine) in _ratios(subject, held).items():
        found[name], flags[name] = entry, mine
    for name, make in makers.items():
        rows = features.samples if name == "cosine" and features is not None else subject.samples
        measured = unless_refused(partial(_measured, subject, make, rows))
        if isinstance(measured, Missing):
            found[name] = {"label": LABELS[name], "reason": measured.reason}
            answer.sentences.append(f"{LABELS[name]}: not measured ({measured.reason}).")
        else:
            found[name], flags[name] = measured
    sayings = {name: entry["saying"] for name, entry in found.items() if "saying" in entry}
    where = disagreement(flags, sayings)
    answer.numbers |= {
        "measures": found,
        "pairs": where.pairs,
        "disputed": int(where.disputed.sum()),
        "agree": where.agree,
        "n": len(subject),
        "held_out": len(held_out),
    }
    answer.arrays |= {f"copied/{name}": numpy(values) for name, values in flags.items()}
    answer.sentences += [_sentence(entry) for entry in found.values() if "saying" in entry]
    answer.sentences.append(_verdict(answer.numbers, sayings))
    return answer


def _ratios(subject: Subject, held: Tensor) -> dict[str, tuple[dict, Tensor]]:
    """The paper's ratio, also at other thresholds, and the one with a farther neighbour."""
    k = min(ROBUST, len(subject.training))
    metric = MemorizationRate(subject.training, subject.threshold, subject.data.flip)
    floor, columns = metric.measure(held), subject.neighbours
    ratios = {
        "ratio": _shares(columns, floor, subject.threshold)
        | {"thresholds": {f"{t:.3g}": _shares(columns, floor, t) for t in THRESHOLDS}}
    }
    flags = {"ratio": copied(columns, subject.threshold)}
    far = unless_refused(lambda: MemorizationRate(subject.training, subject.threshold, subject.data.flip, k=k))
    if not isinstance(far, Missing) and k > 2:
        parts = [far.measure(x.to(subject.device)) for x in subject.samples.split(subject.data.eval_batch_size)]
        mine = {name: torch.cat([part[name].cpu() for part in parts]) for name in parts[0]}
        there = far.measure(held)
        mine, there = ({"d1": c["d1"], "d2": c[f"d{k}"]} for c in (mine, there))
        ratios["robust"] = _shares(mine, there, subject.threshold)
        flags["robust"] = copied(mine, subject.threshold)
    return {name: (entry | {"label": LABELS[name]}, flags[name].cpu()) for name, entry in ratios.items()}


def _shares(columns, floor, threshold: float) -> dict:
    value, there = (_share(copied(c, threshold)) for c in (columns, floor))
    return {"value": value, "floor": there, "saying": saying(value, there, False), "unit": "share"}


def _share(hits: Tensor) -> Interval:
    return Interval(float(hits.double().mean()), *wilson(int(hits.sum()), len(hits)))


def _cosine(subject: Subject, features: Features | None) -> DescriptorCosine:
    training, held_out = (
        (subject.training, subject.held_out) if features is None else (Reference(features.training), features.held_out)
    )
    if training.size < DESCRIBES:
        raise UserError(
            f"Directions of {training.size} numbers say nothing.", f"Pass features of at least {DESCRIBES} numbers."
        )
    first = DescriptorCosine(training, held_out)
    assert first.held_out_columns is not None
    limit = float(torch.quantile(first.held_out_columns["cosine"].double(), 0.99))
    return DescriptorCosine(training, held_out, threshold=min(max(limit, -0.999), 0.999999))


def _measured(subject: Subject, make: Callable[[], CopyMeasure], rows: Tensor) -> tuple[dict, Tensor]:
    metric = make()
    device = metric.reference.device
    parts = [metric.measure(x.to(device)) for x in rows.split(subject.data.eval_batch_size)]
    columns = {name: torch.cat([part[name].cpu() for part in parts]) for name in metric.columns}
    value, floor = metric.value(columns), metric.floor
    name = next(key for key, kind in _KINDS.items() if isinstance(metric, kind))
    entry = {
        "label": LABELS[name],
        "value": value,
        "floor": floor,
        "saying": saying(value, floor, metric.lower_is_copying),
        "unit": {"authenticity": "percent", "data_copying": "z"}.get(name, "share"),
        "lower_is_copying": metric.lower_is_copying,
    }
    return entry, metric.copied(columns).cpu()


_KINDS: dict[str, type[CopyMeasure]] = {
    "calibrated": CalibratedDistance,
    "authenticity": AuthPct,
    "data_copying": DataCopying,
    "cosine": DescriptorCosine,
}


def written(interval: Interval, unit: str) -> str:
    """An interval in its unit."""
    scale, sign = (100, " %") if unit == "share" else (1, " %" if unit == "percent" else "")
    value, low, high = (scale * v for v in interval)
    return f"{value:.1f}{sign} [{low:.1f}, {high:.1f}]"


def _sentence(entry: dict) -> str:
    floor = "no floor" if entry["floor"] is None else f"held-out real images {written(entry['floor'], entry['unit'])}"
    return f"{entry['label']}: {written(entry['value'], entry['unit'])}; {floor}: {entry['saying']}."


def _verdict(numbers: dict, sayings: dict[str, str]) -> str:
    n, disputed = numbers["n"], numbers["disputed"]
    alike = (
        "All measures that have a floor say the same of the set"
        if numbers["agree"]
        else (
            "The measures disagree about the set: "
            + ", ".join(f"{LABELS[name]} says “{said}”" for name, said in sayings.items())
        )
    )
    return f"{alike}; some but not all of them take {thousands(disputed)} of {thousands(n)} samples for copies."
