"""What verdicts cost: evaluations of the families in addition to base's, and the kernel distance with its influences.

    python -m benchmarks.verdicts [--threads 2] [--json FILE]

Evaluations are counted per seed by sampling with a network that counts, beginnings shared; the doses are the three in the
middle of each family's range. Kernel distance: 10 000 samples and 10 000 real images of 2 048 features.
"""

from __future__ import annotations

import resource
from collections.abc import Sequence
from typing import cast

import torch

from benchmarks.timing import arguments, clocked, finish, target
from fm_lightning.comparison.families import Family, families, own_doses
from fm_lightning.comparison.rows import BASE, Row
from fm_lightning.comparison.sampling import evaluations
from fm_lightning.flow import KTS, Schedule
from fm_lightning.metrics.mmd import KernelReference

SHAPED = Schedule(KTS(0.02, 0.02), steps=100)  # as in configs/digits.yaml
PLAIN = Schedule(steps=100)
SIZE, SMOKE = (10_000, 2_048), (300, 64)


def cost(some: Sequence[Family], coarse: bool = False) -> float:
    """Evaluations that some families cost in addition to base, in units of base's."""
    rows = {BASE: Row("base", PLAIN)}
    for family in some:
        doses = family.doses if coarse else family.doses[1:4]
        rows |= {
            f"{family.name}~{k}": Row("family", cast(Schedule, family.at(PLAIN, dose))) for k, dose in enumerate(doses)
        }
    return evaluations(rows, 1) / evaluations({BASE: rows[BASE]}, 1) - 1


def megabytes() -> float:
    """The most memory that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    given = arguments(__doc__).parse_args()
    torch.set_num_threads(given.threads)
    known = [f for f in families(PLAIN) if f.direction != "raises"]
    cheap = [f for f in known if f.cheap]
    own = {name: Row("family", s) for name, s in enumerate(own_doses(SHAPED).values())}
    own_cost = evaluations({BASE: Row("base", PLAIN), **{str(k): row for k, row in own.items()}}, 1) / PLAIN.steps - 1
    counted = {
        "cheap": cost(cheap),
        "all": cost(known),
        "cheap_calibration": cost(cheap, coarse=True),
        "all_calibration": cost(known, coarse=True),
        "own_doses": own_cost,
    }
    counted |= {f.name: cost([f]) for f in known}

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
            target("evaluations of all families at three doses, over base's", counted["all"], 7.5),
        ],
        given.json,
    )


if __name__ == "__main__":
    main()
