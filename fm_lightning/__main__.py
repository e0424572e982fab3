"""``fm-lightning`` and ``python -m fm_lightning``: answers at once, loads Lightning only for what needs it."""

from __future__ import annotations

import sys

HELP = """\
usage: fm-lightning VERB -c CONFIG.yaml [--option value ...]
       fm-lightning report RUN_DIR
       fm-lightning diagnose RUN_DIR

Train conditional flow matching and see what its samples cost: kinetic path energy,
memorization, quality, and what schedules change, next to their matched controls.

verbs:
  run        fit, then test: from data to a schedule comparison and its report
  fit        train; started again on an unfinished run, go on with it
  test       compare the schedules of a trained run and write the report
  validate   measure the validation schedules of a trained run
  predict    write samples with their energies
  diagnose   relate a compared run's energies to density, semantics and copying (-c CONFIG or RUN_DIR)
  report     rebuild report.html of a finished comparison (RUN_DIR, e.g. runs/digits)

options of every verb but report (all others: fm-lightning VERB --help):
  -c FILE              a configuration, e.g. configs/digits.yaml; several are merged in order
  --name NAME          the run's name; everything it leaves is in runs/NAME
  --again              move aside what the run left, and start over
  --threads N          CPU threads
  --trainer.KEY V      Lightning's Trainer, e.g. --trainer.devices 8
  --model.KEY V        network, path, coupling, optimizer, schedules
  --data.init_args.KEY V   the data

first steps:
  fm-lightning run -c configs/digits.yaml
"""

VERBS = ("run", "fit", "test", "validate", "predict", "diagnose", "report")


def main() -> None:
    """The command."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if verb in ("-h", "--help"):
        print(HELP, end="")
    elif verb == "report":
        _report(sys.argv[2:])
    elif verb == "diagnose":
        _diagnose(sys.argv[2:])
    elif verb not in VERBS and not verb.startswith("-"):
        from fm_lightning.cli.parser_errors import unknown_verb

        print(f"fm-lightning: {unknown_verb(verb, VERBS)}", file=sys.stderr)
        raise SystemExit(2)
    else:
        try:
            from fm_lightning.cli.command import main as run_command
        except KeyboardInterrupt:  # takes seconds; from then on the command itself says what was interrupted
            print("fm-lightning: interrupted before anything was done", file=sys.stderr)
            raise SystemExit(130) from None
        run_command()


def _diagnose(args: list[str]) -> None:
    from fm_lightning.cli.command import main as run_command
    from fm_lightning.cli.diagnose import run_directory_options
    from fm_lightning.errors import UserError

    try:
        sys.argv[2:] = run_directory_options(args)
    except UserError as error:
        print(f"fm-lightning: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    run_command()


def _report(args: list[str]) -> None:
    if args in (["-h"], ["--help"]):
        print(HELP, end="")
        return
    from fm_lightning.cli.report import main as report
    from fm_lightning.errors import UserError

    try:
        report(args)
    except UserError as error:
        print(f"fm-lightning: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
