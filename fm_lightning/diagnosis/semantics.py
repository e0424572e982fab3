"""Energy and semantics: do samples that cost more show their class more clearly?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fm_lightning.data.class_names import class_names as names_of
from fm_lightning.data.digits import Digits
from fm_lightning.diagnosis.answer import Answer, Missing, numpy, p_value, stated, unless_refused
from fm_lightning.diagnosis.association.correlation import partial_spearman
from fm_lightning.diagnosis.association.groups import effect_size, group_means, mean_difference, quantile_groups, trend
from fm_lightning.diagnosis.association.statistic import Statistic
from fm_lightning.diagnosis.subject import Subject, columns_of
from fm_lightning.errors import UserError
from fm_lightning.metrics.features.digits import DigitsClassifier
from fm_lightning.metrics.semantics import ClassifierSemantics, ClipSemantics, Semantics

SHOWN = 12  # samples of the lowest and of the highest energy
WORDS = {"score": "confidence in the own class", "margin": "margin of the own class"}


def semantics(
    subject: Subject,
    clip: str | None = None,
    class_names: Sequence[str] | str | None = None,
    classifier: nn.Module | None = None,
) -> Answer:
    """Score and margin of the own class over thirds of KPE within each class.

    Digits bring their classifier; without labels its own guess stands for the class.

    Args:
        clip: a CLIP by name or folder.
        class_names: for its prompts, see ``data.class_names``.
        classifier: samples in the model's space -> logits.

    Raises:
        UserError: CLIP without class names or for a model without labels, or a CLIP that cannot be loaded.
    """
    answer = Answer()
    groups = unless_refused(lambda: quantile_groups(subject.energies["kpe"], 3, subject.labels))
    if isinstance(groups, Missing):
        answer.numbers["missing"] = groups.reason
        answer.sentences.append(f"No thirds of KPE: {groups.reason}.")
        return answer
    order = subject.energies["kpe"].argsort()
    answer.arrays |= {
        "groups": groups,
        "lowest": subject.data.visible(subject.samples[order[:SHOWN]]),
        "highest": subject.data.visible(subject.samples[order[-SHOWN:].flip(0)]),
    }
    judges = list(_judges(subject, clip, class_names, classifier))
    if not judges:
        remedy = "pass classifier" if subject.labels is None else "pass classifier, or clip"
        reason = f"no classifier of {type(subject.data).__name__} and no CLIP: {remedy}"
        answer.numbers["missing"] = reason
        answer.sentences.append(f"Semantic strength was not measured: {reason}.")
    for metric, labels in judges:
        columns = measured(subject, metric, labels)
        groups = quantile_groups(subject.energies["kpe"], 3, labels)
        guessed = subject.labels is None
        if guessed:
            answer.sentences.append(f"The model has no labels: the {metric.prefix}'s own guess stands for the class.")
        found = {}
        for column, values in columns.items():
            words = WORDS[column.removeprefix(f"{metric.prefix}_")]
            found[column] = {"words": words} | compared(subject.energies["kpe"], groups, values, labels)
            answer.arrays[f"column/{column}"] = numpy(values)
            answer.sentences.append(_sentence(metric.prefix, found[column]))
        answer.arrays["groups"] = groups
        answer.numbers[metric.prefix] = {
            "columns": found,
            "guessed": guessed,
            "summary": metric.summarize(columns),
            "n": len(subject),
        }
    return answer


def _judges(subject: Subject, clip: str | None, class_names: Sequence[str] | str | None, classifier: nn.Module | None):
    """(metric, labels) of everybody who is asked."""
    if classifier is None and isinstance(subject.data, Digits):
        classifier = DigitsClassifier.load()
    if classifier is not None:
        labels = subject.labels
        yield ClassifierSemantics(classifier), _guesses(subject, classifier) if labels is None else labels
    if clip is not None:
        read = subject.data.to_uint8
        if subject.labels is None and isinstance(class_names, str):
            raise UserError(f"class_names={class_names!r} needs a model with labels.", "Pass the names as a list.")
        names = class_names or () if subject.labels is None else names_of(class_names, subject.data)
        metric = ClipSemantics(list(names), clip, read)
        labels = subject.labels
        yield metric, labels if labels is not None else metric.labels(subject.trajectory, len(metric.classes))


@torch.no_grad()
def _guesses(subject: Subject, classifier: nn.Module) -> Tensor:
    classifier = classifier.to(subject.device).eval()
    return torch.cat([classifier(x).argmax(1).cpu() for x in subject.moved(subject.samples)])


def measured(subject: Subject, metric: Semantics, labels: Tensor) -> dict[str, Tensor]:
    """``[n]`` columns of a judge."""
    if isinstance(metric, ClassifierSemantics):
        metric.module.to(subject.device)
    whole = replace(subject.trajectory, labels=labels)
    columns = columns_of(metric, (whole[rows].to(subject.device) for rows in subject.batches(len(subject))))
    return {name: values.double() for name, values in columns.items()}


def compared(kpe: Tensor, groups, values: Tensor, labels: Tensor) -> dict[str, Any]:
    """Thirds of a column: means with intervals, high minus low, its effect size, the trend; and the rank correlation by class."""
    low, high = values[torch.from_numpy(groups == 0)], values[torch.from_numpy(groups == 2)]
    return {
        "means": group_means(groups, values),
        "difference": mean_difference(low, high),
        "effect": effect_size(low, high),
        "trend": trend(groups, values),
        "rho": partial_spearman(kpe, values, strata=labels),
    }


def _sentence(key: str, found: dict) -> str:
    difference: Statistic = found["difference"]
    effect, slope = stated(found["effect"], "Hedges's g"), found["trend"]
    tested = (
        f"trend over thirds: tau = {slope.value:+.3f}, {p_value(slope.p)}" if slope.value is not None else slope.reason
    )
    return (
        f"{key.capitalize()}, {found['words']}, highest third of KPE minus lowest within classes: "
        f"{stated(difference, 'difference', 3)} ({effect}; {tested})."
    )
