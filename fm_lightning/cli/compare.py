"""``fm-lightning compare RUN_DIR RUN_DIR ...``: effects and verdicts across runs; nothing is sampled.

Writes ``compare.html``, ``compare.csv`` and ``compare.json``. Runs that were trained and measured in
the same way, with several training seeds, are replicates and are combined; other runs are shown separately.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fm_lightning.cli.arguments import options_and_runs
from fm_lightning.cli.configurations import SAVED
from fm_lightning.comparison.results import FILE as RESULTS
from fm_lightning.comparison.results import read_results
from fm_lightning.errors import UserError
from fm_lightning.files import csv_table, write_whole
from fm_lightning.report.run_forest import run_forest
from fm_lightning.report.run_page import print_table, render
from fm_lightning.report.style import png
from fm_lightning.study.across_runs import COLUMNS, build, flat
from fm_lightning.study.replicates import NAMED, Run, experiments
from fm_lightning.table.claim import RUNNING, Claim
from fm_lightning.table.evaluation import Evaluation

ENDS = {"": "value", "_lo": "low", "_hi": "high"}
NAMES = 4  # runs that a directory's name spells out


def main(args: Sequence[str]) -> None:
    """Compares finished runs.

    Raises:
        UserError: fewer than two runs, a run that is unfinished or named twice, rows that mean different things under one
            name, or an output directory that holds files.
    """
    paths, out, wandb = _read_arguments(args)
    names = [path.resolve().name for path in paths]
    out = _free(out, names)
    unique = len(set(names)) == len(names)
    runs = [read(path, name if unique else str(path)) for path, name in zip(paths, names)]
    comparison = build(experiments(runs))
    with Claim(out):
        _free(out, names)  # again: another command may have finished there
        write_whole(out / "compare.json", json.dumps(comparison, indent=1, ensure_ascii=False))
        write_whole(out / "compare.csv", csv_table(flat(comparison), COLUMNS))
        print_table(comparison)
        write_whole(out / "compare.html", render(comparison, out.name))
    print(f"\nReport: {out / 'compare.html'}")
    if wandb:
        log(comparison, out)


def read(path: Path, name: str) -> Run:
    """Reads a finished comparison.

    Raises:
        UserError: the directory holds no comparison, or an unfinished one.
    """
    evaluation = Evaluation.open(path)
    trained_here = (path / SAVED).exists()  # else compare_schedules() wrote the directory
    again = (
        f"Run fm-lightning test -c {path}"
        if trained_here
        else f"Call compare_schedules() again, with folder={str(path)!r}"
    )
    for row, about in evaluation.rows.items():
        if about["kind"] in NAMED and (there := evaluation.count(row)) < len(evaluation.seeds):
            seeds = f"{there:,} of {len(evaluation.seeds):,} seeds of {row}"
            raise UserError(f"{path} holds an unfinished comparison ({seeds}).", again)
    if not (trained_here or (path / RESULTS).exists()):
        raise UserError(f"{path} holds a comparison without results.", f"Run fm-lightning report {path}")
    results = read_results(path)
    samples = {row.name: row.samples for row in results.rows}
    named = [row for row, about in evaluation.rows.items() if about["kind"] in NAMED]
    if "base" not in named or any(samples.get(row) != len(evaluation.seeds) for row in named):
        raise UserError(f"{path}/results.json is older than its evaluation.", f"Run fm-lightning report {path}")
    return Run(name, results, evaluation)


def wandb_run(verb: str, folder: Path, config: dict[str, Any] | None = None) -> Any:
    """Starts a W&B run of its own for what a verb has written to a folder; ``WANDB_MODE=offline`` needs no account."""
    import wandb  # here, because it takes a second that commands without W&B need not wait

    try:
        return wandb.init(
            project="fm_lightning", name=folder.name, job_type=verb, dir=str(folder.resolve()), config=config
        )
    except wandb.errors.UsageError as error:
        problem = f"--wandb needs a W&B account ({' '.join(str(error).split())})."
        raise UserError(problem, "Run wandb login, or set WANDB_MODE=offline") from error


def log(comparison: Mapping[str, Any], out: Path) -> None:
    """The comparison as a W&B run."""
    run = wandb_run("compare", out, _config(comparison))
    import wandb

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


def _read_arguments(args: Sequence[str]) -> tuple[list[Path], Path | None, bool]:
    """The run directories, ``--out`` and ``--wandb``."""
    given, paths = options_and_runs("compare", args, ("--out", "--wandb"))
    if len(paths) < 2:
        raise UserError("compare needs at least two runs.", "Use fm-lightning compare runs/A runs/B")
    for i, path in enumerate(paths):
        if path.resolve() in [earlier.resolve() for earlier in paths[:i]]:
            raise UserError(f"{path} is named twice.", "Remove one of the two.")
    if "--out" in given and not given["--out"]:
        raise UserError("--out needs a directory.", "Use --out runs/comparison")
    return paths, Path(given["--out"] or "") if "--out" in given else None, "--wandb" in given


def _free(out: Path | None, names: Sequence[str]) -> Path:
    """A directory to write to; no file is overwritten."""
    if out is not None:
        if out.exists() and not _unfinished(out):
            raise UserError(f"{out} holds files.", "Name a new or empty directory with --out.")
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
    return all(name.startswith((RUNNING, "compare.json", "compare.csv", "compare.html.")) for name in names)
