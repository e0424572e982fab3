"""Energy and density: does a sample have a higher energy where real images are rare?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fm_lightning.data.toys import Toy2D
from fm_lightning.diagnosis.answer import Answer, Missing, numpy, stated, unless_refused
from fm_lightning.diagnosis.association.correlation import partial_spearman, spearman
from fm_lightning.diagnosis.association.statistic import Statistic
from fm_lightning.diagnosis.features import Features
from fm_lightning.diagnosis.probed import Probed
from fm_lightning.diagnosis.subject import ENERGIES, Sampled, Subject, columns_of
from fm_lightning.diagnosis.toy_density import log_density
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.support import LocalSupport
from fm_lightning.phrases import thousands

NEIGHBOURS = (5, 20)
BANDWIDTHS = (1.0,)
MAIN = "knn_5"


def density(
    subject: Subject, probed: Probed, features: Features | None = None, others: Mapping[str, Sampled] | None = None
) -> Answer:
    """Rank correlations of each energy with each measure of density, plain and given what energies depend on trivially.

    Args:
        features: a second space, next to the model's own.
        others: other fields under the same seeds, asked about support in the model's space.
    """
    answer = Answer()
    found = measures(subject, features)
    columns = {name: values for name, values in found.items() if isinstance(values, Tensor)}
    if isinstance(subject.data, Toy2D):
        columns["true log density"] = log_density(subject.data.toy, subject.samples)
    if not isinstance(probed.likelihood, Missing):
        columns["log-likelihood"] = probed.likelihood.log_p
    answer.numbers["missing"] = {name: value.reason for name, value in found.items() if isinstance(value, Missing)}
    answer.numbers["associations"] = associations(subject, columns)
    answer.arrays |= {f"measure/{name}": numpy(values) for name, values in columns.items()}
    answer.arrays |= {f"energy/{name}": numpy(values) for name, values in subject.energies.items()}
    answer.sentences += _sentences(answer.numbers["associations"], subject.labels is not None)
    for name, other in (others or {}).items():
        support = measures(subject, samples=other.samples)
        entries = associations(other, {name: v for name, v in support.items() if isinstance(v, Tensor)})
        answer.numbers.setdefault("others", {})[name] = entries
        lines = _sentences(entries, subject.labels is not None)
        answer.sentences += [f"The field {name} under the same seeds: {line}" for line in lines]
    _likelihood(answer, subject, probed)
    _along(answer, probed)
    return answer


def measures(
    subject: Subject, features: Features | None = None, samples: Tensor | None = None
) -> dict[str, Tensor | Missing]:
    """``[n]`` support and kernel log density of each sample in both spaces, of training and of held-out images.

    ``samples`` in the model's space stand for the subject's own.
    """
    samples = subject.samples if samples is None else samples
    device = subject.device
    spaces: dict[str, tuple[Tensor, Reference, Tensor]] = {
        "model space": (samples.flatten(1), subject.training, subject.held_out.flatten(1))
    }
    if features is not None:
        spaces[features.key] = (features.samples, Reference(features.training.to(device)), features.held_out)
    found: dict[str, Tensor | Missing] = {}
    for space, (rows, training, held_out) in spaces.items():
        for name, reference in (("training", training), ("held-out", Reference(held_out.to(device)))):
            columns = unless_refused(partial(_support, subject, rows, reference))
            if isinstance(columns, Missing):
                found[f"{MAIN}, {name}, {space}"] = columns
            else:
                found |= {f"{column}, {name}, {space}": values for column, values in columns.items()}
    return found


def _support(subject: Subject, rows: Tensor, reference: Reference) -> dict[str, Tensor]:
    k = tuple(i for i in NEIGHBOURS if i <= len(reference)) or (1,)
    columns = columns_of(LocalSupport(reference, k, BANDWIDTHS), subject.moved(rows))
    return {name: values.double() for name, values in columns.items()}


def associations(subject: Sampled, columns: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """One entry for each energy and measure; a measure of the first samples alone is compared on these."""
    entries = []
    for energy in ENERGIES:
        for name, values in columns.items():
            n, defined = len(values), values.isfinite()
            x, y = subject.energies[energy][:n][defined], values[defined]
            given = {key: column[:n][defined] for key, column in subject.covariates.items()}
            strata = None if subject.labels is None else subject.labels[:n][defined]
            entries.append(
                {
                    "energy": energy,
                    "measure": name,
                    "outside": int((~defined).sum()),  # of the true density's support
                    "plain": _or_reason(partial(spearman, x, y)),
                    "partial": _or_reason(partial(partial_spearman, x, y, given, strata)),
                }
            )
    return entries


def _or_reason(compute: Callable[[], Statistic]) -> Statistic:
    found = unless_refused(compute)
    return Statistic(None, reason=found.reason) if isinstance(found, Missing) else found


def _sentences(entries: Sequence[Mapping[str, Any]], classes: bool) -> list[str]:
    given = "noise, distance from the mean and class" if classes else "noise and distance from the mean"
    lines = []
    for entry in entries:
        shown = entry["measure"].startswith(MAIN) or "log" in entry["measure"]
        if entry["energy"] != "kpe" or not shown:
            continue
        plain, partial = stated(entry["plain"], "Spearman's rho"), stated(entry["partial"], "rho")
        outside = f"; {thousands(entry['outside'])} samples where it is 0 are left out" if entry["outside"] else ""
        lines.append(f"KPE and {words(entry['measure'])}: {plain}; given {given}: {partial}{outside}.")
    return lines


def words(measure: str) -> str:
    """A measure's name in words."""
    column, _, rest = measure.partition(", ")
    if column.startswith("knn_"):
        reference, space = rest.split(", ")
        return f"support by the {column[4:]} nearest {reference} images ({space})"
    if column.startswith("kde_"):
        reference, space = rest.split(", ")
        return f"kernel log density of {reference} images ({space})"
    return measure


def _likelihood(answer: Answer, subject: Subject, probed: Probed) -> None:
    found = probed.likelihood
    if isinstance(found, Missing):
        answer.numbers["likelihood"] = {"reason": found.reason}
        answer.sentences.append(f"No log-likelihood: {found.reason}.")
        return
    error = None if found.standard_error is None else float(found.standard_error.mean())
    numbers: dict[str, Any] = {
        "n": len(found.log_p),
        "mean": float(found.log_p.mean()),
        "bits_per_dim": float(-found.log_p.mean() / (math.log(2) * subject.samples[0].numel())),
        "standard_error": error,
        "forwards": found.forwards,
        "backwards": found.backwards,
    }
    how = "exact divergence" if error is None else f"Hutchinson's estimate, mean standard error {error:.2f}"
    answer.sentences.append(
        f"Log-likelihood of {thousands(numbers['n'])} samples: {numbers['mean']:.1f} nats on average ({how}; "
        f"{thousands(found.forwards)} evaluations and {thousands(found.backwards)} backward passes of a batch)."
    )
    kept = answer.arrays.get("measure/true log density")
    if kept is not None:
        true = torch.from_numpy(kept[: len(found.log_p)])
        inside = true.isfinite()
        numbers["true"] = _or_reason(partial(spearman, found.log_p[inside], true[inside]))
        answer.sentences.append(f"Log-likelihood and true log density: {stated(numbers['true'], 'Spearman’s rho')}.")
    answer.numbers["likelihood"] = numbers


def _along(answer: Answer, probed: Probed) -> None:
    """Power against the bridge's density at the same state, at each of some times."""
    rhos = []
    for t, log_p in zip(probed.bridge_times.tolist(), probed.bridge_density):
        step = int((probed.times - t).abs().argmin())
        rhos.append({"t": t, "rho": _or_reason(partial(spearman, probed.network[step], log_p))})
    answer.numbers["power_and_bridge"] = rhos
    defined = [r for r in rhos if r["rho"].value is not None]
    if defined:
        last = max(defined, key=lambda r: abs(r["rho"].value))
        answer.sentences.append(
            f"Power and the bridge's log density at the same state go together most at t = {last['t']:.2f}: "
            f"{stated(last['rho'], 'Spearman’s rho')}."
        )
