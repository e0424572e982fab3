"""``fm-lightning`` and ``python -m fm_lightning``: answers at once, loads Lightning only for what needs it."""

from __future__ import annotations

import importlib
import sys

HELP = """\
usage: fm-lightning VERB -c CONFIG.yaml [--option value ...]
       fm-lightning falsify -c CONFIG.yaml|RUN_DIR [--schedule FILE]
       fm-lightning report RUN_DIR
       fm-lightning compare RUN_DIR RUN_DIR ... [--out DIR] [--wandb]

Train conditional flow matching and see what its samples cost: kinetic path energy,
memorization, quality, and what schedules change, judged against what is trivial.

verbs:
  run        fit, then test: from data to a schedule comparison and its report
  fit        train; started again on an unfinished run, go on with it
  test       compare the schedules of a trained run and write the report
  falsify    the same against all trivial manipulations, with the schedules' own doses
  diagnose   where the energy goes: density, semantics, copying
  validate   measure the validation schedules of a trained run
  predict    write samples with their energies
  encode     images to latents, once, to train on them (fm-lightning encode --help)
  report     thresholds, verdicts and figures anew from a finished comparison
  compare    effects and verdicts across finished runs, replicates combined

options of the first seven verbs (all others: fm-lightning VERB --help):
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

LIGHTNING = ("run", "fit", "test", "validate", "predict")  # verbs of LightningCLI
# Verbs with a module of their own, ``fm_lightning.cli.VERB``.
OTHERS = ("falsify", "diagnose", "encode", "report", "compare")
VERBS = (*LIGHTNING, *OTHERS)


def main() -> None:
    """The command."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    asks = sys.argv[2:] in (["-h"], ["--help"])
    if verb in ("-h", "--help") or (asks and verb in ("falsify", "report", "compare")):
        print(HELP, end="")
    elif verb not in VERBS and not verb.startswith("-"):
        from fm_lightning.cli.parser_errors import unknown_verb

        print(f"fm-lightning: {unknown_verb(verb, VERBS)}", file=sys.stderr)
        raise SystemExit(2)
    else:
        home = verb if verb in OTHERS else "command"
        try:
            run = importlib.import_module(f"fm_lightning.cli.{home}").main
        except KeyboardInterrupt:  # takes seconds; from then on the command itself says what was interrupted
            print("fm-lightning: interrupted before anything was done", file=sys.stderr)
            raise SystemExit(130) from None
        if home == "command":
            run()
        else:
            _run(run, sys.argv[2:])


def _run(verb, args: list[str]) -> None:
    from fm_lightning.errors import UserError

    try:
        verb(args)
    except UserError as error:
        print(f"fm-lightning: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        from fm_lightning.cli.endings import unwritable

        if (said := unwritable(error)) is None:
            raise
        print(f"fm-lightning: {said}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
