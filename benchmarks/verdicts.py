"""What verdicts cost: evaluations of the families in addition to base's, and the kernel distance with its influences.

    python -m benchmarks.verdicts [--threads 2] [--json FILE]

Evaluations are counted per seed by sampling with a network that counts, beginnings shared; the doses are the three in the
middle of each family's range. A calibration is that of one schedule whose memorized share is .55, base's being .7, where a
family reaches .05, .3 or .5 at its largest dose: the mean of the three. Kernel distance: 10 000 samples and 10 000 real
images of 2 048 features.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.timing import arguments, clocked, finish, target
from fm_lightning.comparison.families import AVERAGE, EARLIER_CHECKPOINT, LESS_GUIDANCE, Family, families, own_doses
from fm_lightning.comparison.progress import evaluations
from fm_lightning.comparison.rows import BASE, Row, StoredVelocity
from fm_lightning.data.samples import CALIBRATION_SEEDS
from fm_lightning.flow import KTS, Schedule
from fm_lightning.metrics.mmd import KernelReference
from fm_lightning.verdicts.doses import next_doses

SHAPED = Schedule(KTS(0.02, 0.02), steps=100)  # as in configs/digits.yaml
PLAIN = Schedule(steps=100)
SIZE, SMOKE = (10_000, 2_048), (300, 64)


def cost(some: Sequence[Family], coarse: bool = False) -> float:
    """Evaluations that some families cost in addition to base, in units of base's."""
    rows = {BASE: Row("base", PLAIN)}
    for family in some:
        rows |= family_rows(family, family.doses if coarse else family.doses[1:4])
    return evaluations(rows, 1) / evaluations({BASE: rows[BASE]}, 1) - 1


def cost_of(family: Family, doses: Sequence[float]) -> float:
    """Evaluations of some doses alone, beginnings shared between them, in units of base's."""
    return evaluations(family_rows(family, doses), 1) / PLAIN.steps


def family_rows(family: Family, doses: Sequence[float]) -> dict[str, Row]:
    made = {f"{family.name}~{k}": family.at(PLAIN, dose) for k, dose in enumerate(doses)}
    return {name: each if isinstance(each, Row) else Row("family", each) for name, each in made.items()}


def model_families() -> list[Family]:
    """Families of a network: each dose is another network, and so a whole sampling."""

    def stored(name: str, base: Schedule, dose: float) -> Row:
        content = f"{name} {dose}"
        return Row("family", base, velocity=StoredVelocity(content, lambda device: nothing), content=content)

    def nothing(x: torch.Tensor, t: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return torch.zeros_like(x)

    names = (EARLIER_CHECKPOINT, AVERAGE)
    return [*(Family(name, partial(stored, name), (0.1, 0.2, 0.3, 0.4, 0.5)) for name in names), LESS_GUIDANCE]


def calibration(family: Family, fall: float) -> tuple[float, int]:
    """Evaluations over base's of one schedule's bisection, and its doses, where M falls to ``fall`` along the ladder."""
    ladder = family.ladder(PLAIN)
    latent = np.random.default_rng(0).permutation(CALIBRATION_SEEDS) / CALIBRATION_SEEDS

    def hits(dose: float) -> np.ndarray:
        place = ladder.index(dose) / (len(ladder) - 1)
        return latent < 0.7 - (0.7 - fall) * place**1.5

    sampled, total = {0.0: hits(0.0)}, 0.0
    mine = latent < 0.55
    doses = list(family.together) or next_doses(sampled, mine, 2000, ladder)
    while doses:
        total += cost_of(family, doses)
        sampled |= {dose: hits(dose) for dose in doses}
        doses = next_doses(sampled, mine, 2000, ladder)
    return total, len(sampled) - 1


def megabytes() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    sampler = [f for f in families(PLAIN) if f.direction != "raises"]
    known = [*sampler, *model_families()]
    cheap = [f for f in known if f.cheap]
    own = {name: Row("family", s) for name, s in enumerate(own_doses(SHAPED).values())}
    own_cost = evaluations({BASE: Row("base", PLAIN), **{str(k): row for k, row in own.items()}}, 1) / PLAIN.steps - 1
    counted = {
        "cheap": cost(cheap),
        "sampler": cost(sampler),
        "all": cost(known),
        "cheap_calibration": cost(cheap, coarse=True),
        "all_calibration": cost(known, coarse=True),
        "own_doses": own_cost,
    }
    counted |= {f.name: cost([f]) for f in known}
    for family in known:
        if not family.together:  # those are sampled with base, at once
            costs, doses = zip(*(calibration(family, fall) for fall in (0.05, 0.3, 0.5)))
            counted[f"{family.name}: calibration"] = sum(costs) / len(costs)
            counted[f"{family.name}: calibration doses"] = sum(doses) / len(doses)

    size, width = SMOKE if given.smoke else SIZE
    generator = torch.Generator().manual_seed(0)
    real, samples = (torch.randn(size, width, generator=generator) for _ in range(2))
    before = megabytes()
    reference, found = None, None

    def prepare() -> None:
        nonlocal reference
        reference = KernelReference(real)

    def measure() -> None:
        nonlocal found
        assert reference is not None
        found = reference.estimate(samples)

    own_seconds, _ = clocked(prepare)
    seconds, _ = clocked(measure)
    assert found is not None
    kernel = {
        "samples": size,
        "features": width,
        "reference_s": own_seconds,
        "influence_s": seconds,
        "extra_mb": megabytes() - before,
        "table_mb": size * size * 4 / 2**20,  # what one whole table of kernels would take
    }
    for name, value in (counted | kernel).items():
        print(f"{name} {value:.4g}")
    finish(
        "verdicts",
        [{"evaluations": counted}, {"kernel": kernel}],
        [
            target("evaluations of the cheap families at three doses, over base's", counted["cheap"], 1.7),
            target("evaluations of the sampler's families at three doses, over base's", counted["sampler"], 7.5),
            target("evaluations of all families at three doses, over base's", counted["all"], 17),
        ],
        given.json,
    )


if __name__ == "__main__":
    main()
