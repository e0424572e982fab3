"""Verdicts on schedules of which it is known what they must be: nulls and a positive control, on real digits.

    fm-lightning run -c configs/digits.yaml -c docs/results/digits/controls.yaml --name controls-0
    python -m benchmarks.verdict_controls runs/controls-0 ... --csv controls.csv

Two controls are more than a schedule can say, so a network says them, at times that no other schedule has on its grid: samples
redrawn from other noise, and samples replaced by unseen real digits.
"""

from __future__ import annotations

import argparse
import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from fm_lightning.comparison.families import families
from fm_lightning.comparison.judge import judge_all
from fm_lightning.data.digits import load_digits, split
from fm_lightning.data.split import unit_pixels
from fm_lightning.flow import Schedule
from fm_lightning.nets import ResidualMLP
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.verdicts.outcomes import FamilyVerdict
from fm_lightning.verdicts.verdict import Verdict

REDRAW = 2e-4  # a grid that has this time, then 0.01, continues from other noise
REPLACE = 0.9999  # a grid that has this time before 1 ends with real digits in a share of its samples
STEP = 0.01
SHARE = 0.1
# Row -> the family that it is a member of.
MEMBERS = {
    "noise": "noise",
    "noise_again": "noise",
    "blend": "blend",
    "stop": "early stop",
    "stop_again": "early stop",
    "brake": "late brake",
    "noise_at_9": "noise at .9",
    "steps": "fewer steps",
    "gain": "constant gain",
    "hot": "noise temperature",
    "hot_again": "noise temperature",
}
POSITIVE = "replaced"
WHAT = ("gain_1", "kts_0", "again", *MEMBERS)
FAMILIES = [family.name for family in families(Schedule())]
RULE = "|---"
COLUMNS = ["run", "row", "n", "f_mem", "f_mem_base", "verdict", "family", "outcome"]
COLUMNS += ["residual", "low", "high", "margin", "p_better"]


class ControlNet(ResidualMLP):
    """The residual MLP, but for what it does where it is told one of two times; training draws neither."""

    unseen: Tensor

    def __init__(self, shape: Sequence[int], width: int = 128, depth: int = 3) -> None:
        super().__init__(shape, width, depth)
        self.register_buffer("unseen", unit_pixels(load_digits()[0][split().held_out]), persistent=False)

    def forward(self, x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        if self._told(t, REDRAW):
            # Noise turned round and negated is noise as good; the step leads where it would have led from there.
            other = -x.flip(2, 3)
            return super().forward(other, t, y) + (other - x) / (STEP - REDRAW)
        v = super().forward(x, t, y)
        if self._told(t, REPLACE):
            chosen, image = self._drawn(x)
            v = torch.where(chosen[:, None, None, None], (image - x) / (1 - REPLACE), v)
        return v

    @staticmethod
    def _told(t: Tensor, time: float) -> bool:
        return bool((t == torch.tensor(time, dtype=t.dtype)).all())

    def _drawn(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``[B]`` which samples are replaced, and ``[B, 1, 8, 8]`` by what; drawn by the last digits of the samples."""
        weights = torch.arange(1, x[0].numel() + 1, dtype=torch.float64).sqrt()
        u = 1e4 * (x.flatten(1).double() @ weights).abs() % 1
        place = (u / SHARE * len(self.unseen)).long().clamp_max(len(self.unseen) - 1)
        return u < SHARE, self.unseen[place]


Verdicts = Sequence[Mapping[str, Verdict]]  # of each run, row -> its verdict


def nulls(verdicts: Verdicts) -> list[str]:
    """Members of families against their own family, a run after the other."""
    lines = [
        "| row | family | change of F_mem, points | residual ± 95% (margin) to its own family | verdict |",
        RULE * 5 + "|",
    ]
    for row in WHAT:
        found = [run[row] for run in verdicts]
        own = MEMBERS.get(row, "")
        change = ", ".join(f"{100 * (v.memorized - v.base_memorized):+.1f}" for v in found)
        against = ", ".join(_numbers(v, f) for v in found for f in v.families if f.family == own)
        lines.append(f"| {row} | {own} | {change} | {against} | {', '.join(v.refused or v.outcome for v in found)} |")
    return lines


def outcomes(verdicts: Verdicts) -> list[str]:
    """Rows x families: a letter for each run."""
    lines = ["| row | " + " | ".join(FAMILIES) + " |", RULE * (len(FAMILIES) + 1) + "|"]
    for row in [*MEMBERS, POSITIVE]:
        each = [{f.family: f.outcome[0] for f in run[row].families} for run in verdicts]
        letters = [" ".join(found.get(family, "-") for found in each) for family in FAMILIES]
        letters = [f"**{x}**" if family == MEMBERS.get(row) else x for family, x in zip(FAMILIES, letters)]
        lines.append(f"| {row} | " + " | ".join(letters) + " |")
    return lines


def positive(verdicts: Verdicts) -> list[str]:
    """The positive control against every family."""
    found = [run[POSITIVE] for run in verdicts]
    lines = ["| family | residual ± 95% (margin) |", RULE * 2 + "|"]
    for family in FAMILIES:
        each = ", ".join(_numbers(v, f) for v in found for f in v.families if f.family == family)
        lines.append(f"| {family} | {each} |")
    return lines


def counts(verdicts: Verdicts) -> list[str]:
    """How often what came out, of the nulls as schedules and against their own families."""
    rows = [v for run in verdicts for row, v in run.items() if row != POSITIVE]
    own = [f for run in verdicts for row, family in MEMBERS.items() for f in run[row].families if f.family == family]
    judged = [(f.residual, f.margin) for f in own if f.residual is not None]
    outside = [abs(r.value) / margin for r, margin in judged if not r.low <= 0 <= r.high]
    return [
        f"nulls: {len(rows)}; outcomes {dict(Counter(v.outcome for v in rows))}",
        f"members against their own family: {len(own)}; outcomes {dict(Counter(f.outcome for f in own))}",
        f"their intervals hold 0 in {len(judged) - len(outside)} of {len(judged)}; of the others |r| / margin is at most "
        f"{max(outside, default=0):.2f}; of all {max(abs(r.value) / margin for r, margin in judged):.2f}",
        f"positive control: {dict(Counter(run[POSITIVE].outcome for run in verdicts))}",
    ]


def write(path: Path, runs: Sequence[str], verdicts: Verdicts) -> None:
    """All verdicts, a line for each run, row and family; distances in % of base's."""
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for name, found in zip(runs, verdicts):
            for row, v in found.items():
                about = [name, row, v.n, v.memorized, v.base_memorized, v.refused or v.outcome]
                for f in v.families:
                    r, scale = f.residual, 100 / v.base_quality
                    numbers = [] if r is None else [f"{scale * x:.3f}" for x in (r.value, r.low, r.high, f.margin)]
                    out.writerow([*about, f.family, f.outcome, *(numbers or [""] * 4), f"{f.p_better:.3g}"])
                if not v.families:
                    out.writerow([*about, *[""] * 7])


def _numbers(verdict: Verdict, family: FamilyVerdict) -> str:
    if family.residual is None:
        return "missed" if family.missed else "out of reach"
    r, scale = family.residual, 100 / verdict.base_quality
    half = scale * (r.high - r.value)
    return f"{scale * r.value:+.1f} ± {half:.1f} ({scale * family.margin:.1f}) {family.outcome[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--csv", type=Path, help="where to write all numbers")
    arguments = parser.parse_args()
    verdicts = [{v.schedule: v for v in judge_all(Evaluation.open(run))} for run in arguments.runs]
    for lines in (counts(verdicts), nulls(verdicts), outcomes(verdicts), positive(verdicts)):
        print("\n".join([*lines, ""]))
    if arguments.csv:
        write(arguments.csv, [run.name for run in arguments.runs], verdicts)


if __name__ == "__main__":
    main()
