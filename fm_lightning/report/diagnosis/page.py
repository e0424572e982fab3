"""``diagnosis.html``: sentences and figures of a diagnosis on one self-contained page, the figures also as files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

from fm_lightning.files import write_whole
from fm_lightning.phrases import thousands, true_minus
from fm_lightning.report.diagnosis import copying, density, semantics
from fm_lightning.report.results import Arrays, Numbers
from fm_lightning.report.style import Plate, embedded, png, template

PAGE = "diagnosis.html"
FIRST = "predictors"  # the figure of the first screen
# By question. Captions may name {n} samples, {probed} of them that were sampled once more, {held_out} real images, and {val}.
PLATES: Mapping[str, tuple[Plate, ...]] = {
    "density": (
        Plate(
            "density",
            "The energy of each sample, and how dense real images are around it",
            "One dot per sample, {n} samples of plain sampling ({probed} where a likelihood is shown). Support is minus the mean "
            "distance to the five nearest images. ρ is Spearman's, with its 95% bootstrap interval.",
            density.scatters,
        ),
        Plate(
            "correlations",
            "Every energy against every measure of density",
            "Spearman's rho, plain (filled) and given the norm of the noise, the distance from the training mean and, where a "
            "model has labels, the class (hollow), with 95% bootstrap intervals; {n} samples, {probed} for the likelihood. Many "
            "comparisons: single intervals that just miss 0 mean little.",
            density.forest,
        ),
        Plate(
            "bridge",
            "Power and the bridge's density along the way",
            "At each time, rank correlation over {probed} samples of the network's power ½‖v‖² with the log density of the "
            "bridge (1 − t) x0 + t x1 at the same state; band: 95% bootstrap interval.",
            density.bridge,
        ),
    ),
    "semantics": (
        Plate(
            "thirds",
            "Semantic strength in thirds of KPE",
            "Means over {n} samples in thirds of KPE, taken within each class, so that no class is in one third more than in "
            "another; Student's 95% intervals; g is Hedges's effect size, highest minus lowest third.",
            semantics.thirds,
        ),
        Plate(
            "extremes",
            "The samples of lowest and highest energy",
            "Of {n} samples those of the lowest KPE, lowest first, and of the highest, highest first.",
            semantics.extremes,
            pixels=True,
        ),
    ),
    "copying": (
        Plate(
            "goldilocks",
            "Which energies copy",
            "F_mem in quantile groups of each energy, low to high, over {n} samples; Wilson's 95% intervals. The p beneath "
            "tests whether the curve neither rises nor falls throughout (isotonic likelihood ratio in both orders).",
            copying.goldilocks,
        ),
        Plate(
            "predictors",
            "What tells copies apart",
            "AUROC for the event “d1 / d2 below {threshold}”, with DeLong's 95% interval; n after each name. Nearness is "
            "nearly the event itself.",
            copying.predictors,
        ),
        Plate(
            "commitment",
            "When trajectories commit",
            "Share of {probed} samples whose denoised estimate x + (1 − t) v is at t, and stays, nearest to the training image "
            "that the sample ends nearest to. No interval: the curves are the samples themselves.",
            copying.commitment,
        ),
        Plate(
            "power",
            "Power of the network and of the closed form",
            "Mean of ½‖v‖² over {probed} samples. The closed form always ends on a training image: along its own way "
            "its power reaches a plateau, at states that do not follow it the power grows like (1 − t)⁻² (dashed grey; slopes "
            "with intervals in the text).",
            copying.power,
        ),
        Plate(
            "originals",
            "Copies and their originals",
            "The surest of {copies} copies among {n} samples, the smallest d1 / d2 first, one for each training image; of "
            "points, all samples.",
            copying.originals,
            pixels=True,
        ),
    ),
    "copy_measures": (
        Plate(
            "copy_measures",
            "Copying by several measures",
            "Each measure of {n} samples (filled) and that of {held_out} held-out real images, its floor (hollow), with 95% "
            "intervals (shares: Wilson; C_T: DeLong).",
            copying.copy_measures,
        ),
    ),
    "over_training": (
        Plate(
            "training",
            "Over training",
            "Each validation, on {val} seeds of plain sampling; band: Wilson's 95% interval.",
            copying.training,
        ),
    ),
}


def draw(folder: Path, results: Numbers, arrays: Arrays, pdf: bool = False) -> Path:
    """Writes ``figures/KEY.png`` (and ``.pdf``) and the page into ``folder``; returns the page."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    shown: dict[str, list[dict[str, Any]]] = {}
    for question, plates in PLATES.items():
        numbers, prefix = results["questions"][question]["numbers"], f"{question}/"
        here = {key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)}
        for plate in plates:
            if (figure := plate.draw(numbers, here)) is None:
                continue
            content = png(figure)
            write_whole(figures / f"{plate.key}.png", content)
            if pdf:
                with matplotlib.rc_context({"pdf.fonttype": 42}):
                    figure.savefig(figures / f"{plate.key}.pdf", metadata={"CreationDate": None})
            shown.setdefault(question, []).append(plate.shown(embedded(content, "png"), caption(plate, results)))
    return write_whole(folder / PAGE, _render(results, shown))


def caption(plate: Plate, results: Numbers) -> str:
    """The plate's caption with its numbers."""
    questions: Mapping[str, Any] = results["questions"]
    return plate.caption.format(
        n=thousands(results["n"]),
        probed=thousands(results["probed"]),
        threshold=f"{results['threshold']:.3g}",
        copies=thousands(questions["copying"]["numbers"]["copies"]),
        held_out=thousands(questions["copy_measures"]["numbers"]["held_out"]),
        val=thousands(questions["over_training"]["numbers"]["n"]),
    )


def _render(results: Numbers, shown: Mapping[str, list[dict[str, Any]]]) -> str:
    questions = [
        {
            "title": question["title"],
            "sentences": [true_minus(line) for line in question["sentences"]],
            "figures": [figure for figure in shown.get(name, []) if figure["key"] != FIRST],
        }
        for name, question in results["questions"].items()
    ]
    first = next((figure for figures in shown.values() for figure in figures if figure["key"] == FIRST), None)
    facts = {key: results[key] for key in ("command", "created", "hardware", "step") if results.get(key) is not None}
    facts["versions"] = ", ".join(f"{name} {version}" for name, version in (results.get("versions") or {}).items())
    facts["seconds"] = ", ".join(f"{name} {seconds}" for name, seconds in results["seconds"].items())
    return template("diagnosis/page.html").render(
        name=results.get("name") or "run",
        n=thousands(results["n"]),
        probed=thousands(results["probed"]),
        answer=results["answer"],
        first=first,
        questions=questions,
        facts=facts,
    )
