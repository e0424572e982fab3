"""``fm-lightning study -c FILE`` runs a study's points one after the other; ``study RUN_DIR ...`` takes finished runs.

Each point is an ordinary run directory, ``ROOT/STUDY/POINT``, which ``fit`` trains and validates. Then the study's page, figures
and tables are written to ``ROOT/STUDY``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fm_lightning.cli import configurations
from fm_lightning.cli.arguments import check_key, run_directories, scan
from fm_lightning.cli.compare import wandb_run
from fm_lightning.cli.study_runs import Plan, check_options, differing, read_curves, run_missing
from fm_lightning.errors import UserError
from fm_lightning.report.study_page import PAGE, run_lines, write_study
from fm_lightning.study.axes import check_axes, points
from fm_lightning.study.summary import summarize
from fm_lightning.study.times import MARGIN, SHARE
from fm_lightning.study.wording import headline, place, sentences
from fm_lightning.table.claim import Claim

AXES = "--axes."


@dataclass
class Given:
    """What the command was given.

    Attributes:
        files: the configurations, found.
        runs: finished runs of other origin.
        axes: option -> values, of the command line.
        options: options that all points share, as typed.
        named: the configurations, as typed.
        name, root: of the study's directory.
        share, margin: of tau_mem and tau_gen.
        only_print: whether to print commands instead of running them.
        wandb: whether to log the study to W&B.
    """

    files: list[Path] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    axes: dict[str, Any] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    name: str | None = None
    root: str = "runs"
    share: float = SHARE
    margin: float = MARGIN
    only_print: bool = False
    wandb: bool = False


def main(args: Sequence[str]) -> None:
    """Runs what is missing and reports.

    Raises:
        UserError: options or axes that no run has, runs that cannot be compared, or runs that failed.
    """
    given = read_arguments(args)
    plan = _plan(given)
    failed: list[str] = []
    if plan is not None:
        if given.only_print:
            for point in plan.points:
                print(shlex.join(["fm-lightning", *plan.command(point)]))
            return
        check_options(plan)
        failed = run_missing(plan)
    axes = list(plan.points[0].values) if plan else list(given.axes or differing(given.runs))
    if not axes:
        raise UserError(
            "These runs do not differ in n, width or seed.", "Name an axis, for example --axes.data.init_args.n"
        )
    folder = plan.folder if plan else Path(given.root) / (given.name or "study")
    inside = [(point.name, folder / point.name) for point in plan.points] if plan else []
    runs = [*inside, *((path.resolve().name, path) for path in given.runs)]
    curves, missing = read_curves(runs, axes)
    for name, why in missing.items():
        print(f"{name} is left out: it {why}")
    if curves:
        with Claim(folder):
            study = summarize(curves, axes, missing, given.share, given.margin)
            page = write_study(folder, study, curves)
        for sentence in (headline(study), *sentences(study)):
            print(sentence)
        print(f"\nReport: {page} ({len(curves)} of {len(runs)} runs)")
        if given.wandb:
            log(study, folder)
    elif not failed:
        raise UserError(
            "No run has finished.", f"Run fm-lightning study -c {given.named[0] if given.named else 'FILE'}"
        )
    if failed:
        problem = f"{len(failed)} of {len(runs)} runs failed: {', '.join(failed)}."
        raise UserError(problem, "Their messages are above; the same command runs them again")


def read_arguments(args: Sequence[str]) -> Given:
    """Sorts the words of the command line.

    Raises:
        UserError: a word that is no option, a missing value, or a directory that is no run.
    """
    given, bare = Given(), []
    words = list(scan(args))
    for word in words:
        if not word.option:
            bare.append(word)
        elif word.option == "--config":
            given.files.append(configurations.find(word.value or ""))
            given.named.append(word.value or "")
        elif word.option.startswith(AXES):
            axis = word.option.removeprefix(AXES)
            given.axes[axis] = None if word.value is None else _values(axis, word.value)
        elif word.option in ("--wandb", "--print"):
            setattr(given, {"--wandb": "wandb", "--print": "only_print"}[word.option], True)
        elif word.option in ("--share", "--margin"):
            setattr(given, word.option.removeprefix("--"), _share(word.option, word.value))
        elif word.option in ("--name", "--root"):
            if not word.value:
                raise UserError(f"{word.option} needs a value.", f"Use {word.option} {word.option.removeprefix('--')}s")
            setattr(given, word.option.removeprefix("--"), word.value)
        else:
            check_key("study", word.option.removeprefix("--").rstrip("+"), dashes="--")
            given.options += word.text
    given.runs = run_directories("study", bare)
    if not given.files and not given.runs:
        raise UserError("study needs a configuration or runs.", "Use fm-lightning study -c study_digits")
    if not given.files and (given.options or given.only_print):
        option = "--print" if given.only_print else given.options[0].partition("=")[0]
        raise UserError(f"{option} needs runs to start, and these are finished.", "Remove it, or add -c study_digits")
    return given


def _share(option: str, text: str | None) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UserError(f"`{option} {text or ''}` is not between 0 and 1.", f"Use {option} 0.1")
    return value


def _values(axis: str, text: str) -> Any:
    try:
        return configurations.load_strictly(text)
    except yaml.YAMLError:
        raise UserError(f"Cannot read the values of {AXES}{axis}: {text!r}.", f"Use {AXES}{axis} '[1, 2]'") from None


def _plan(given: Given) -> Plan | None:
    """The study's own runs; None where only finished ones were named."""
    if not given.files:
        return None
    merged: dict[str, Any] = {}
    for file in given.files:
        content = configurations.read(file)
        for key in content:
            check_key("study", str(key), at=f"{file}: ")
        merged |= {key: content[key] for key in ("name", "axes") if key in content}
    configured = merged.get("axes") or {}
    if not isinstance(configured, Mapping):
        raise UserError("axes is no mapping of options to values.", "Write axes: {data.init_args.n: [25, 50, 100]}")
    axes = check_axes({**configured, **given.axes})
    for axis in axes:
        check_key("study", axis, at="axes: ")
    folder = Path(given.root) / str(given.name or merged.get("name") or given.files[0].stem)
    for word in scan(given.options):
        if (option := word.option.removeprefix("--")) in axes:
            raise UserError(f"--{option} is an axis of this study.", f"Use --axes.{option} '[{word.value}]'")
    options = [word for name in given.named for word in ("-c", name)]
    return Plan(folder, [*options, *given.options], list(points(axes)))


def log(study: Mapping[str, Any], folder: Path) -> None:
    """The study as a W&B run."""
    run = wandb_run("study", folder)
    import wandb

    lines = list(run_lines(study))
    columns: list[str | int] = list(dict.fromkeys(key for line in lines for key in line))
    media: dict[str, Any] = {
        "study/runs": wandb.Table(columns=columns, data=[[line.get(str(key)) for key in columns] for line in lines]),
        "study/report": wandb.Html(str(folder / PAGE)),
    }
    media |= {f"study/{file.stem}": wandb.Image(str(file)) for file in sorted((folder / "figures").glob("*.png"))}
    run.log(media)
    run.summary.update({**numbers(study), "headline": headline(study)})
    run.finish()


def numbers(study: Mapping[str, Any]) -> dict[str, float]:
    """``POINT/tau_mem`` and the exponents, each with the ends of its interval."""
    found: dict[str, float] = {}
    for entry in study["groups"]:
        for key in ("tau_gen", "tau_mem", "window", "f_mem_best", "f_mem_matched", "f_mem_last"):
            found |= _ends(f"{place(entry['at'], study['short'])}/{key}", entry[key])
    for entry in study["exponents"]:
        at = place(entry["at"], study["short"])
        found |= _ends(
            f"exponent/{entry['of']}/{study['short'][entry['axis']]}{f'/{at}' if at else ''}", entry["exponent"]
        )
    return found


def _ends(name: str, found: Mapping[str, Any] | None) -> dict[str, float]:
    ends = {"value": "", "low": "_lo", "high": "_hi"}
    return {f"{name}{end}": found[key] for key, end in ends.items() if found[key] is not None} if found else {}
