"""``fm-lightning compare RUN_DIR RUN_DIR ...``: effects and verdicts across runs; nothing is sampled.

Writes ``compare.html``, ``compare.csv`` and ``compare.json``. Runs of one configuration and several training seeds are
replicates and are combined; runs on other data stand beside them.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from PIL import Image

from fm_lightning.comparison.results import read_results
from fm_lightning.errors import OldError, UserError
from fm_lightning.files import write_whole
from fm_lightning.report.run_forest import run_forest
from fm_lightning.report.run_page import render
from fm_lightning.report.run_table import print_table
from fm_lightning.report.style import png
from fm_lightning.study.across_runs import build, flat, to_csv
from fm_lightning.study.replicates import NAMED, Run, experiments
from fm_lightning.table.evaluation import Evaluation

ENDS = {"": "value", "_lo": "low", "_hi": "high"}
NAMES = 4  # runs that a directory's name spells out


def main(args: Sequence[str]) -> None:
    """Compares finished runs.

    Raises:
        UserError: fewer than two runs, one that is not finished or given twice, rows that mean different things under one
            name, or a directory to write to that holds something.
    """
    given = _parser().parse_args(args)
    if len(given.runs) < 2:
        raise OldError(
            f"{len(given.runs)} run{'' if len(given.runs) == 1 else 's'} given",
            "at least two run directories",
            "type fm-lightning compare runs/A runs/B runs/C",
        )
    paths = [Path(text) for text in given.runs]
    for i, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:i]]:
            raise OldError(f"{path} given twice", "different runs", "leave one out")
    names = [path.resolve().name for path in paths]
    out = _free(given.out, names)
    unique = len(set(names)) == len(names)
    runs = [read(path, name if unique else str(path)) for path, name in zip(paths, names)]
    comparison = build(experiments(runs))
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "compare.json", json.dumps(comparison, indent=1, ensure_ascii=False))
    write_whole(out / "compare.csv", to_csv(comparison))
    print_table(comparison)
    write_whole(out / "compare.html", render(comparison, out.name))
    print(f"\nReport: {out / 'compare.html'}")
    if given.wandb:
        log(comparison, out)


def read(path: Path, name: str) -> Run:
    """A finished comparison.

    Raises:
        UserError: it is none, or it is not finished.
    """
    if not path.is_dir():
        raise OldError(f"{path} given", "an existing run directory", "type fm-lightning compare runs/A runs/B")
    evaluation = Evaluation.open(path)
    finish = f"type fm-lightning test -c {path}/config.yaml"
    for row, about in evaluation.rows.items():
        if about["kind"] in NAMED and (there := evaluation.count(row)) < len(evaluation.seeds):
            raise OldError(
                f"{path} holds an unfinished comparison ({there:,} of {len(evaluation.seeds):,} seeds of {row})",
                "a finished one",
                f"{finish}",
            )
    results = read_results(path)
    samples = {row.name: row.samples for row in results.rows}
    named = [row for row, about in evaluation.rows.items() if about["kind"] in NAMED]
    if "base" not in named or any(samples.get(row) != len(evaluation.seeds) for row in named):
        raise UserError(f"{path}/results.json is older than its evaluation.", f"Run fm-lightning report {path}")
    return Run(name, results, evaluation)


def log(comparison: Mapping[str, Any], out: Path) -> None:
    """The comparison as a W&B run of its own; ``WANDB_MODE=offline`` needs no account."""
    import wandb  # here, because it takes a second that comparisons without W&B need not wait

    try:
        run = wandb.init(
            project="fm_lightning",
            name=out.name,
            job_type="compare",
            dir=str(out.resolve()),
            config=_config(comparison),
        )
    except wandb.errors.UsageError as error:
        raise OldError(
            f"--wandb given without a W&B account ({' '.join(str(error).split())})",
            "one, or offline logging",
            "type WANDB_MODE=offline before the command",
        ) from error
    found = list(flat(comparison))
    media: dict[str, Any] = {
        "compare/effects": wandb.Table(columns=list(found[0]), data=[list(line.values()) for line in found])
        if found
        else None,
        "compare/verdicts": _verdicts(comparison, wandb),
        "compare/report": wandb.Html(str(out / "compare.html")),
    }
    figure = run_forest(comparison)
    if figure is not None:
        media["compare/forest"] = wandb.Image(Image.open(io.BytesIO(png(figure))))
    run.log({name: value for name, value in media.items() if value is not None})
    run.summary.update(_numbers(comparison) | {"headline": comparison["headline"]})
    run.finish()


def _config(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """What was compared: the runs by their names, and which of them are replicates."""
    entries = comparison["experiments"]
    about = ("samples", "base_seed", "training_data", "weights")
    runs = {run["name"]: {key: run[key] for key in about} for entry in entries for run in entry["runs"]}
    return {"runs": runs, "replicates": [[run["name"] for run in entry["runs"]] for entry in entries]}


def _numbers(comparison: Mapping[str, Any]) -> dict[str, Any]:
    """``SCHEDULE/MEASURE``, over replicates where there are some; of several experiments ``RUN/SCHEDULE/MEASURE``."""
    numbers: dict[str, Any] = {}
    for entry in comparison["experiments"]:
        prefix = f"{entry['runs'][0]['name']}/" if len(comparison["experiments"]) > 1 else ""
        for schedule in entry["schedules"]:
            name = f"{prefix}{schedule['schedule']}"
            for measure, effect in schedule["effects"].items():
                found = effect["combined"] or next(iter(effect["runs"].values()))
                numbers |= {f"{name}/{measure}{end}": found[key] for end, key in ENDS.items()}
            if schedule["verdict"]:
                numbers[f"{name}/verdict"] = schedule["verdict"]["sentence"]
    return numbers


def _verdicts(comparison: Mapping[str, Any], wandb: Any) -> Any:
    """One line per experiment, schedule and run that judged it."""
    data = [
        [entry["number"], schedule["schedule"], run, outcome, schedule["verdict"]["sentence"]]
        for entry in comparison["experiments"]
        for schedule in entry["schedules"]
        if schedule["verdict"]
        for run, outcome in schedule["verdict"]["outcomes"].items()
    ]
    return wandb.Table(columns=["experiment", "schedule", "run", "outcome", "together"], data=data) if data else None


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OldError(
            f"{message}", "run directories, --out DIR, --wandb", "type fm-lightning compare runs/A runs/B runs/C"
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="fm-lightning compare", description="Compare the schedules of several runs.")
    parser.add_argument("runs", nargs="*", metavar="RUN_DIR", help="a finished run, e.g. runs/digits-1")
    parser.add_argument("--out", type=Path, help="a new directory to write to (default: runs/compare-NAME1-NAME2...)")
    parser.add_argument("--wandb", action="store_true", help="log the comparison to W&B as a run of its own")
    return parser


def _free(out: Path | None, names: Sequence[str]) -> Path:
    """Where to write: nothing that is there is overwritten."""
    if out is not None:
        if out.exists() and not _unfinished(out):
            raise OldError(f"out={out} given, which holds files", "a new or empty directory", "name another")
        return out
    rest = [f"and-{len(names) - NAMES}-more"] if len(names) > NAMES else []
    first = Path("runs") / "-".join(["compare", *names[:NAMES], *rest])
    found, n = first, 1
    while found.exists() and not _unfinished(found):
        n += 1
        found = first.with_name(f"{first.name}-{n}")
    return found


def _unfinished(out: Path) -> bool:
    """Whether it is empty, or a comparison that a full disk or a kill cut off: the page, which comes last, is missing."""
    names = [file.name.removeprefix(".") for file in out.iterdir()] if out.is_dir() else [""]
    return all(name.startswith(("compare.json", "compare.csv", "compare.html.")) for name in names)
