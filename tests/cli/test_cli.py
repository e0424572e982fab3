"""The command line: what is refused, in one line and without a trace."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_runs import says, tiny_config

from fm_lightning import load_network
from fm_lightning.cli import pages


def in_model(key, value):
    return lambda config: config["model"].update({key: value})


def kts(**changes):
    return lambda config: config["model"]["test_schedules"]["kts"].update(changes)


def gain(kind="KTS", **arguments):
    return kts(gain={"class_path": f"fm_lightning.flow.{kind}", "init_args": arguments})


def also(*values):
    """A case that takes the same way as another one, for `make test-all`."""
    return pytest.param(*values, marks=pytest.mark.slow)


# Misspelled keys, classes and verbs


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--modle.net", "x"], ["Unknown key --modle.net.", "Use --model.net"]),
        (["--model.nett", "3"], ["Unknown key --model.nett.", "Use --model.net"]),
        (["--trainer.max_stps", "3"], ["Unknown key --trainer.max_stps.", "Use --trainer.max_steps"]),
        (["--trainer.max_step", "3"], ["Unknown key --trainer.max_step.", "Use --trainer.max_steps"]),
        (["--max_steps", "3"], ["Unknown key --max_steps.", "Use --trainer.max_steps"]),
        also(["--trainer.max_stps=3"], ["Unknown key --trainer.max_stps.", "Use --trainer.max_steps"]),
        (["--model.net.init_args.widht", "3"], ["model.net", "no option 'widht'", "width, depth", "Use width"]),
        (["--data.init_args.bach_size", "3"], ["data", "Toy2D", "no option 'bach_size'", "Use batch_size"]),
        also(["--data.class_path", "Toy3D"], ["data", "Toy3D does not exist", "Use fm_lightning.data.Toy2D"]),
        (["--trainer.max_steps", "many"], ["trainer.max_steps=many", "type int"]),
        also(["--model.base_seed", "3"], ["--model.base_seed follows", "Use --seed_everything"]),
        (["oops"], ["'oops' is not an option", "fm-lightning fit --help"]),
    ],
)
def test_misspelled_on_the_command_line(refused, arguments, words):
    says(refused("fit", "-c", "tiny.yaml", *arguments), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(modle={"x": 3}), ["wrong.yaml: Unknown key modle.", "Use model"]),
        (in_model("nett", 3), ["Unknown key model.nett.", "Use model.net"]),
        also(lambda c: c["trainer"].update(max_stps=3), ["trainer.max_stps", "Use trainer.max_steps"]),
        (kts(stepz=3), ["model.test_schedules", "Schedule", "'stepz'", "Use steps"]),
        also(kts(steps="many"), ["model.test_schedules > steps=many", "type int"]),
        (
            kts(gain={"class_path": "fm_lightning.flow.KST"}),
            ["gain", "fm_lightning.flow.KST", "Use fm_lightning.flow.KTS"],
        ),
        (gain(betta=1), ["gain", "KTS", "'betta'", "alpha, beta", "Use beta"]),
        also(gain("SSC"), ["gain", "SSC needs scale and power"]),
        (
            lambda c: c["trainer"]["callbacks"].append({"class_path": "fm_lightning.callbacks.FIDMonitr"}),
            ["trainer.callbacks", "FIDMonitr", "Use fm_lightning.callbacks.FIDMonitor"],
        ),
        also(
            lambda c: c["trainer"]["callbacks"].append(
                {"class_path": "fm_lightning.callbacks.EMA", "init_args": {"x": 1}}
            ),
            ["trainer.callbacks", "EMA", "'x'", "decay, start_step"],
        ),
        also(
            lambda c: c["trainer"]["logger"][0].update(class_path="fm_lightning.training.CSVLogger"),
            ["trainer.logger", "Use fm_lightning.training.AppendingCSVLogger"],
        ),
        (
            in_model("optimizer", {"class_path": "torch.optim.AdamX", "init_args": {"lr": 1.0}}),
            ["model.optimizer", "torch.optim.AdamX", "Use torch.optim.Adam"],
        ),
        also(
            in_model("scheduler", {"class_path": "fm_lightning.training.Warmup", "init_args": {"warmup": 3}}),
            ["model.scheduler", "Warmup", "'warmup'", "Use warmup_steps"],
        ),
        also(
            in_model("net", {"class_path": "fm_lightning.data.Toy2D"}),
            ["model.net", "fm_lightning.data.Toy2D is not a Module", "Use"],
        ),
        (lambda c: c["model"].pop("net"), ["model.net", "-c digits"]),
        (lambda c: c["model"]["net"]["init_args"].pop("shape"), ["model.net", "ResidualMLP needs shape"]),
        (
            lambda c: c["trainer"].update(accelerator="gpuu"),
            ["gpuu", "Available", "Try --trainer.accelerator auto"],
        ),
    ],
)
def test_misspelled_in_the_file(refused, tmp_path, change, words):
    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("trainer: [1, 2]", ["trainer holds no 'key: value' lines", "trainer: {max_steps: 1000}"]),
        ("model: 5", ["model holds no 'key: value' lines"]),
        ("data: 5", ["data=5 is not a class", "fm_lightning.data.Digits"]),
        ("data: {class_path: Digits, init_args: [n]}", ["data.init_args holds no"]),
        ("trainer: {callbacks: {EMA: 1}}", ["trainer.callbacks is not a list", "callbacks: [{class_path"]),
        ("model: {test_schedules: {base: {}, 3: {steps: 2}}}", ["The schedule name 3 is not text"]),
        ("model: {test_schedules: {base: {}, x: 5}}", ["5 is not a Schedule", "{steps: 50}"]),
        ("model: {fields: {base: {class_path: fm_lightning.comparison.ClosedForm}}}", ["A field has the name"]),
        ("seed_everything: abc", ["has the wrong type. Use a value of type int."]),
        ("trainer: {max_steps: -5}", ["trains nothing", "--trainer.max_steps 1000"]),
    ],
)
def test_a_value_of_another_form(refused, tmp_path, text, words):
    (tmp_path / "form.yaml").write_text(text)
    says(refused("fit", "-c", "tiny.yaml", "-c", tmp_path / "form.yaml"), *words)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trainer.precision", "12"], ["trainer.precision", "is not allowed", "'16-mixed'"]),
        (["--model.optimizer.init_args.lr", "fast"], ["lr=fast has the wrong type. Use a value of type float."]),
        (["--model.guidance", "abc"], ["model.guidance=abc has the wrong type. Use a value of type float."]),
        (["--model.net.init_args.width", "0"], ["width=0 must be at least 1"]),
        (["--trainer.accumulate_grad_batches", "0"], ["`accumulate_grad_batches=0` must be positive"]),
        (["--trainer.val_check_interval", "0"], ["`val_check_interval=0` must be positive"]),
        (["--trainer.gradient_clip_val", "-1"], ["`gradient_clip_val=-1", "must be positive"]),
        (["--trainer.gradient_clip_algorithm", "x"], ["Use --trainer.gradient_clip_algorithm norm"]),
        (["--trainer.max_time", "soon"], ["Use for example --trainer.max_time 00:01:00:00"]),
        (["--trainer.callbacks.EMA", "0.9"], ["names no option of EMA", "--trainer.callbacks.EMA.OPTION VALUE"]),
        (["--trainer.callbacks.ScheduleTable.families", "[cheap, chaep]"], ["There is no family 'chaep'", "'cheap'"]),
        (
            ["-c", "wandb", "--trainer.logger.WandbLogger.grp", "x"],
            ["Neither WandbLogger nor wandb.init has an option 'grp'", "--trainer.logger.WandbLogger.group VALUE"],
        ),
        (["--name"], ["--name needs a value. Use --name VALUE"]),
        (["-x"], ["Unknown option -x."]),
        (["digits"], ["Use fm-lightning fit -c digits"]),
        (["--name", "a b"], ["`name=a b` cannot name"]),
        (["--root", "tiny.yaml"], ["Cannot write into tiny.yaml/tiny: not a directory."]),
        (["--root", "/proc/none"], ["Cannot write into /proc/none/tiny"]),
        (["--trial", "1"], ["`trial=1` is too short"]),
        (["--seed_everything", "-1"], ["a whole number from 0 to 4,294,967,295"]),
    ],
)
def test_a_value_that_cannot_be_meant(refused, arguments, words):
    says(refused("fit", "-c", "tiny.yaml", *arguments), *words)


def test_verbs_and_files(refused, tmp_path):
    says(refused("fitt", "-c", "tiny.yaml"), "'fitt' is not a verb (run, fit, test", "Use fm-lightning fit")
    says(refused("-c", "tiny.yaml", "fit"), "-c stands before the verb", "fm-lightning run -c")
    says(refused("fit"), "fit needs a configuration.", "Use fm-lightning fit -c digits")
    says(refused("fit", "-c"), "-c needs a file", "Use -c digits")
    says(refused("fit", "-c", "tinny.yaml"), "tinny.yaml does not exist.", "Use -c tiny.yaml")
    says(refused("fit", "-c", "configs/digitz.yaml"), "does not exist.", "Use -c digits")
    says(refused("fit", "-c", "../configs/digits"), "does not exist.")
    says(refused("test", "-c", "runs/never"), "runs/never does not exist.", "List the runs with fm-lightning ls")
    (tmp_path / "folder").mkdir()
    says(refused("fit", "-c", "folder"), "folder is a directory without config.yaml", "-c digits")
    (tmp_path / "folder/config.yaml").touch()
    says(refused("fit", "-c", "folder"), "folder/config.yaml holds no 'key: value' lines")
    (tmp_path / "broken.yaml").write_text("name: [unclosed\nmodel: {")
    says(refused("fit", "-c", "broken.yaml"), "broken.yaml (line 2) is not valid YAML")
    (tmp_path / "text.yaml").write_text("just a string")
    says(refused("fit", "-c", "text.yaml"), "text.yaml holds no 'key: value' lines")
    (tmp_path / "binary.yaml").write_bytes(b"\x80\x00\xff")
    says(refused("fit", "-c", "binary.yaml"), "binary.yaml is not a text file")


@pytest.mark.parametrize("text", ["a: 1\nname: x\nname: y\n", "trainer: {callbacks: [], callbacks: null}\n",
                                  "trainer:\n  max_steps: 3\nmodel: {}\ntrainer:\n  devices: 1\n",
                                  "trainer: {max_steps: 3}\ntrainer.max_steps: 4\n",
                                  "model.net.init_args.width: 4\nmodel: {net: {init_args: {width: 8}}}\n"])  # fmt: skip
def test_a_key_that_stands_twice(refused, tmp_path, text):
    (tmp_path / "twice.yaml").write_text(text)
    says(refused("fit", "-c", "tiny.yaml", "-c", "twice.yaml"), "twice.yaml, line", "stands twice", "Keep one")


def test_a_key_twice_in_a_value_or_in_a_file_that_a_configuration_names(refused, tmp_path):
    says(refused("fit", "-c", "tiny.yaml", "--trainer", "{max_steps: 2, max_steps: 3}"), "max_steps stands twice")
    for option, text in {
        "--trainer": "max_steps: 2\nmax_steps: 3\n",
        "--data": "class_path: fm_lightning.data.Toy2D\ninit_args: {n: 24, n: 20}\n",
        "--model.net": "class_path: fm_lightning.nets.ResidualMLP\ninit_args: {shape: [2], width: 8,\n  width: 9}\n",
    }.items():
        (tmp_path / "part.yaml").write_text(text)
        line = refused("fit", "-c", "tiny.yaml", option, "part.yaml")
        says(line, "part.yaml, line ", "stands twice. Keep one of the two")
    (tmp_path / "net.yaml").write_text("class_path: fm_lightning.nets.ResidualMLP\nclass_path: torch.nn.Identity\n")
    line = refused("fit", "-c", tiny_config(tmp_path / "nested.yaml", in_model("net", "net.yaml")))
    says(line, "net.yaml, line 2: class_path stands twice. Keep one of the two")


def test_all_that_is_wrong_is_said_together(command, tmp_path):
    """Words, then values: each stage says everything that it sees."""
    ended = command("fit", "-c", "nope.yaml", "--max_steps", 3, "--modle.net", "x")
    says(" ".join(ended.err.splitlines()), "nope.yaml does not exist", "--trainer.max_steps", "--model.net")
    assert len(ended.err.splitlines()) == 3
    ended = command("fit", "-c", "tiny.yaml", "--trainer.max_step", 3, "--model.nett", "x")
    says(" ".join(ended.err.splitlines()), "--trainer.max_steps", "--model.net")

    def change(c):
        c["trainer"]["callbacks"][0]["init_args"]["decay"] = 2
        c["data"]["init_args"]["test_seeds"] = 0

    ended = command("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change), "--threads", 0)
    assert ended.status == 2
    lines = ended.err.splitlines()
    assert len(lines) == 3
    assert all(word in ended.err for word in ("threads=0", "test_seeds=0", "decay=2"))
    assert not (tmp_path / "runs").exists()

    def change(c):  # one is wrong in the optimizer, the other only the data can tell
        c["model"]["scheduler"] = {
            "class_path": "fm_lightning.training.Warmup",
            "init_args": {"warmup_steps": 9, "decay": "linear"},
        }
        c["model"]["net"]["init_args"]["shape"] = [3]

    ended = command("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change))
    assert len(ended.err.splitlines()) == 2
    says(" ".join(ended.err.splitlines()), "warmup_steps=9", "shape")


# Values out of range


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (kts(steps=0), ["steps=0 must be a whole number of at least 1", "Use for example steps=100"]),
        also(kts(steps=-3), ["steps=-3 must"]),
        also(kts(solver="eulr"), ["solver='eulr' is unknown", "Choose among euler"]),
        (gain(tau_split=1.2), ["tau_split=1.2 must be between 0 and 1", "tau_split=0.6"]),
        also(gain(tau_split=0.0), ["tau_split=0 must"]),
        (gain("SSC", scale=-2.0, power=1.0), ["-1 at t = 0", "Use a weaker gain"]),
        (in_model("judge", ["ktz"]), ["judge names 'ktz'", "no schedule", "Choose among kts"]),
        also(in_model("judge", ["base"]), ["judge", "'base'", "the base", "kts"]),
        (in_model("test_schedules", {"a.b": {}}), ["'a.b'", "Rename"]),
        (
            lambda c: c["data"]["init_args"].update(n=1),
            ["1 training image is too few", "Pass at least 2"],
        ),
        (
            lambda c: c["data"]["init_args"].update(val_seeds=-3),
            ["val_seeds=-3 must be at least 1", "val_seeds=100"],
        ),
        also(lambda c: c["data"]["init_args"].update(test_seeds=0), ["test_seeds=0 must be at least 1"]),
        also(lambda c: c["data"]["init_args"].update(name="mons"), ["name='mons' is not one of moons", "name=moons"]),
        (lambda c: c["trainer"]["callbacks"][0]["init_args"].update(decay=2), ["`decay=2` must be", "Use 0.9999"]),
    ],
)
def test_out_of_range(refused, tmp_path, change, words):
    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), *words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            {"scheduler": "linear"},
            ["`warmup_steps=9`", "`total_steps=4`", "below 4"],
        ),
        ({"optimizer": {"lr": -1.0}}, ["Invalid learning rate: -1.0", "Check --model.optimizer"]),
        ({"optimizer": {"lr": 0.1, "betas": [0.9, 2.0]}}, ["Invalid beta", "Check --model.optimizer"]),
    ],
)
def test_an_optimizer_that_cannot_be_built(refused, tmp_path, settings, words):
    def change(c):
        if "optimizer" in settings:
            c["model"]["optimizer"]["init_args"] = settings["optimizer"]
        else:
            warmup = {"warmup_steps": 9, "decay": settings["scheduler"]}
            c["model"]["scheduler"] = {"class_path": "fm_lightning.training.Warmup", "init_args": warmup}

    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), *words)


@pytest.mark.parametrize("threads", ["0", "-1", "two"])
def test_threads(refused, threads):
    says(refused("run", "-c", "tiny.yaml", "--threads", threads), f"threads={threads}", "Use")


def test_a_network_for_other_data_is_refused_before_anything_is_made(refused):
    line = refused("run", "-c", "tiny.yaml", "--model.net.init_args.shape", "[3]")
    says(line, "ResidualMLP takes samples of shape [3], not [2]", "shape=[2]")


def test_too_few_images_for_the_sample_grid(refused, tmp_path):
    def change(c):
        c["data"]["init_args"]["n"] = 1
        c["trainer"]["callbacks"] = [{"class_path": "fm_lightning.callbacks.SampleGrid"}]

    says(refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", change)), "Pass at least 2")


def test_a_gain_that_reaches_zero_names_the_largest_beta_that_works(command, refused, tmp_path):
    line = refused("fit", "-c", tiny_config(tmp_path / "wrong.yaml", gain(alpha=0.02, beta=3.0)))
    says(line, "β=3 is not above 0 but -", "at t = 0.75", "4 euler steps", "Use beta at most")
    largest = float(re.search(r"beta at most ([\d.]+)", line)[1])
    config = tiny_config(tmp_path / "right.yaml", gain(alpha=0.02, beta=largest))
    assert command("fit", "-c", config, "--trainer.max_steps", 2).status == 0


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", ""])
def test_names_that_are_no_directory_names(refused, name):
    says(refused("fit", "-c", "tiny.yaml", "--name", name), f"`name={name}` cannot name", "--name digits-1")


# Numbers that are not finite


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(command, tmp_path):
    assert command("fit", "-c", "tiny.yaml", "--trainer.max_steps", 2).status == 0
    good = (tmp_path / "runs/tiny/checkpoints/last.ckpt").read_bytes()
    config = tiny_config(tmp_path / "wild.yaml", lambda c: c["model"]["optimizer"]["init_args"].update(lr=1e30))
    ended = command("fit", "-c", config, "--name", "wild", "--trainer.max_steps", 40)
    assert ended.status == 2
    says(ended.err, "infinite or NaN at step", "checkpoints before it are kept", "--model.optimizer.init_args.lr")
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) == 1
    # The same in the middle of a run: what was good stays.
    kept = torch.load(tmp_path / "runs/tiny/checkpoints/last.ckpt", weights_only=True)
    for group in kept["optimizer_states"][0]["param_groups"]:
        group["lr"] = 1e30
    torch.save(kept, tmp_path / "runs/tiny/checkpoints/last.ckpt")
    ended = command("fit", "-c", "tiny.yaml", "--trainer.max_steps", 40)
    assert ended.status == 2
    says(ended.err, "infinite or NaN")
    left = torch.load(tmp_path / "runs/tiny/checkpoints/last.ckpt", weights_only=True)
    assert left["global_step"] == 2
    assert len(good) > 1000
    assert all(value.isfinite().all() for value in left["state_dict"].values())
    net = load_network(tmp_path / "runs/tiny/checkpoints/last.ckpt")
    assert net(torch.zeros(1, 2), torch.zeros(1)).isfinite().all()


# Answers that need no torch


def test_answers_without_torch(tmp_path):
    code = (
        "import sys; sys.argv = ['fm-lightning', *sys.argv[1:]]\n"
        "from fm_lightning.__main__ import main\n"
        "try: main()\n"
        "except SystemExit as e: print('status', e.code, file=sys.stderr)\n"
        "print(sorted({'torch', 'lightning', 'matplotlib', 'wandb'} & set(sys.modules)), file=sys.stderr)\n"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    for words, status, out in (
        ("--help", None, "usage: fm-lightning VERB"),
        ("", None, "usage: fm-lightning VERB"),
        ("run --help", None, "usage: fm-lightning run"),
        ("--version", None, "fm-lightning 0"),
        ("ls", 2, ""),
        ("fitt", 2, ""),
        ("run -c nope.yaml", 2, ""),
        ("falsify -c digits --schedule nope", 2, ""),
        ("encode", 2, ""),
        ("run -c digits --max_steps 3", 2, ""),
    ):
        ended = subprocess.run(
            [sys.executable, "-c", code, *words.split()],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stderr.splitlines()[-1] == "[]", (words, ended.stderr)
        assert out in ended.stdout
        assert f"status {status}" in ended.stderr if status else "status" not in ended.stderr


@pytest.mark.parametrize("verb", pages.VERBS)
def test_a_page_fits_two_screens(verb):
    lines = pages.page(verb).splitlines()
    assert len(lines) <= 80
    assert max(map(len, lines)) <= 130


@pytest.fixture(scope="module")
def parsers():
    """verb -> its real parser."""
    from fm_lightning.cli import command as cli

    found = {}

    class Parsed(Exception):
        pass

    def catch(self, parser, args):
        found[self._verb] = self._subcommand_parsers[self._verb]
        raise Parsed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli.CLI, "parse_arguments", catch)
        patch.setattr(cli, "crash", lambda *args: None)
        for verb in pages.TRAINER_VERBS:
            cli.main([verb])
    return found


@pytest.mark.parametrize("verb", pages.TRAINER_VERBS)
def test_a_page_lists_real_options_with_their_defaults(parsers, verb):
    actions = {option: action for action in parsers[verb]._actions for option in action.option_strings}
    for option, default, _ in pages.options(verb):
        name = option.split()[-2] if len(option.split()) > 1 else option
        name = option.split(", ")[-1].split()[0].split("+=")[0]
        if "CLASS." in name or "NAME." in name or "init_args" in name or option == "--again evaluation":
            continue
        action = actions[name]
        real = str(action.default).lower()
        if default and not {" ", "'"} & set(default) and name not in ("--trial", "--model.optimizer"):
            assert real in (default, "none"), (name, action.default)
    real = {action.dest.partition(".")[0] for action in parsers[verb]._actions}
    assert real <= set(pages.top_level(verb)), "no option is refused by mistake"


def test_the_page_of_encode_lists_real_options():
    import inspect

    from fm_lightning.cli.encode import encode

    known = {name: p.default for name, p in inspect.signature(encode).parameters.items()}
    for option, default, _ in pages.ENCODE[1:]:
        name = option.split()[0].removeprefix("--")
        if default.replace("float", "").isalnum():
            assert str(known[name]).lower() == default
    assert set(known) - {"source"} <= set(pages.top_level("encode"))


def test_all_options_of_a_verb(command):
    ended = command("fit", "--help-all")
    assert ended.status == 0
    assert "--model.net" in ended.out
    assert "--again" in ended.out
    assert len(ended.out.splitlines()) > 300


# End to end, as a newcomer types it


@pytest.mark.slow
def test_end_to_end_in_a_process_of_its_own(tmp_path):
    tiny_config(tmp_path / "tiny.yaml")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "fm_lightning", "run", "-c", "tiny.yaml"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Report: runs/tiny/report.html" in ended.stdout
    assert (tmp_path / "runs/tiny/report.html").stat().st_size > 10_000
    assert "Warning" not in ended.stderr, ended.stderr
