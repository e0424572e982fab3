"""Energy and copying: which samples become copies, when on their way, and what tells them apart."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from fm_lightning.diagnosis.answer import Answer, Missing, numpy, p_value, stated, unless_refused
from fm_lightning.diagnosis.association.groups import mean_difference
from fm_lightning.diagnosis.association.monotone import non_monotonicity, share_curve
from fm_lightning.diagnosis.association.roc import auroc, auroc_difference
from fm_lightning.diagnosis.association.statistic import Statistic
from fm_lightning.diagnosis.power_profile import power_law
from fm_lightning.diagnosis.probed import Probed
from fm_lightning.diagnosis.subject import ENERGIES, Subject
from fm_lightning.metrics.memorization import ratio
from fm_lightning.phrases import thousands

SHOWN = 12  # copies next to their originals
AGAINST = "late"  # the predictor that the others are compared with


def copying(subject: Subject, probed: Probed, groups: int = 5) -> Answer:
    """F_mem over quantiles of energy, predictors of copying, commitment and power over time."""
    answer = Answer()
    _goldilocks(answer, subject, groups)
    _predictors(answer, subject, probed)
    _originals(answer, subject)
    _commitment(answer, subject, probed)
    _profiles(answer, probed)
    return answer


def _goldilocks(answer: Answer, subject: Subject, groups: int) -> None:
    curves: dict[str, Any] = {}
    for name in ENERGIES:
        curve = unless_refused(partial(share_curve, subject.energies[name], subject.copies, groups))
        if isinstance(curve, Missing):
            curves[name] = {"reason": curve.reason}
            continue
        curves[name] = {"curve": curve, "test": non_monotonicity(curve.hits, curve.n)}
    answer.numbers["curves"] = curves
    kpe = curves["kpe"]
    if "reason" in kpe:
        answer.sentences.append(f"No F_mem over quantiles of KPE: {kpe['reason']}.")
        return
    curve, test = kpe["curve"], kpe["test"]
    shares = ", ".join(f"{100 * share:.1f}%" for share in curve.share)
    if test.p is None:
        verdict = f"no test of its shape: {test.reason}"
    else:
        shape = "neither rising nor falling" if test.p < 0.05 else "no departure from a monotone curve shows"
        verdict = f"{shape}, {p_value(test.p)}"
    answer.sentences.append(
        f"F_mem over {len(curve.n)} quantile groups of KPE, low to high: {shares} (n = {thousands(test.n)}); {verdict}."
    )


def _predictors(answer: Answer, subject: Subject, probed: Probed) -> None:
    """AUROC of each number for copying. Distance is nearly the event itself: what it reaches is the ceiling."""
    scores: dict[str, Tensor] = dict(subject.energies)
    scores["nearness, -d1"] = -subject.neighbours["d1"]
    scores["early commitment"] = -probed.commitment
    if probed.gap is not None:
        scores["guidance gap"] = probed.gap
    areas: dict[str, Statistic] = {}
    found = {}
    for name, score in scores.items():
        event = subject.copies[: len(score)]
        late = scores[AGAINST][: len(score)]
        areas[name] = auroc(score, event)
        found[name] = {
            "auroc": areas[name],
            "minus_late": None if name == AGAINST else auroc_difference(score, late, event),
        }
    answer.numbers["predictors"] = found
    energies = {name: value for name in ENERGIES if (value := areas[name].value) is not None}
    if not energies:
        answer.sentences.append(f"No predictor of copying can be judged: {areas['kpe'].reason}.")
        return
    best = max(energies, key=lambda name: abs(energies[name] - 0.5))
    # Below 1/2 a low energy goes with copying.
    side = "high" if energies[best] > 0.5 else "low"
    answer.sentences.append(
        f"Of the energies {best} tells copies best (a {side} one goes with copying): {stated(areas[best], 'AUROC', 3)}; "
        f"late KPE: {stated(areas[AGAINST], 'AUROC', 3)}."
    )
    for name in ("early commitment", "guidance gap"):
        if name in areas:
            answer.sentences.append(f"As a predictor of copying, {name}: {stated(areas[name], 'AUROC', 3)}.")


def _originals(answer: Answer, subject: Subject) -> None:
    """The surest copies, one for each training image."""
    ratios = ratio(subject.neighbours)
    rows: list[int] = []
    seen: set[int] = set()
    for row in ratios.argsort().tolist():
        image = int(subject.neighbours["nearest"][row])
        if not subject.copies[row] or len(rows) == SHOWN:
            break
        if image not in seen:
            seen.add(image)
            rows.append(row)
    answer.numbers["copies"] = int(subject.copies.sum())
    if not subject.data.has_pixels:
        points = subject.samples.flatten(1)
        if points.shape[1] == 2:
            answer.arrays |= {"points/samples": numpy(points), "points/copied": numpy(subject.copies)}
            answer.arrays["points/training"] = numpy(subject.data.reference())
        return
    if rows:
        index = torch.tensor(rows)
        images = subject.neighbours["nearest"][index].long().cpu()
        answer.arrays |= {
            "copies/samples": subject.data.visible(subject.samples[index]),
            "copies/originals": subject.data.visible(subject.data.reference(images)),
            "copies/ratio": numpy(ratios[index]),
            "copies/kpe": numpy(subject.energies["kpe"][index]),
        }


def _commitment(answer: Answer, subject: Subject, probed: Probed) -> None:
    times, flags = probed.commitment, subject.copies[: len(probed)]
    answer.arrays |= {"commitment/time": numpy(times), "commitment/copied": numpy(flags)}
    numbers: dict[str, Any] = {"n": len(probed), "copies": int(flags.sum()), "median": float(times.median())}
    answer.numbers["commitment"] = numbers
    if not 0 < numbers["copies"] < len(probed):
        kind = "copies" if numbers["copies"] else "no copies"
        answer.sentences.append(
            f"Trajectories commit to their final training image at t = {numbers['median']:.2f} (median of "
            f"{thousands(len(probed))}, all of them {kind}: nothing to compare with)."
        )
        return
    numbers["medians"] = {"copies": float(times[flags].median()), "others": float(times[~flags].median())}
    numbers["difference"] = mean_difference(times[~flags], times[flags])
    answer.sentences.append(
        f"Copies commit to their training image at t = {numbers['medians']['copies']:.2f}, other samples at "
        f"t = {numbers['medians']['others']:.2f} (medians; copies minus others, means: "
        f"{stated(numbers['difference'], 'difference', 3)})."
    )


def _profiles(answer: Answer, probed: Probed) -> None:
    """Mean power of network and closed form, and how they behave towards t = 1."""
    powers = {"network": probed.network}
    if isinstance(probed.closed, Missing):
        answer.numbers["closed_form"] = {"reason": probed.closed.reason}
        answer.sentences.append(f"No closed form to compare the network with: {probed.closed.reason}.")
    else:
        powers |= {f"closed form {name}": values for name, values in probed.closed.items()}
    laws: dict[str, object] = {}
    for name, values in powers.items():
        times = probed.times[: len(values)]
        answer.arrays |= {f"power/{name}": numpy(values.double().mean(1)), f"times/{name}": numpy(times)}
        law = unless_refused(partial(power_law, times, values))
        laws[name] = {"reason": law.reason} if isinstance(law, Missing) else law
        if isinstance(law, Missing):
            answer.sentences.append(f"Power of the {name}: no law fitted ({law.reason}).")
            continue
        exponent = law.exponent
        value = f"(1 - t)^{exponent.value:.2f}" if exponent.value is not None else exponent.reason
        interval = f" [{exponent.low:.2f}, {exponent.high:.2f}]" if exponent.low is not None else ""
        answer.sentences.append(
            f"Power of the {name} between t = 0.8 and 0.99 goes like {value}{interval}, mean {law.plateau:.3g} "
            f"({exponent.n} times, mean over {thousands(len(probed))} samples)."
        )
    answer.numbers["power_laws"] = laws
