"""Times, exponents and announcements on synthetic curves whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from fm_lightning.study import wording
from fm_lightning.study.curves import Curve
from fm_lightning.study.estimates import exponent, geometric_mean, largest_factor, mean
from fm_lightning.study.summary import summarize
from fm_lightning.study.times import TOO_FEW, departure, passage, tau_gen, tau_mem

N, WIDTH, SEED = "data.init_args.n", "model.net.init_args.width", "seed_everything"
STEPS = np.geomspace(10, 10_000, 61)


def curve(n=100, width=64, seed=0, mem=lambda n, w: 10 * n, gen=lambda n, w: 200.0, late=0.5, noise=0.0, steps=STEPS):
    """F_mem passes 10% at ``mem`` exactly: it rises by 0.1 per e-fold around it. The distance falls to 1 at ``gen``.

    Late KPE rises from ``late`` of tau_mem on; the loss gap never does.
    """
    log, rng = np.log(steps), np.random.default_rng(seed)
    f_mem = np.clip(0.1 + 0.1 * (log - math.log(mem(n, width))), 0, 1)
    distance = 1 + 4 * np.clip(math.log(gen(n, width)) - log, 0, None)
    series = {
        "f_mem": f_mem,
        "f_mem_lo": f_mem - 0.01,
        "f_mem_hi": f_mem + 0.01,
        "quality_frechet": distance,
        "quality_frechet_lo": distance - 1e-6,
        "quality_frechet_hi": distance + 1e-6,
        "kpe_late": 10 + np.where(steps > late * mem(n, width), 5.0, 0.0) + noise * rng.standard_normal(len(steps)),
        "loss_gap": 0.1 + noise * rng.standard_normal(len(steps)),
    }
    return Curve(f"n{n}-width{width}-seed{seed}", {N: n, WIDTH: width, SEED: seed}, steps, series)


def study(curves, **options):
    return summarize(curves, [N, WIDTH, SEED], **options)


def test_a_passage_is_interpolated_in_the_logarithm_of_the_step():
    steps = np.array([10.0, 100.0, 1000.0, 10_000.0])
    assert passage(steps, np.array([0, 0, 0.2, 1.0]), 0.1).step == pytest.approx(100 * math.sqrt(10))
    assert passage(steps, np.array([0, np.nan, 0.2, 1.0]), 0.1).step == pytest.approx(100)
    assert passage(steps, np.array([0, 0, 0.09, 0.05]), 0.1).step is None
    early = passage(steps, np.array([0.5, 0, 0, 0]), 0.1)
    assert (early.step, early.note) == (10, "at or before the first validation")


def test_times_of_a_run():
    found = curve(n=100)
    assert tau_mem(found).step == pytest.approx(1000, rel=1e-6)
    assert tau_mem(found, 0.2).step == pytest.approx(1000 * math.e, rel=1e-6)
    # 1 + 4 log(200 / step) = 1.1 at step = 200 exp(-0.025), up to the interpolation between validations 12% apart.
    assert tau_gen(found).step == pytest.approx(200 * math.exp(-0.025), rel=0.06)
    wide = Curve("x", {}, found.steps, {**found.series, "quality_frechet_hi": found.get("quality_frechet") + 3.92})
    error = (3.92 + 1e-6) / (2 * 1.959964)  # two of it are 2, more than 10%
    assert tau_gen(wide).step == pytest.approx(200 * math.exp(-2 * error / 4), rel=0.06)


def test_a_distance_that_still_falls_is_said():
    falling = curve(gen=lambda n, w: 1e5)
    assert tau_gen(falling).note == "best at the last validation"


def test_departures():
    found = curve(n=100, late=0.5, noise=0.01)
    assert departure(found, "kpe_late", 200).step == pytest.approx(STEPS[STEPS > 500][0])
    assert departure(found, "loss_gap", 200).note in (
        "never",
        "",
    )  # three times the spread of three values is passed by chance
    flat = Curve("x", {}, STEPS, {"kpe": np.full(61, 3.0)})
    assert departure(flat, "kpe", 200).note == "never"
    once = np.zeros(61)
    once[40] = 1  # one validation alone is no departure, nor are two on different sides
    once[50], once[51] = 1, -1
    assert departure(Curve("x", {}, STEPS, {"kpe": once}), "kpe", 200).note == "never"
    assert departure(found, "kpe_late", 9000).note == "too few validations after tau_gen"


def test_noise_seldom_departs():
    rng = np.random.default_rng(2)
    steps = np.geomspace(10, 10_000, 20)
    found = [departure(Curve("x", {}, steps, {"q": rng.standard_normal(20)}), "q", 50).step for _ in range(500)]
    assert sum(step is not None for step in found) < 0.05 * 500
    risen = np.where(steps > 1000, 6.0, 0.0)
    found = [departure(Curve("x", {}, steps, {"q": risen + rng.standard_normal(20)}), "q", 50).step for _ in range(200)]
    assert np.mean([step is not None and 900 < step < 2100 for step in found]) > 0.75


def test_a_departure_must_exceed_the_standard_error_of_one_value():
    values = np.zeros(61)
    values[40:] = 1.0
    for error, leaves in ((0.5, False), (0.3, True)):
        found = Curve("x", {}, STEPS, {"q": values, "q_lo": values - 1.96 * error, "q_hi": values + 1.96 * error})
        assert (departure(found, "q", 200).step is not None) == leaves


def test_means_have_students_interval():
    values = [3.0, 5.0, 10.0]
    found = mean(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (found["value"], found["low"], found["high"]) == pytest.approx((6, low, high))
    found = geometric_mean(values)
    low, high = stats.t.interval(0.95, 2, np.mean(np.log(values)), stats.sem(np.log(values)))
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (150 ** (1 / 3), math.exp(low), math.exp(high))
    )
    assert mean([1.0])["low"] is None
    assert mean([]) is None
    assert mean([0.0, 0.1, 0.9], within=(0, 1))["low"] == 0


def test_the_exponent_is_that_of_scipys_regression():
    rng = np.random.default_rng(0)
    at = {x: list(7 * x**1.3 * np.exp(0.1 * rng.standard_normal(3))) for x in (25.0, 50.0, 100.0, 400.0)}
    found, note = exponent(at)
    line = stats.linregress([math.log(x) for x in at], [np.log(v).mean() for v in at.values()])
    half = stats.t.ppf(0.975, 2) * line.stderr
    assert note == ""
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (line.slope, line.slope - half, line.slope + half)
    )
    assert found["low"] < 1.3 < found["high"]
    assert exponent({25.0: [1.0], 50.0: [2.0]}) == (None, "2 points; an exponent needs 3")


def test_the_interval_of_an_exponent_covers_the_truth():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(400):
        at = {x: list(x * np.exp(0.2 * rng.standard_normal(3))) for x in (25.0, 50.0, 100.0, 200.0, 400.0)}
        found, _ = exponent(at)
        hits += found["low"] < 1 < found["high"]
    assert 0.92 < hits / 400 < 0.98


def test_spread_collapses_for_proportional_times():
    at = {25.0: [250.0], 100.0: [1000.0, 1000.0]}
    assert largest_factor(at) == pytest.approx(4)
    assert largest_factor(at, 1.0) == pytest.approx(1)
    assert largest_factor({25.0: [1.0]}) is None


def grid(**options):
    return [curve(n, w, s, **options) for n in (25, 50, 100, 200) for w in (64, 128) for s in (0, 1, 2)]


def test_a_study_recovers_what_its_curves_were_made_of():
    found = study(grid(mem=lambda n, w: 20 * n * (64 / w) ** 0.5, late=0.25))
    tau = {tuple(g["at"].values()): g["tau_mem"]["value"] for g in found["groups"]}
    assert tau[100, 64] == pytest.approx(2000)
    assert tau[100, 128] == pytest.approx(2000 / math.sqrt(2))
    slopes = [e for e in found["exponents"] if e["of"] == "tau_mem" and e["axis"] == N]
    assert [e["exponent"]["value"] for e in slopes] == pytest.approx([1, 1])
    assert {e["note"] for e in found["exponents"] if e["axis"] == WIDTH} == {"2 points; an exponent needs 3"}
    assert [c["steps"] for c in found["collapse"]] == pytest.approx([8, 8])
    assert [c["steps_per_image"] for c in found["collapse"]] == pytest.approx([1, 1])
    window = next(g["window"] for g in found["groups"] if g["at"] == {N: 200, WIDTH: 64})
    assert window["value"] == pytest.approx(4000 / (200 * math.exp(-0.025)), rel=0.06)
    text = wording.headline(found)
    assert "F_mem passes 10% in 24 of 24 runs; τ_mem grows as n^1.00" in text
    assert all(run["f_mem_best"] == 0 for run in found["runs"] if run["values"][N] == 200)


def test_what_never_passes_is_left_out_and_said():
    found = study(grid(mem=lambda n, w: 100 * n))  # n = 100 and 200 reach 10,000 and more
    passed = {g["at"][N]: g["passed"] for g in found["groups"] if g["at"][WIDTH] == 64}
    assert passed == {25: 3, 50: 3, 100: 3, 200: 0}
    (slope,) = (e for e in found["exponents"] if e["of"] == "tau_mem" and e["axis"] == N and e["at"] == {WIDTH: 64})
    assert slope["points"] == 3
    assert "never passes" in slope["note"]
    assert {c["images"] for c in found["capacity"]} == {100}
    assert {c["note"] for c in found["capacity"]} == {""}
    few = study(grid(mem=lambda n, w: 1e6))
    assert all(e["exponent"] is None for e in few["exponents"] if e["of"] == "tau_mem")
    assert wording.headline(few) == "F_mem passes 10% in 0 of 24 runs."
    assert few["capacity"][0]["note"] == "below 25, the smallest tried"
    assert study(grid(mem=lambda n, w: n))["capacity"][0]["note"] == "the largest number that was tried"


def test_one_seed_that_never_passes_takes_its_n_out_of_the_exponent():
    curves = grid(mem=lambda n, w: 20 * n)
    curves[-1] = curve(200, 128, 2, mem=lambda n, w: 1e6)
    found = study(curves)
    points = {e["at"][WIDTH]: e["points"] for e in found["exponents"] if e["of"] == "tau_mem" and e["axis"] == N}
    assert points == {64: 4, 128: 3}


def test_f_mem_at_matched_distance():
    """Every run reaches the worst best distance, 1 here: at tau_gen itself."""
    slow = curve(50, seed=1, gen=lambda n, w: 400.0, mem=lambda n, w: 300.0)
    found = study([curve(50, gen=lambda n, w: 100.0, mem=lambda n, w: 300.0), slow])
    first, second = found["runs"]
    assert first["distance_matched"] == second["distance_matched"] == pytest.approx(1)
    assert second["f_mem_matched"] == pytest.approx(0.1 + 0.1 * math.log(400 / 300), abs=0.013)
    assert first["f_mem_matched"] == pytest.approx(0.1 + 0.1 * math.log(100 / 300), abs=0.013)


def test_an_announcement_needs_to_come_first():
    early = study(grid(mem=lambda n, w: 20 * n, late=0.7))
    entry = next(e for e in early["announcements"] if e["quantity"] == "kpe_late")
    assert entry["runs"] == 24
    assert entry["before_tau_mem"] == entry["departs"]
    assert entry["lead"]["low"] > 1
    late = study(grid(mem=lambda n, w: 20 * n, late=1.5))
    entry = next(e for e in late["announcements"] if e["quantity"] == "kpe_late")
    assert entry["before_tau_mem"] == 0
    assert entry["lead"]["high"] < 1
    silent = next(e for e in early["announcements"] if e["quantity"] == "loss_gap")
    assert (silent["departs"], silent["without"].get("never", 0)) == (0, 24)
    assert "0 of 24 runs" in wording.announcement(silent)
    assert wording.announcement(silent).endswith("(never in 24).")
    few = study(
        grid(mem=lambda n, w: 1000 if n == 25 else 1e6, late=0.001)
    )  # late KPE rises in all, copies appear in a few
    entry = next(e for e in few["announcements"] if e["quantity"] == "kpe_late")
    assert (entry["runs"], entry["never_pass"], entry["departs_without"]) == (6, 18, 18)
    assert "also leaves it in 18 of 18 runs without a τ_mem" in wording.announcement(entry)
    absent = next(e for e in early["announcements"] if e["quantity"] == "kpe_early")
    assert absent["runs"] == 0
    assert "is not known" in wording.announcement(absent)


def test_copies_before_quality_are_said():
    found = study(grid(mem=lambda n, w: 4 * n, gen=lambda n, w: 5000.0))
    text = list(wording.sentences(found))
    assert text[0].startswith("In 24 runs copies appear before quality is reached")
    announced = [line for line in text if "announces" in line]
    assert all("cannot be judged" in line or "is not known" in line for line in announced)
    late = list(wording.sentences(study(grid(gen=lambda n, w: 1e5))))
    assert late[0].startswith("In 24 runs the distance was best at the last validation")


def test_sentences_read_whole():
    for sentence in wording.sentences(study(grid(mem=lambda n, w: 20 * n, late=0.7))):
        assert sentence[0].isupper()
        assert sentence.endswith(".")
        assert "None" not in sentence
        assert "nan" not in sentence


def test_curves_from_a_log():
    logged = {
        "val/base/f_mem": [(9, 0.0), (99, 0.5), (500, 0.9)],
        "val/base/kpe_mean": [(9, 3.0)],
        "val/loss": [(9, 1.0)],
    }
    found = Curve.of("run", {}, logged, 100)
    assert found.steps.tolist() == [10, 100], "later lines belong to a training that was moved aside"
    assert found.get("f_mem").tolist() == [0, 0.5]
    assert np.isnan(found.get("kpe")[1])
    assert found.distance is None
    assert Curve.of("run", {}, {"val/loss": [(9, 1.0)]}, 100) is None


def test_what_cannot_be_judged_is_said_once():
    unknown = [{"quantity": name, "runs": 9, "without": {TOO_FEW: 9}} for name in wording.QUANTITIES]
    said = list(wording.sentences({"short": {}, "runs": [], "collapse": [], "capacity": [], "announcements": unknown}))
    assert said == [
        "Whether KPE, early KPE, late KPE or the loss gap announces copying cannot be judged: in 9 runs that pass, too few "
        "validations follow τ_gen for a plateau."
    ]
