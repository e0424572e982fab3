"""Error rates of verdicts on synthetic seeds with known truth: calibration, choice of doses, judgement, all as in a real run.

    python -m benchmarks.verdict_simulation [--repetitions 400] [--page docs/results/verdict_simulation.md]

A world is a family with a true curve Q(M). A seed's sample is a copy where a normal latent, part of it redrawn by the
manipulation, falls below the quantile of M; its contribution to the distance is Q(M), plus what all rows share, plus what the
manipulation adds, plus a part that goes with being a copy. The schedule is put at a known residual to the curve.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

from fm_lightning.comparison.results import FamilyResult, Interval, MarginResult, VerdictResult
from fm_lightning.diagnosis.association.correlation import partial_spearman, spearman
from fm_lightning.estimate import Estimate
from fm_lightning.metrics.frechet import GaussianReference, extrapolated_distance
from fm_lightning.metrics.real_features import RealFeatures
from fm_lightning.study.spread import spread, with_floor
from fm_lightning.verdicts.doses import choose_doses
from fm_lightning.verdicts.residual import Observed, residual
from fm_lightning.verdicts.verdict import Verdict, verdict

CALIBRATION, MARGIN_SHARE = 500, 0.02
Floats = NDArray[np.float64]
NORMAL = NormalDist()


@dataclass(frozen=True)
class World:
    """A family: its true M(dose) and Q(M), and how much chance the manipulation puts into copies and distance.

    Attributes:
        memorized: dose in [0, 1] -> M.
        curve: M -> Q; about 1 at dose 0.
        at: the dose of the schedule's memorized share, off the coarse doses.
        fresh: share of the latent that the largest dose redraws.
        spread: standard deviation of a contribution to the distance that the largest dose adds.
    """

    name: str
    memorized: Callable[[float], float]
    curve: Callable[[float], float]
    at: float
    fresh: float
    spread: float

    def slope(self, memorized: float) -> float:
        h = 1e-5
        return (self.curve(memorized + h) - self.curve(memorized - h)) / (2 * h)


def _falling(start: float, end: float, power: float) -> Callable[[float], float]:
    return lambda dose: start - (start - end) * dose**power


WORLDS = (
    World("convex, as a brake", _falling(0.70, 0.35, 1.2), lambda m: 1 + 4 * (0.7 - m) ** 1.5, 0.37, 0.05, 0.25),
    World("straight, as a constant gain", _falling(0.70, 0.40, 1.0), lambda m: 1 + 2 * (0.7 - m), 0.43, 0.1, 0.3),
    World(
        "dips, then rises, as noise",
        _falling(0.70, 0.10, 1.5),
        lambda m: 1 - (0.7 - m) + 3 * (0.7 - m) ** 2,
        0.45,
        0.4,
        0.5,
    ),
    World("flat", _falling(0.70, 0.30, 1.3), lambda m: 1 + 0.05 * (0.7 - m), 0.33, 0.2, 0.2),
    World("few copies", _falling(0.12, 0.02, 1.0), lambda m: 1 + 3 * (0.12 - m), 0.5, 0.2, 0.15),
    World("nearly all copies", _falling(0.97, 0.80, 1.0), lambda m: 1 + 2 * (0.97 - m), 0.4, 0.2, 0.15),
)
OUTCOMES = ("better", "no better", "worse", "undecided")
COARSE = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


class Seeds:
    """What seeds have in common over all rows, and what each manipulation draws for them."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n, self.rng = n, rng
        self.latent, self.shared = rng.standard_normal((2, n))
        self.own: dict[str, Floats] = {}

    def row(self, world: World, owner: str, dose: float, shift: float = 0.0) -> Observed:
        """The family at a dose, or a schedule that does the same and lies ``shift`` away from the curve."""
        fresh, added = self.own.setdefault(owner, self.rng.standard_normal((2, self.n)))
        memorized = world.memorized(dose)
        part = world.fresh * dose
        hits = np.sqrt(1 - part) * self.latent + np.sqrt(part) * fresh < NORMAL.inv_cdf(memorized)
        share = hits.mean()
        q = self.shared + world.spread * np.sqrt(dose) * added - 0.5 * (hits - memorized)
        value = world.curve(memorized) + shift + q.mean()
        assert 0 < share < 1
        return Observed(hits, kernel=Estimate.of(float(value), q - q.mean()))


def truth(world: World, effect: float) -> tuple[float, float]:
    """The schedule's true residual, ``-effect`` margins, and the margin."""
    base, memorized = world.memorized(0.0), world.memorized(world.at)
    margin = MARGIN_SHARE * world.curve(base) + abs(world.slope(memorized)) * min(0.01, 0.1 * base)
    return -effect * margin, margin


def judged(worlds: Sequence[World], effect: float, n: int, rng: np.random.Generator) -> Verdict:
    """One repetition: doses chosen on calibration seeds, all rows on n test seeds. The schedule belongs to the first world."""
    calibration, test, first = Seeds(CALIBRATION, rng), Seeds(n, rng), worlds[0]
    schedule = calibration.row(first, "schedule", first.at)
    places = {}
    for world in worlds:
        curve = {dose: calibration.row(world, world.name, dose).hits for dose in COARSE}
        chosen = choose_doses(curve, schedule.hits, n)
        places[world.name] = [[test.row(world, world.name, dose) for dose in three] for three in chosen]
    row = test.row(first, "schedule", first.at, truth(first, effect)[0])
    return verdict("schedule", row, test.row(first, "base", 0.0), places, width=1)


@dataclass(frozen=True)
class Rates:
    """Over repetitions of one world: how often the intervals held the truth, and what the verdicts were."""

    coverage: float
    relative_coverage: float  # of the residual in percent of the baseline's distance
    outcomes: Mapping[str, float]
    error_in_margins: float  # median standard error of the residual
    judged: float  # share in which there were copies enough, and the doses enclosed the schedule


def rates(world: World, effect: float, n: int, repetitions: int, seed: int = 0) -> Rates:
    """Of the verdict against the schedule's own family, the schedule lying ``effect`` margins below its curve."""
    rng = np.random.default_rng([seed, n, round(100 * abs(effect)), effect < 0, *world.name.encode()])
    r, _ = truth(world, effect)
    return summary([judged([world], effect, n, rng) for _ in range(repetitions)], r, world.curve(world.memorized(0.0)))


def summary(verdicts: Sequence[Verdict], r: float, base: float) -> Rates:
    """Of the verdicts against the first family, r being the true residual and base the true distance of the baseline."""
    found = [v.families[0] for v in verdicts if v.families]
    reached = [(v.residual, v.relative, v.margin) for v in found if v.residual is not None]
    counts = Counter[str](v.outcome for v in found)
    shares = [relative for _, relative, _ in reached if relative is not None]
    return Rates(
        coverage=float(np.mean([residual.low <= r <= residual.high for residual, _, _ in reached])),
        relative_coverage=float(np.mean([each.low <= r / base <= each.high for each in shares]))
        if shares
        else float("nan"),
        error_in_margins=float(np.median([residual.error / margin for residual, _, margin in reached])),
        judged=len(reached) / len(verdicts),
        outcomes={name: counts[name] / len(verdicts) for name in OUTCOMES},
    )


def all_families(effect: float, n: int, repetitions: int, seed: int = 0) -> dict[str, float]:
    """Outcomes of a schedule judged against three families at once, ``effect`` margins below the lowest of their curves."""
    rng = np.random.default_rng([seed, n, round(100 * abs(effect)), effect < 0])
    flat_below_steep = [WORLDS[3], WORLDS[0], WORLDS[1]]
    found = Counter[str](judged(flat_below_steep, effect, n, rng).outcome for _ in range(repetitions))
    return {name: found[name] / repetitions for name in OUTCOMES}


def alike_families(count: int, n: int, repetitions: int, corrected: bool = True, seed: int = 0) -> float:
    """How often a schedule on the curves of ``count`` families, all like noise, is called worse than any of them."""
    rng = np.random.default_rng([seed, n, count])
    worlds = [replace(WORLDS[2], name=f"{WORLDS[2].name} {i}") for i in range(count)]
    found = [judged(worlds, 0.0, n, rng) for _ in range(repetitions)]
    if corrected:
        return sum(v.outcome == "worse" for v in found) / repetitions
    return sum(any(f.p_worse < 0.025 for f in v.families) for v in found) / repetitions


def frechet_rates(n: int, d: int, repetitions: int, seed: int = 0) -> float:
    """Coverage with real features: the extrapolated Fréchet distance of Gaussians, whose truth is known in closed form.

    The family shrinks features and adds noise to them; the schedule shrinks half of them.
    """
    rng = np.random.default_rng([seed, n, d])
    reference = GaussianReference(torch.zeros(d), torch.eye(d))
    memorized, shift, half = _falling(0.65, 0.25, 1.2), 0.5, np.arange(d) < d // 2

    def scale(dose: float) -> float:
        return float(np.sqrt((1 - 0.3 * dose) ** 2 + (0.2 * dose) ** 2))

    def distance(spread: Floats) -> float:
        return float(((spread - 1) ** 2).sum() + shift**2)

    def row(z: Floats, noise: Floats, dose: float, own: float | None = None) -> Observed:
        x = (1 - 0.3 * dose) * z + 0.2 * dose * noise if own is None else z * np.where(half, own, 1.0)
        features = torch.from_numpy(x + shift * (np.arange(d) == 0))
        influence = reference.estimate(features).influence
        assert influence is not None
        return Observed(
            z[:, 0] < NORMAL.inv_cdf(memorized(dose)),
            frechet=Estimate.of(extrapolated_distance(reference, features), influence),
        )

    at, own = 0.43, 0.9
    doses = [0.2, 0.43, 0.6]  # 6 points and more apart in M
    r = distance(np.where(half, own, 1.0)) - distance(np.full(d, scale(at)))
    found = []
    for _ in range(repetitions):
        z, noise = rng.standard_normal((2, n, d))
        points = [row(z, noise, dose) for dose in doses]
        found.append(residual(row(z, noise, at, own), points, "frechet"))
    inside = [each.estimate.low <= r <= each.estimate.high for each in found if each]
    return float(np.mean(inside))


def near_rates(n: int, d: int, repetitions: int, seed: int = 0) -> tuple[float, float]:
    """(coverage, share below 0) of the extrapolated Fréchet distance of a model close to real data, truth .028 at d = 64."""
    rng = np.random.default_rng([seed, n, d])
    reference = GaussianReference(torch.zeros(d), torch.eye(d))
    spread = 1 + 0.02 * np.where(np.arange(d) % 2, 1, -1)
    true, values = float(((spread - 1) ** 2).sum() + 0.05**2), []
    for _ in range(repetitions):
        features = torch.from_numpy(spread * rng.standard_normal((n, d)) + 0.05 * (np.arange(d) == 0))
        influence = reference.estimate(features).influence
        assert influence is not None
        values.append(Estimate.of(extrapolated_distance(reference, features), influence))
    covered = np.mean([value.low <= true <= value.high for value in values])
    return float(covered), float(np.mean([value.value < 0 for value in values]))


def reference_rates(n: int, m: int, d: int, repetitions: int, seed: int = 0) -> dict[str, float]:
    """Coverage of changes in % of the baseline's distance, real images redrawn each time: with their error and without.

    Features are Gaussian. The truth is the mean over all sets of m real images: the Fréchet distance to few is larger than that
    to many, and the kernel distance is unbiased.
    """
    rng = np.random.default_rng([seed, n, m, d])
    base, own = np.full(d, 1.3), np.where(np.arange(d) % 2, 1.5, 1.25)

    def drawn() -> RealFeatures:
        return RealFeatures(torch.from_numpy(rng.standard_normal((m, d))))

    def frechet(spread_: Floats, references: Sequence[RealFeatures]) -> float:
        exact = torch.zeros(d), torch.from_numpy(np.diag(spread_**2))
        return float(np.mean([real.gaussian.distance(*exact) for real in references]))

    def kernel(spread_: Floats) -> float:  # mean of (1 + x . y / d)^3, twice within and once between
        return 3 * float(((spread_**2 - 1) ** 2).sum()) / d**2

    some = [drawn() for _ in range(100)]
    truth = {"frechet": frechet(own, some) / frechet(base, some) - 1, "kernel": kernel(own) / kernel(base) - 1}
    inside: dict[str, list[bool]] = {}
    for _ in range(repetitions):
        z, real = rng.standard_normal((n, d)), drawn()
        before, after = (real.estimates(torch.from_numpy(spread_ * z)) for spread_ in (base, own))
        for name, true in truth.items():
            change = (after[name] - before[name]) / before[name]
            for how, estimate in (("with", change), ("without", change.conditional)):
                inside.setdefault(f"{name} {how}", []).append(estimate.low <= true <= estimate.high)
    return {name: float(np.mean(found)) for name, found in inside.items()}


def replicate_rates(spread_: float, n: int, repetitions: int, runs: int = 3, seed: int = 0) -> dict[str, float]:
    """How often a schedule without a benefit is called better, or worse, in each of some training seeds.

    Training seeds change plain sampling's distance, and what the schedule does to it, by the standard deviation ``spread_``.
    Keys: the outcome, with the spread as a floor of dQ and without.
    """
    rng = np.random.default_rng([seed, n, runs, round(1000 * spread_)])
    world = WORLDS[1]
    margin = truth(world, 1.0)[1]
    found = Counter[str]()
    for _ in range(repetitions):
        entries = []
        for _ in range(runs):
            verdict_ = judged([world], rng.normal(0, spread_) / margin, n, rng)
            quality = world.curve(world.memorized(0.0)) * (1 + rng.normal(0, spread_))
            entries.append(_result(verdict_, quality))
        floor = spread(entries)
        for how, some in (("without", entries), ("with", [with_floor(entry, floor) for entry in entries])):
            found.update(
                f"{outcome} {how}" for outcome in ("better", "worse") if {e.outcome for e in some} == {outcome}
            )
    return {
        name: found[name] / repetitions for name in ("better without", "better with", "worse without", "worse with")
    }


def _result(found: Verdict, base_quality: float) -> VerdictResult:
    families = tuple(
        FamilyResult(f.family, f.outcome, residual=Interval(*f.residual) if f.residual else None, margin=f.margin)
        for f in found.families
    )
    margin = MarginResult(found.margin.memorized, found.margin.quality)
    return VerdictResult(
        found.schedule,
        "base",
        found.outcome,
        measure="kernel",
        base_quality=base_quality,
        margin=margin,
        families=families,
    )


def correlation_rates(name: str, classes: int, n: int, repetitions: int, seed: int = 0) -> tuple[float, float]:
    """(mean, coverage of 0) of rank correlations of measurements that are independent given what is held fixed.

    Args:
        name: "lines" or "curves" in a covariate, plus the class; or "spread", where nothing is held fixed.
        classes: how many; 1 holds no class fixed.
        n: samples.
        repetitions: simulated data sets.
        seed: of all draws.
    """
    rng = np.random.default_rng([seed, n, classes])
    found = []
    for _ in range(repetitions):
        w, e, f = rng.standard_normal((3, n))
        label = rng.integers(classes, size=n)
        strata = label if classes > 1 else None
        if name == "lines":
            found.append(partial_spearman(w + label + e, w + label + f, {"w": w}, strata))
        elif name == "curves":
            found.append(partial_spearman(w**3 + label + e, np.exp(w) + label + f, {"w": w}, strata))
        else:
            found.append(spearman(w, w * e))
    return float(np.mean([x.value for x in found])), float(
        np.mean([x.low is not None and x.high is not None and x.low <= 0 <= x.high for x in found])
    )


def table(repetitions: int, say: Callable[[str], None]) -> list[str]:
    """Lines of Markdown."""
    lines: list[str] = []

    def add(*cells: object) -> None:
        lines.append(f"| {' | '.join(map(str, cells))} |")
        say(lines[-1])

    def head(*names: str) -> None:
        lines.append("")
        add(*names)
        lines.append("|---" * len(names) + "|")

    head(
        "family's curve",
        "n",
        "95% intervals cover",
        "as % of the baseline",
        "false better, truly equal",
        "false worse, truly equal",
        "no better, truly equal",
        "false no better at 1 margin",
        "at 2 margins",
        "better, by 2 margins",
        "worse, by 2 margins",
        "error / margin",
        "judged",
    )
    for world in WORLDS:
        for n in (500, 2000):
            null, edge, below, above = (rates(world, effect, n, repetitions) for effect in (0.0, 1.0, 2.0, -2.0))
            found = (null, edge, below, above)
            cover, relative = (np.mean([getattr(x, name) for x in found]) for name in ("coverage", "relative_coverage"))
            add(world.name, f"{n:,}", f"{cover:.1%}", f"{relative:.1%}", f"{null.outcomes['better']:.1%}",
                f"{null.outcomes['worse']:.1%}", f"{null.outcomes['no better']:.1%}", f"{edge.outcomes['no better']:.1%}",
                f"{below.outcomes['no better']:.1%}", f"{below.outcomes['better']:.1%}", f"{above.outcomes['worse']:.1%}",
                f"{null.error_in_margins:.2f}", f"{null.judged:.0%}")  # fmt: skip
    head("schedule against three families at once, n = 2,000", *OUTCOMES)
    for effect, words in (
        (-2.0, "2 margins above the lowest curve"),
        (0.0, "on it"),
        (1.0, "1 margin below it"),
        (2.0, "2 margins below it"),
    ):
        found_shares = all_families(effect, 2000, repetitions)
        add(words, *(f"{found_shares[name]:.1%}" for name in OUTCOMES))
    head("twelve families like noise, n = 500, truly equal", "worse than any")
    for words, corrected in (("without Holm's correction", False), ("with it", True)):
        add(words, f"{alike_families(12, 500, repetitions // 2, corrected):.1%}")
    head("extrapolated Fréchet distance of Gaussian features", "d", "n", "95% intervals cover", "below 0")
    for d, n in ((64, 320), (64, 640), (64, 1280)):
        covered, negative = near_rates(n, d, 4 * repetitions)
        add("a model close to real data", d, f"{n:,} = {n // d} d", f"{covered:.1%}", f"{negative:.1%}")
    for d, n in ((8, 400), (64, 640)):
        add(
            "residual to a family's curve", d, f"{n:,} = {n // d} d", f"{frechet_rates(n, d, repetitions // 3):.1%}", ""
        )
    head("change in % of the baseline's distance, real images redrawn", "features", "seeds", "real images",
         "95% intervals cover", "without the real images' error")  # fmt: skip
    for d, n, m in ((16, 1000, 200), (16, 1000, 1000), (64, 1000, 320), (64, 1000, 1000)):
        covers = reference_rates(n, m, d, repetitions // 2)
        for name, words in (("frechet", "extrapolated Fréchet distance"), ("kernel", "kernel distance")):
            add(words, d, f"{n:,}", f"{m:,}", f"{covers[f'{name} with']:.1%}", f"{covers[f'{name} without']:.1%}")
    head("no benefit, three training seeds, n = 500; standard deviation between them", "better in each", "with its floor",
         "worse in each", "with its floor")  # fmt: skip
    for between in (0.05, 0.1):
        add(
            f"{between:.0%} of the distance", *(f"{x:.1%}" for x in replicate_rates(between, 500, repetitions).values())
        )
    head("rank correlation of what is independent", "classes", "n", "mean", "95% intervals cover")
    for name, words in (("lines", "given a covariate: lines"), ("curves", "given a covariate: curves")):
        for classes in (1, 5, 10):
            for n in (128, 256, 512, 2000):
                mean, covered = correlation_rates(name, classes, n, repetitions)
                add(words, classes, f"{n:,}", f"{mean:+.4f}", f"{covered:.1%}")
    for n in (256, 2000):
        mean, covered = correlation_rates("spread", 1, n, repetitions)
        add("spread of y depends on x", 1, f"{n:,}", f"{mean:+.4f}", f"{covered:.1%}")
    return lines[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--page", type=Path, help="where to write the page")
    arguments = parser.parse_args()
    begin = time.process_time()
    lines = table(arguments.repetitions, lambda line: print(line, flush=True))
    took = time.process_time() - begin
    print(f"{took:.0f} s")
    if arguments.page:
        libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "scipy"))
        command = "python -m benchmarks.verdict_simulation " + " ".join(sys.argv[1:])
        head = [
            "# Error rates of verdicts, simulated",
            "",
            f"`{command}`, {date.today()}, {took:.0f} s of one core, Python {platform.python_version()}, {libraries}.",
            "",
            f"{arguments.repetitions} repetitions per line (fewer in the last tables), so a rate of 3% is known to about "
            f"{100 * np.sqrt(0.03 * 0.97 / arguments.repetitions):.1f} points. Each repetition calibrates a family on "
            f"{CALIBRATION} seeds, chooses its doses there, samples all rows on n other seeds and judges. The true curves and "
            "how seeds are drawn are in `benchmarks/verdict_simulation.py`. "
            'At 1 margin 2.5% of false "no better" are allowed. "Judged" is the share with enough copies and with doses '
            "that enclose the schedule. Rank correlations hold fixed what both measurements depend on.",
            "",
        ]
        arguments.page.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
