"""A finished run as a folder to share: equal weights, a card whose code runs, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import says, tiny_config

from fm_lightning import flow, load_network
from fm_lightning.cli.export import _arguments
from fm_lightning.comparison.results import Results
from fm_lightning.flow import KTS, Constant, Diffusion, Guidance, Schedule
from fm_lightning.noise import noise
from fm_lightning.table.keys import definition


def digits(config):
    """Digits with classes and a null label, and a comparison with families."""
    config["data"] = {
        "class_path": "fm_lightning.data.Digits",
        "init_args": {"n": 24, "conditional": True, "eval_batch_size": 100, "val_seeds": 13, "test_seeds": 150},
    }
    config["model"]["net"]["init_args"] |= {"shape": [1, 8, 8], "num_classes": 10, "null_class": True}
    config["model"]["label_dropout"] = 0.1
    callbacks = config["trainer"]["callbacks"]
    callbacks[4]["init_args"] = {"families": "cheap"}
    callbacks.insert(3, {"class_path": "fm_lightning.callbacks.FIDMonitor", "init_args": {"extractors": "fd_raw"}})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """runs/tiny after ``run``: trained and compared."""
    from fm_lightning.cli import command as cli

    folder = tmp_path_factory.mktemp("finished")
    config = tiny_config(folder / "tiny.yaml", digits)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["fm-lightning"])
        patch.setattr("fm_lightning.report.page.write_report", lambda folder, *content: folder)
        cli.main(["run", "-c", str(config)])
    return folder / "runs" / "tiny"


@pytest.fixture(scope="module")
def exported(finished):
    """The folder of that run, as others get it."""
    from fm_lightning.cli.export import main

    folder = finished.parent.parent / "shared" / "tiny-flow"
    main([str(finished), "--to", str(folder), "--license", "mit"])
    return folder


@pytest.fixture
def here(finished, tmp_path):
    """A copy of the finished run where commands run."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "tiny"))


@torch.no_grad()
def test_the_network_is_the_runs_average(finished, exported):
    own, shared = load_network(finished / "checkpoints/last.ckpt"), load_network(exported)
    x, t, y = noise(range(20), (1, 8, 8), 0), torch.linspace(0, 1, 20), torch.arange(20) % 11
    assert torch.equal(own(x, t, y), shared(x, t, y))
    raw = torch.load(finished / "checkpoints/last.ckpt", weights_only=True)["current_model_state"]
    assert any(not torch.equal(raw[f"net.{name}"], value) for name, value in shared.state_dict().items())
    assert not shared.training
    assert (shared.num_classes, shared.null_label) == (10, 10)
    space = shared.space
    assert (space.shape, space.num_classes, space.pixels) == ((1, 8, 8), 10, "[-1, 1]")
    assert space.labels(12).tolist() == [*range(10), 0, 1]
    assert space.to_uint8(torch.tensor([-3.0, -1, 0, 1])).tolist() == [0, 0, 128, 255]


def test_what_is_in_the_folder(finished, exported):
    names = {"README.md", "config.json", "figure.png", "model.safetensors", "results.json"}
    assert {file.name for file in exported.iterdir()} == names
    assert (exported / "figure.png").read_bytes().startswith(b"\x89PNG")
    here, there = (Results.from_json((f / "results.json").read_text()) for f in (exported, finished))
    assert here.rows == there.rows
    assert not here.config, "the author's paths stay at home"
    assert str(finished.parent) not in "".join(
        f.read_text() for f in exported.glob("*.[jm][sd]*") if f.suffix != ".safetensors"
    )
    assert not list(exported.parent.glob(".*")), "no draft is left"
    assert len({file.stat().st_mode for file in exported.iterdir()}) == 1, "who may read one may read all"


def test_the_card_says_what_was_measured(finished, exported):
    card = (exported / "README.md").read_text()
    results = Results.from_json((finished / "results.json").read_text())
    _, header, text = card.split("---\n", 2)
    about = yaml.safe_load(header)
    assert (about["license"], about["library_name"]) == ("mit", "fm_lightning")
    assert about["pipeline_tag"] == "unconditional-image-generation"
    measured = {m["type"]: m["value"] for m in about["model-index"][0]["results"][0]["metrics"]}
    base = results.row("base").metrics
    assert measured == {name: base[name] for name in ("f_mem", "kpe_mean", "fd_raw")}
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in text.splitlines() if line.startswith("| ")}
    for row in results.rows:
        if row.kind in ("base", "schedule"):
            assert f"{100 * row.metrics['f_mem']:.1f} [{100 * row.metrics['f_mem_lo']:.1f}, " in lines[row.name]
            assert f"| {row.samples} |" in lines[row.name]
            assert row.description in lines[row.name]
    assert results.verdict("kts").paragraph in text
    assert results.identity["weights"] in text
    from huggingface_hub import ModelCard

    assert ModelCard(card).data.eval_results[0].metric_type in measured


BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("lightning", "pytorch_lightning", "jsonargparse"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
"""


def test_the_cards_code_runs_without_lightning(exported):
    code = re.search(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)[1]
    assert len(code.splitlines()) <= 6
    shown = "print(samples.shape, images.dtype, *{'lightning', 'jsonargparse'} & set(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", f"{BLOCK}\n{code}\n{shown}"],
        cwd=exported,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "torch.Size([16, 1, 8, 8]) torch.uint8"


def test_the_code_samples_as_base_was_sampled(exported):
    """Seed for seed: the first samples of the comparison's row ``base``, from their noise and labels."""
    from fm_lightning import Schedule, integrate

    code = (exported / "README.md").read_text()
    assert "Schedule(steps=4), labels=net.space.labels(16)" in code
    net = load_network(exported)
    found = integrate(net, noise(range(4), net.space.shape, 0), Schedule(steps=4), labels=net.space.labels(4))
    assert found.nfe == 4


def test_export_as_a_command(command, here, tmp_path):
    ended = command("export", "runs/tiny")
    assert ended.status == 0
    assert "Exported runs/tiny to runs/tiny/export: README.md, config.json" in ended.out
    assert "push_to_hub('runs/tiny/export', \"user/tiny\")" in ended.out
    assert "license: unknown" in (here / "export/README.md").read_text()
    assert load_network(here / "export").space.pixels
    page = command("export", "--help")
    assert page.status == 0
    assert "--license" in page.out


@pytest.mark.parametrize(
    "base",
    [
        Schedule(steps=4),
        Schedule(KTS(alpha=0.02) * Constant(0.98), steps=7, solver="heun", grid=[0.0, 0.4, 1.0]),
        Schedule(inject_noise=(0.4, 0.1), end_noise=(0.05, 0.1), blend=0.1, t_end=0.9, told_time="floor999"),
        Schedule(diffusion=Diffusion(0.5, "sbdm"), guidance=Guidance(2.0, channels=1, interval=(0.1, 0.9))),
    ],
)
def test_no_setting_of_base_is_left_out_of_the_code(base):
    """Noise, chance, guidance, a gain: the card samples as base was sampled."""
    words = _arguments(definition(base))
    made = eval(f"Schedule({words})", vars(flow))
    assert made == base
    assert "blend" in words or not base.blend


# What is refused


def test_an_existing_folder_is_never_overwritten(refused, here, tmp_path):
    for name in ("there", "runs/tiny"):
        (tmp_path / name).mkdir(exist_ok=True)
        says(refused("export", "runs/tiny", "--to", name), f"{name} exists.", "--to")
    (tmp_path / "file").write_text("mine")
    says(refused("export", "runs/tiny", "--to", "file"), "file exists.")


def test_a_place_that_cannot_be_written_to(refused, here, tmp_path):
    (tmp_path / "file").write_text("mine")
    says(refused("export", "runs/tiny", "--to", "file/inside"), "Cannot write file/inside: ", "--to")


def test_words_that_mean_nothing(refused, here):
    says(refused("export"), "export takes one run directory", "fm-lightning export runs/NAME")
    says(refused("export", "runs/tiny", "--into", "x"), "export has no option --into")
    says(refused("export", "runs/tiny", "--to"), "--to needs a folder")
    says(refused("export", "runs/tiny", "--license", "M I T"), "'M I T' is no name of a licence")
    says(refused("export", "runs/tiney"), "runs/tiney does not exist", "runs/tiny")


def test_a_run_that_is_not_finished(refused, here):
    record = json.loads((here / "run.json").read_text())
    from fm_lightning.files import write_json

    write_json(here / "run.json", {k: v for k, v in record.items() if k not in ("trained", "crc32")})
    says(refused("export", "runs/tiny"), "unfinished training", "fm-lightning run -c runs/tiny")
    (here / "checkpoints/last.ckpt").unlink()
    says(refused("export", "runs/tiny"), "not trained there")
    (here / "run.json").unlink()
    says(refused("export", "runs/tiny"), "runs/tiny was not made by fm-lightning run")


def test_a_run_without_results(refused, here):
    (here / "results.json").unlink()
    says(refused("export", "runs/tiny"), "runs/tiny holds no finished comparison", "fm-lightning test -c runs/tiny")
    shutil.rmtree(here / "evaluation")
    assert "fm-lightning test" in refused("export", "runs/tiny")


def test_results_of_other_weights(refused, here):
    """The training continued after the comparison."""
    last = here / "checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["state_dict"]["net.outlet.bias"] += 1e-4
    torch.save(checkpoint, last)
    says(refused("export", "runs/tiny"), "results.json holds results of other weights", "--again evaluation")


def test_a_class_of_the_users_own(refused, here, tmp_path):
    last = here / "checkpoints/last.ckpt"
    checkpoint = torch.load(last, weights_only=True)
    checkpoint["fm_lightning_config"]["model"]["net"]["class_path"] = "my_nets.UNet"
    torch.save(checkpoint, last)
    says(refused("export", "runs/tiny"), "my_nets.UNet cannot be rebuilt without its code", "ResidualMLP")


def test_a_damaged_checkpoint(refused, here):
    last = here / "checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:-200])
    says(refused("export", "runs/tiny"), "Cannot read", "last.ckpt")
