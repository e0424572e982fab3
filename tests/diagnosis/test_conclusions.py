"""The first screen of a diagnosis: three sentences that say no more than the intervals allow."""

from __future__ import annotations

import pytest

from fm_lightning.diagnosis.conclusions import conclusions


def estimate(value, low=None, high=None):
    return {"value": value, "low": low, "high": high, "n": 100}


def diagnosis(partial, effect, areas):
    entry = {"energy": "kpe", "measure": "knn_5, training, model space", "plain": estimate(-0.3, -0.4, -0.2)}
    judge = (
        {"classifier": {"columns": {"classifier_score": {"words": "confidence", "effect": effect}}}} if effect else {}
    )
    return {
        "questions": {
            "density": {"numbers": {"associations": [entry | {"partial": partial}]}},
            "semantics": {"numbers": judge},
            "copying": {"numbers": {"predictors": {name: {"auroc": area} for name, area in areas.items()}}},
        }
    }


@pytest.mark.parametrize(
    ("partial", "words"),
    [
        (estimate(-0.2, -0.3, -0.1), "more often in sparse regions"),
        (estimate(0.2, 0.1, 0.3), "more often in dense regions"),
        (estimate(0.05, 0.01, 0.09), "only slightly more often in dense regions"),
        (estimate(-0.1, -0.3, 0.1), "tells nothing measurable"),
        (estimate(None), "more often in sparse regions"),
    ],
)
def test_density_follows_the_correlation_given_the_covariates(partial, words):
    density, _, _ = conclusions(diagnosis(partial, None, {}))
    assert words in density
    assert "−0.30 [−0.40, −0.20]" in density
    assert "None" not in density


def test_semantics_and_copying():
    areas = {"kpe": estimate(0.49, 0.45, 0.53), "late": estimate(0.3, 0.25, 0.35)}
    _, semantics, copying = conclusions(diagnosis(estimate(0.0), estimate(-0.3, -0.5, -0.1), areas))
    assert "is lower in high-energy samples" in semantics
    assert "more copies are among samples of low late energy (AUROC = 0.30" in copying
    _, semantics, copying = conclusions(diagnosis(estimate(0.0), estimate(-0.3, -0.5, 0.1), {"kpe": areas["kpe"]}))
    assert "does not measurably differ" in semantics
    assert "no energy tells copies from other samples" in copying


def test_what_was_not_measured_is_called_so():
    results = diagnosis(estimate(None), None, {"kpe": estimate(None)})
    results["questions"]["density"]["numbers"] = {}
    assert [line.partition(":")[0] for line in conclusions(results)] == ["Density", "Semantics", "Copying"]
    assert "not measured" in conclusions(results)[1]
    assert "too few" in conclusions(results)[2]
