"""Error rates of verdicts on synthetic seeds with known truth: calibration, choice of doses, judgement, all as in a real run.

    python -m benchmarks.verdict_simulation [--repetitions 400] [--page docs/results/verdict_simulation.md]

A world is a family with a true curve Q(M). A seed's sample is a copy where a normal latent, part of it drawn anew by the
manipulation, falls below the quantile of M; its contribution to the distance is Q(M), plus what all rows share, plus what the
manipulation adds, plus a part that goes with being a copy. The schedule is put at a known residual to the curve.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray

from fm_lightning.metrics.extrapolated import extrapolated_distance
from fm_lightning.metrics.frechet import GaussianReference
from fm_lightning.verdicts.doses import choose_doses
from fm_lightning.verdicts.outcomes import Verdict
from fm_lightning.verdicts.residual import Measured, Quality
from fm_lightning.verdicts.verdict import verdict

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
        fresh: share of the latent that the largest dose draws anew.
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
COARSE = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)


class Seeds:
    """What seeds have in common over all rows, and what each manipulation draws for them."""

    def __init__(self, n: int, rng: np.random.Generator) -> None:
        self.n, self.rng = n, rng
        self.latent, self.shared = rng.standard_normal((2, n))
        self.own: dict[str, Floats] = {}

    def row(self, world: World, owner: str, dose: float, shift: float = 0.0) -> Measured:
        """The family at a dose, or a schedule that does the same and lies ``shift`` away from the curve."""
        fresh, added = self.own.setdefault(owner, self.rng.standard_normal((2, self.n)))
        memorized = world.memorized(dose)
        part = world.fresh * dose
        hits = np.sqrt(1 - part) * self.latent + np.sqrt(part) * fresh < NORMAL.inv_cdf(memorized)
        share = hits.mean()
        q = self.shared + world.spread * np.sqrt(dose) * added - 0.5 * (hits - memorized)
        value = world.curve(memorized) + shift + q.mean()
        assert 0 < share < 1
        return Measured(hits, kernel=Quality(float(value), q - q.mean()))


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
    """Over repetitions of one world: how often the interval held the truth, and what the verdicts were."""

    coverage: float
    better: float
    explained: float
    undecided: float
    error_in_margins: float  # median standard error of the residual
    judged: float  # share in which there were copies enough, and the doses enclosed the schedule


def rates(world: World, effect: float, n: int, repetitions: int, seed: int = 0) -> Rates:
    """Of the verdict against the schedule's own family, the schedule lying ``effect`` margins below its curve."""
    rng = np.random.default_rng([seed, n, round(100 * effect), *world.name.encode()])
    r, _ = truth(world, effect)
    return summary([judged([world], effect, n, rng) for _ in range(repetitions)], r)


def summary(verdicts: Sequence[Verdict], r: float) -> Rates:
    """Of the verdicts against the first family, r being the true residual; refused ones have none."""
    found = [v.families[0] for v in verdicts if v.families]
    reached = [v for v in found if v.residual is not None]
    outcome = {
        name: sum(v.outcome == name for v in found) / len(verdicts) for name in ("better", "explained", "undecided")
    }
    return Rates(
        coverage=float(np.mean([v.residual.low <= r <= v.residual.high for v in reached if v.residual])),
        error_in_margins=float(np.median([v.residual.error / v.margin for v in reached if v.residual])),
        judged=len(reached) / len(verdicts),
        **outcome,
    )


def all_families(effect: float, n: int, repetitions: int, seed: int = 0) -> dict[str, float]:
    """Shares of the verdict on a schedule judged against three families at once, on or below the lowest of their curves."""
    rng = np.random.default_rng([seed, n, round(100 * effect)])
    flat_below_steep = [WORLDS[3], WORLDS[0], WORLDS[1]]
    outcomes = [judged(flat_below_steep, effect, n, rng).outcome for _ in range(repetitions)]
    return {name: outcomes.count(name) / repetitions for name in ("better", "explained", "undecided")}


def frechet_rates(n: int, d: int, repetitions: int, seed: int = 0) -> Rates:
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

    def row(z: Floats, noise: Floats, dose: float, own: float | None = None) -> Measured:
        x = (1 - 0.3 * dose) * z + 0.2 * dose * noise if own is None else z * np.where(half, own, 1.0)
        features = torch.from_numpy(x + shift * (np.arange(d) == 0))
        influence = reference.estimate(features).influence
        return Measured(
            z[:, 0] < NORMAL.inv_cdf(memorized(dose)),
            frechet=Quality(extrapolated_distance(reference, features), influence),
        )

    at, own = 0.43, 0.9
    doses = [0.2, 0.43, 0.6]  # 6 points and more apart in M
    r = distance(np.where(half, own, 1.0)) - distance(np.full(d, scale(at)))
    found = []
    for _ in range(repetitions):
        z, noise = rng.standard_normal((2, n, d))
        places = {"shrink and noise": [[row(z, noise, dose) for dose in doses]]}
        schedule, base = row(z, noise, at, own), row(z, noise, 0.0)
        found.append(verdict("schedule", schedule, base, places, width=d))
    return summary(found, r)


def table(repetitions: int, say: Callable[[str], None]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "| family's curve | n | coverage of 95 % | false better | explained, truly equal | false explained at 1 margin | "
        "at 2 margins | better, truly by 2 margins | error / margin | judged |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for world in WORLDS:
        for n in (1000, 2000):
            null, edge, twice = (rates(world, effect, n, repetitions) for effect in (0.0, 1.0, 2.0))
            coverage = (null.coverage + edge.coverage + twice.coverage) / 3
            lines.append(
                f"| {world.name} | {n} | {coverage:.1%} | {null.better:.1%} | {null.explained:.1%} | {edge.explained:.1%} | "
                f"{twice.explained:.1%} | {twice.better:.1%} | {null.error_in_margins:.2f} | {null.judged:.0%} |"
            )
            say(lines[-1])
    lines += [
        "",
        "| schedule against three families at once, n = 2000 | better | explained | undecided |",
        "|---|---|---|---|",
    ]
    for effect, words in ((0.0, "on the lowest curve"), (1.0, "1 margin below it"), (2.0, "2 margins below it")):
        found = all_families(effect, 2000, repetitions)
        lines.append(f"| {words} | {found['better']:.1%} | {found['explained']:.1%} | {found['undecided']:.1%} |")
        say(lines[-1])
    lines += [
        "",
        "| extrapolated Fréchet distance of Gaussian features | d | n | coverage of 95 % |",
        "|---|---|---|---|",
    ]
    for d, n in ((8, 400), (64, 320), (64, 1280)):
        found_rates = frechet_rates(n, d, repetitions // 3)
        lines.append(f"| n = {n // d} d | {d} | {n} | {found_rates.coverage:.1%} |")
        say(lines[-1])
    return lines


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
            f"{arguments.repetitions} repetitions a line, so a rate of 3 % is known to about "
            f"{100 * np.sqrt(0.03 * 0.97 / arguments.repetitions):.1f} points. Each repetition calibrates a family on "
            f"{CALIBRATION} seeds, chooses its doses there, samples all rows on n other seeds and judges. The true curves and "
            "what is drawn stand in `benchmarks/verdict_simulation.py`. "
            '"Explained at 1 margin" is the boundary itself, where 2.5 % are allowed. "Judged" are those in which there were '
            "copies enough and the doses enclosed the schedule.",
            "",
        ]
        arguments.page.write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
