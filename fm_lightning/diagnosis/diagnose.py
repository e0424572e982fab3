"""What the energy says of a model: density, semantics, copying, each asked of one finished comparison.

RUN_DIR/diagnosis/results.json    numbers and sentences
RUN_DIR/diagnosis/arrays.npz      what figures are drawn from, ``QUESTION/...``
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fm_lightning.diagnosis.answer import Answer, plain
from fm_lightning.diagnosis.conclusions import conclusions
from fm_lightning.diagnosis.copy_measures import copy_measures
from fm_lightning.diagnosis.copying import copying
from fm_lightning.diagnosis.density import density
from fm_lightning.diagnosis.features import extract
from fm_lightning.diagnosis.over_training import Series, over_training
from fm_lightning.diagnosis.probed import probe
from fm_lightning.diagnosis.semantics import semantics
from fm_lightning.diagnosis.subject import Sampled, Subject
from fm_lightning.errors import UserError
from fm_lightning.files import write_arrays, write_whole
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.features.named import EXTRACTORS, named_extractor
from fm_lightning.table.evaluation import Evaluation

FOLDER = "diagnosis"
SCHEMA = 2


def diagnose(
    subject: Subject,
    *,
    probes: int = 256,
    groups: int = 5,
    extractor: FeatureExtractor | None = None,
    clip: str | None = None,
    class_names: Sequence[str] | str | None = None,
    classifier: nn.Module | None = None,
    series: Series | None = None,
    others: Mapping[str, Sampled] | None = None,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Asks every question.

    Args:
        subject: what ``read_subject`` read.
        probes: samples that are sampled once more with a probe, for likelihood, commitment and power.
        groups: quantile groups of the energy over which F_mem is drawn.
        extractor: a second space for support, and the descriptor whose cosine tells copies.
        clip, class_names, classifier: who judges semantics, see ``semantics``.
        series: what training logged, see ``over_training``.
        others: other fields of the table, see ``read_others``.

    Returns:
        results, as plain as JSON, and arrays.

    Raises:
        UserError: arguments out of range, fewer samples than groups, or what ``semantics`` refuses.
    """
    check(subject, probes, groups)
    seconds: dict[str, float] = {}
    with _timed(seconds, "probes", "Likelihood, commitment and power"):
        probed = probe(subject, probes)
    features = None
    if extractor is not None:
        with _timed(seconds, "features", "Features"):
            features = extract(subject, extractor)
    asked: dict[str, tuple[str, Callable[[], Answer]]] = {
        "density": ("Energy and density", lambda: density(subject, probed, features, others)),
        "semantics": ("Energy and semantics", lambda: semantics(subject, clip, class_names, classifier)),
        "copying": ("Energy and copying", lambda: copying(subject, probed, groups)),
        "copy_measures": ("Copying by several measures", lambda: copy_measures(subject, features)),
        "over_training": ("Over training", lambda: over_training(series or {}, subject.data.val_seeds)),
    }
    answers: dict[str, Answer] = {}
    for name, (title, ask) in asked.items():
        with _timed(seconds, name, title):
            answers[name] = ask()
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "n": len(subject),
        "probed": len(probed),
        "resampled": subject.resampled,
        "threshold": subject.threshold,
        "tau_split": subject.tau_split,
        "seconds": seconds,
        "questions": {
            name: {"title": asked[name][0], "numbers": plain(answer.numbers), "sentences": answer.sentences}
            for name, answer in answers.items()
        },
    }
    results["answer"] = conclusions(results)
    arrays = {f"{name}/{key}": v for name, answer in answers.items() for key, v in answer.arrays.items()}
    return results, arrays


def check(subject: Subject, probes: int, groups: int) -> None:
    """Raises UserError for what would end in nothing after minutes."""
    if probes < 1:
        raise UserError(f"`probes={probes}` leaves nothing to probe.", "Use at least 1; the default is 256.")
    if groups < 3:
        raise UserError(f"`groups={groups}` cannot show a hump.", "Use at least 3; the default is 5.")
    if len(subject) < groups:
        raise UserError(
            f"{len(subject)} samples cannot fill {groups} groups.", "Compare more seeds with fm-lightning test."
        )


def second_space(evaluation: Evaluation, name: str | None) -> FeatureExtractor | None:
    """The extractor of that name; by default the first one that the comparison measured a distance with, raw pixels aside.

    Raises:
        UserError: an unknown name.
    """
    if name is not None:
        return named_extractor(name)
    used = [key for key in evaluation.manifest.measures if key in EXTRACTORS and key != "fd_raw"]
    return named_extractor(used[0]) if used else None


def write(folder: Path, results: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Keeps results and arrays in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "results.json", json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False))
    write_arrays(folder / "arrays.npz", arrays, compressed=True)


@contextmanager
def _timed(seconds: dict[str, float], name: str, title: str) -> Iterator[None]:
    begun = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - begun, 2)
    print(f"{title:34} {seconds[name]:6.1f} s", flush=True)
