"""Help: one page per verb, at most two screens, printed without importing torch. ``--help-all`` lists every option."""

from __future__ import annotations

from collections.abc import Iterable

VERBS = {
    "run": "Train, then compare schedules and write the report.",
    "fit": "Train; on an unfinished run, resume it.",
    "test": "Compare the schedules of a trained run and write the report.",
    "falsify": "Compare schedules with every family of trivial manipulations.",
    "diagnose": "Show where the energy goes: density, semantics, copying.",
    "validate": "Measure the validation schedules of a trained run.",
    "predict": "Write samples with their energies.",
    "encode": "Encode images as latents, once, to train on them.",
    "report": "Recompute thresholds, verdicts and figures of a finished comparison.",
    "compare": "Combine effects and verdicts of several finished runs.",
    "export": "Write a finished run as a folder to share: weights, configuration, results, model card.",
    "study": "Run a grid over data, width or seed, and report when models begin to copy.",
    "ls": "List runs with their state, F_mem, distance and verdicts.",
}
# Verbs of LightningCLI: one parser, whose options are the trainer's, the model's and the data's.
TRAINER_VERBS = ("run", "fit", "test", "validate", "predict", "diagnose")
TRIAL = "20"  # steps of --trial without a number
EXAMPLE = dict.fromkeys(VERBS, "digits") | {
    "test": "runs/digits",
    "validate": "runs/digits",
    "predict": "runs/digits",
    "diagnose": "runs/digits",
    "encode": "encode_imagenet256",
    "report": "runs/digits",
    "compare": "runs/digits-1 runs/digits-2",
    "export": "runs/digits",
    "study": "study_digits",
    "ls": "runs",
}

Option = tuple[str, str, str]  # as typed, default ("" where there is none), meaning

RUN: list[Option] = [
    ("-c, --config WHAT", "", "a file, a run directory or a shipped name (digits); several are merged"),
    ("--name NAME", "", "the run's name; its files are in ROOT/NAME"),
    ("--root DIR", "runs", "directory of all runs"),
    ("--seed_everything N", "0", "seed of training and sampling"),
    ("--threads N", "one per core", "CPU threads"),
]
AGAIN: list[Option] = [
    ("--again", "false", "move the run aside and start over"),
    ("--again evaluation", "", "move only the comparison aside; the training is kept"),
    ("--trial [STEPS]", TRIAL, "a quick check in ROOT/NAME-trial: few steps, few seeds, short warm-up"),
]
CHECKPOINT: list[Option] = [("--ckpt_path FILE", "the run's last checkpoint", "weights to start from")]
TRAINER: list[Option] = [
    ("--trainer.max_steps N", "-1", "length of the training; -1 is without end"),
    ("--trainer.max_time DD:HH:MM:SS", "", "stop after this time"),
    ("--trainer.devices N", "auto", "number of devices"),
    ("--trainer.accelerator A", "auto", "cpu, gpu or auto"),
    ("--trainer.precision P", "32-true", "bf16-mixed on GPUs"),
    ("--trainer.accumulate_grad_batches N", "1", "micro-batches per step; the batch size stays the same"),
    ("--trainer.gradient_clip_val V", "", "largest norm of a gradient"),
    ("--trainer.val_check_interval N", "1.0", "steps between validations"),
    ("--trainer.callbacks.CLASS.OPTION V", "", "one option of a configured callback, for example EMA.decay"),
    ("--trainer.callbacks+=CLASS", "", "one more callback"),
    ("--trainer.logger.CLASS.OPTION V", "", "one option of a configured logger, for example WandbLogger.group"),
]
MODEL: list[Option] = [
    ("--model.net CLASS", "", "velocity network; --model.net.init_args.OPTION V sets one of its options"),
    ("--model.optimizer CLASS", "torch.optim.AdamW", "for example --model.optimizer.init_args.lr 0.001"),
    ("--model.scheduler CLASS", "", "learning rate over the steps, for example fm_lightning.training.Warmup"),
    ("--model.label_dropout P", "0.0", "share of training labels dropped, for guidance"),
    ("--model.weights FILE", "", "weights trained elsewhere"),
]
SAMPLING: list[Option] = [
    ("--model.test_schedules.NAME.OPTION V", "", "for example --model.test_schedules.base.steps 50"),
    ("--model.judge NAMES", "all with a gain", "schedules that get a verdict, for example '[balanced]'"),
    ("--model.guidance W", "1.0", "classifier-free guidance; 1 is none"),
]
DATA: list[Option] = [
    ("--data CLASS", "", "the data; --data.init_args.OPTION V sets one of its options"),
    ("--data.init_args.batch_size N", "128", "samples per optimizer step, over all devices"),
    ("--data.init_args.test_seeds N", "2000", "samples per schedule in the comparison"),
    ("--data.init_args.val_seeds N", "500", "samples per schedule in a validation"),
]
PREDICT: list[Option] = [("--data.init_args.predict_seeds N", "100", "samples to write")]
FALSIFY: list[Option] = [
    ("--schedule FILE", "", "schedules to judge instead of the configuration's: a file or a shipped name"),
]
DIAGNOSE: list[Option] = [
    ("--probes N", "256", "samples sampled again for likelihood, commitment and power"),
    ("--groups N", "5", "quantile groups of the energies"),
    ("--features NAME", "the comparison's", "second feature space for density"),
    ("--clip NAME", "", "a CLIP that judges semantics: a folder or a hub name"),
    ("--class_names NAMES", "the data's", "for CLIP's prompts, in the order of the labels"),
    ("--classifier CLASS", "", "a classifier that judges semantics"),
    ("--pdf", "false", "write every figure as PDF, too"),
]
ENCODE: list[Option] = [
    ("-c, --config WHAT", "", "a file with these options, or a shipped name (encode_imagenet256)"),
    ("--data CLASS", "", "the images, as for training"),
    ("--autoencoder NAME", "", "diffusers' AutoencoderKL by name or folder, or a class with encode and decode"),
    ("--folder DIR", "", "where the latents go; the same command resumes"),
    ("--mirrored BOOL", "true", "encode mirror images, too"),
    ("--dtype TYPE", "float16", "type of the stored numbers"),
    ("--batch_size N", "32", "images encoded at a time"),
    ("--shard_size N", "10000", "images per file"),
    ("--device NAME", "the first GPU", "where to encode"),
]
REPORT: list[Option] = [
    ("RUN_DIR", "", "a run with a comparison"),
    ("--trainer.callbacks.CLASS.OPTION V", "", "for example MemorizationMonitor.threshold 0.25"),
]
COMPARE: list[Option] = [
    ("RUN_DIR RUN_DIR ...", "", "finished runs; those trained in the same way are replicates"),
    ("--out DIR", "runs/compare-NAMES", "a new directory for page, table and numbers"),
    ("--wandb", "false", "log the comparison to W&B as a run of its own"),
]
EXPORT: list[Option] = [
    ("RUN_DIR", "", "a trained run with a finished comparison"),
    ("--to FOLDER", "RUN_DIR/export", "a folder that does not exist yet"),
    ("--license NAME", "unknown", "licence of the weights, as the Hub writes it, for example mit"),
]
STUDY: list[Option] = [
    ("-c, --config WHAT", "", "a configuration with axes, or a shipped name (study_digits); several are merged"),
    ("RUN_DIR ...", "", "finished runs of other origin, instead or in addition"),
    ("--name NAME", "the configuration's", "the study's name; its runs are in ROOT/NAME"),
    ("--root DIR", "runs", "directory of all studies"),
    ("--axes.OPTION VALUES", "", "values of an axis, for example --axes.data.init_args.n '[25, 50, 100]'"),
    ("--share S", "0.1", "share of copies at which memorization begins (tau_mem)"),
    ("--margin M", "0.1", "relative distance from the best at which quality is reached (tau_gen)"),
    ("--wandb", "false", "log the study to W&B as a run of its own"),
    ("--print", "", "print one command per run, for a scheduler, instead of running them"),
]
LS: list[Option] = [("ROOT", "runs", "directory of runs")]

_TRAINING = [("the run", RUN + AGAIN), ("trainer", TRAINER), ("model", MODEL), ("sampling", SAMPLING), ("data", DATA)]
_TRAINED = [("the run", RUN + CHECKPOINT + AGAIN[:1]), ("sampling", SAMPLING), ("data", DATA)]
GROUPS: dict[str, list[tuple[str, list[Option]]]] = {
    "run": _TRAINING,
    "fit": _TRAINING,
    "test": _TRAINED,
    "falsify": [("schedules", FALSIFY), *_TRAINED],
    "diagnose": [("diagnosis", DIAGNOSE), ("the run", RUN + CHECKPOINT)],
    "validate": [("the run", RUN + CHECKPOINT), ("data", DATA)],
    "predict": [("the run", RUN + CHECKPOINT + AGAIN[:1]), ("data", DATA[:2] + PREDICT)],
    "encode": [("options", ENCODE)],
    "report": [("options", REPORT)],
    "compare": [("options", COMPARE)],
    "export": [("options", EXPORT)],
    "study": [("the study", STUDY), ("options of every run", TRAINER[:6] + DATA)],
    "ls": [("options", LS)],
}
EXAMPLES = {
    "run": "fm-lightning run -c digits --name wide --model.net.init_args.width 256",
    "fit": "fm-lightning fit -c digits --name long --trainer.max_steps 10000",
    "test": "fm-lightning test -c runs/digits --data.init_args.test_seeds 4000",
    "falsify": "fm-lightning falsify -c runs/digits --schedule schedules/kts_tau",
    "diagnose": "fm-lightning diagnose runs/digits",
    "validate": "fm-lightning validate -c runs/digits",
    "predict": "fm-lightning predict -c runs/digits --data.init_args.predict_seeds 1000",
    "encode": "fm-lightning encode -c encode_imagenet256 --data.init_args.source FOLDER",
    "report": "fm-lightning report runs/digits --trainer.callbacks.MemorizationMonitor.threshold 0.25",
    "compare": "fm-lightning compare runs/digits-1 runs/digits-2 runs/digits-3",
    "export": "fm-lightning export runs/digits --to digits-flow --license mit",
    "study": "fm-lightning study -c study_digits --axes.seed_everything '[0]'",
    "ls": "fm-lightning ls",
}
_USAGE = {
    "report": "RUN_DIR [OPTION V ...]",
    "compare": "RUN_DIR RUN_DIR ... [--out DIR] [--wandb]",
    "export": "RUN_DIR [--to FOLDER] [--license NAME]",
    "study": "-c CONFIG|RUN_DIR ... [--option value ...]",
    "ls": "[ROOT]",
}
# First parts of options that pages leave out.
_MORE = (
    "help",
    "config",
    "print_config",
    "weights_only",
    "verbose",
    "ckpt_path",
    "again",
    "trial",
    "model",
    "trainer",
    "axes",
)
_MORE_OF = {"predict": ("return_predictions",), "encode": ("factor", "shift")}


def overview() -> str:
    """What ``fm-lightning --help`` prints."""
    verbs = "\n".join(f"  {verb:9} {about}" for verb, about in VERBS.items())
    return f"""\
usage: fm-lightning VERB -c CONFIG|RUN_DIR [--option value ...]

Train conditional flow matching and measure what its samples cost: kinetic path energy, memorization,
quality, and what schedules change, judged against trivial manipulations.

verbs:
{verbs}

Options: fm-lightning VERB --help.  Version: fm-lightning --version.

first steps:
  fm-lightning run -c digits
  fm-lightning ls
"""


def page(verb: str) -> str:
    """What ``fm-lightning VERB --help`` prints: at most 80 lines."""
    lines = [
        f"usage: fm-lightning {verb} {_USAGE.get(verb, '-c CONFIG|RUN_DIR [--option value ...]')}",
        "",
        VERBS[verb],
    ]
    for title, options in GROUPS[verb]:
        lines += ["", f"{title}:"]
        for option, default, meaning in options:
            shown = f"{meaning} (default: {default})" if default else meaning
            lines += [f"  {option:38} {shown}"] if len(option) <= 38 else [f"  {option}", f"  {'':38} {shown}"]
    lines += ["", "example:", f"  {EXAMPLES[verb]}"]
    if verb in (*TRAINER_VERBS, "falsify", "encode"):
        lines += ["", f"All options: fm-lightning {verb} --help-all"]
    return "\n".join(lines) + "\n"


def options(verb: str) -> Iterable[Option]:
    """All options on the verb's page."""
    return [option for _, group in GROUPS[verb] for option in group]


def top_level(verb: str) -> list[str]:
    """First parts of all options of a verb, for example ``trainer``."""
    listed = list(options(verb)) + ([*RUN, *DATA] if verb != "encode" else [])
    names = [_name(option).partition(".")[0] for option, _, _ in listed if "--" in option]
    return list(dict.fromkeys([*names, *_MORE, *_MORE_OF.get(verb, ())]))


def full_name(verb: str, key: str) -> str | None:
    """The dotted option that ends in ``key``: ``trainer.max_steps`` for ``max_steps``."""
    groups = () if verb == "encode" else (TRAINER, MODEL, SAMPLING, DATA, PREDICT)
    names = [_name(option) for group in groups for option, _, _ in group]
    names += ["model.optimizer.init_args.lr", "data.init_args.source", "trainer.callbacks", "trainer.logger"]
    return next((name for name in names if name.rpartition(".")[2] == key and "." in name), None)


def _name(option: str) -> str:
    return option[option.index("--") + 2 :].split()[0].split("+")[0]
