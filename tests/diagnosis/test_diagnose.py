"""``fm-lightning diagnose`` on tiny runs: every number against a direct call, and what is undefined with its reason."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_runs import says, tiny_config

from fm_lightning.data import Digits, Toy2D
from fm_lightning.diagnosis.answer import plain
from fm_lightning.diagnosis.association.correlation import spearman
from fm_lightning.diagnosis.association.groups import group_means, quantile_groups
from fm_lightning.diagnosis.association.monotone import share_curve
from fm_lightning.diagnosis.association.roc import auroc
from fm_lightning.diagnosis.copy_measures import copy_measures
from fm_lightning.diagnosis.copy_metrics import AuthPct
from fm_lightning.diagnosis.density import density
from fm_lightning.diagnosis.diagnose import check, diagnose
from fm_lightning.diagnosis.over_training import over_training
from fm_lightning.diagnosis.probed import probe
from fm_lightning.diagnosis.subject import Subject
from fm_lightning.diagnosis.toy_density import log_density
from fm_lightning.errors import UserError
from fm_lightning.flow import EmpiricalVelocity, Schedule, integrate
from fm_lightning.metrics import MemorizationRate
from fm_lightning.metrics.features.digits import DigitsClassifier
from fm_lightning.metrics.semantics import ClassifierSemantics
from fm_lightning.metrics.support import LocalSupport
from fm_lightning.noise import noise
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.trajectory import Trajectory


def digits_config(config):
    config["name"] = "digits"
    config["data"] = {
        "class_path": "fm_lightning.data.Digits",
        "init_args": {
            "n": 40,
            "conditional": True,
            "batch_size": 16,
            "eval_batch_size": 32,
            "val_seeds": 24,
            "test_seeds": 61,
        },
    }
    config["model"]["net"]["init_args"] |= {"shape": [1, 8, 8], "num_classes": 10}
    config["model"]["fields"] = {"empirical": {"class_path": "fm_lightning.comparison.ClosedForm"}}
    callbacks = config["trainer"]["callbacks"]
    callbacks.insert(0, {"class_path": "fm_lightning.callbacks.SupportMonitor", "init_args": {"k": [3]}})


def judged_config(config):
    digits_config(config)
    callbacks = config["trainer"]["callbacks"]
    judge = {"class_path": "fm_lightning.metrics.features.digits.DigitsClassifier"}
    callbacks.insert(0, {"class_path": "fm_lightning.callbacks.SemanticsMonitor", "init_args": {"classifier": judge}})


def loaded(folder):
    results = json.loads((folder / "diagnosis" / "results.json").read_text())
    with np.load(folder / "diagnosis" / "arrays.npz") as arrays:
        return results, dict(arrays)


@pytest.mark.slow
def test_a_toy_run_through_the_command(command, refused, tmp_path):
    says(refused("diagnose", "tiny.yaml"), "'tiny.yaml' is not an option", "Use fm-lightning diagnose -c tiny.yaml")
    assert command("run", "-c", "tiny.yaml").status == 0
    run = tmp_path / "runs" / "tiny"
    ended = command("diagnose", run, "--probes", 9, "--pdf", "true")
    assert ended.status == 0, ended.err
    says(ended.out.replace("\n", " "), "Energy and density", " s", "Diagnosis:", "diagnosis.html")
    results, arrays = loaded(run)
    assert (results["n"], results["probed"]) == (13, 9)
    numbers = {name: question["numbers"] for name, question in results["questions"].items()}

    evaluation, data = Evaluation.open(run), Toy2D(n=24)
    data.setup()
    lines, x = evaluation.lines("base"), torch.from_numpy(evaluation.samples("base"))
    entry = {(e["energy"], e["measure"]): e["plain"] for e in numbers["density"]["associations"]}
    said = " ".join(results["questions"]["density"]["sentences"])
    assert "given noise and distance from the mean: rho" in said, "there are no classes"
    assert "pass classifier." in " ".join(results["questions"]["semantics"]["sentences"])
    support = LocalSupport(data.reference(), (5,), ()).measure(x)["knn_5"]
    assert entry["late", "knn_5, training, model space"]["value"] == pytest.approx(spearman(lines.late, support).value)
    assert entry["kpe", "true log density"]["value"] == pytest.approx(
        spearman(lines.kpe, log_density("moons", x)).value
    )
    assert numbers["density"]["likelihood"]["backwards"] == 2 * 4 * 2  # two dimensions, four steps, two batches

    hits = (lines.d1 / lines.d2 < 1 / 3).to_numpy()
    curve = share_curve(lines.kpe, hits, 5)
    assert numbers["copying"]["curves"]["kpe"]["curve"]["share"] == pytest.approx(curve.share.tolist())
    assert numbers["copying"]["predictors"]["excess"]["auroc"]["value"] == auroc(lines.excess, hits).value
    authentic = AuthPct(data.reference(), data.held_out())
    value = authentic.value(authentic.measure(x)).value
    assert numbers["copy_measures"]["measures"]["authenticity"]["value"]["value"] == pytest.approx(value)
    # Too few samples for some measures: each says why, and takes no other with it.
    assert "20 samples" in numbers["copy_measures"]["measures"]["data_copying"]["reason"]
    assert "2 numbers say nothing" in numbers["copy_measures"]["measures"]["cosine"]["reason"]
    assert arrays["copying/power/network"].shape == (4,)

    page = (run / "diagnosis" / "diagnosis.html").read_text()
    assert "nan" not in json.dumps(results).lower().split()
    assert "n = 13" in page
    figures = {path.name for path in (run / "diagnosis" / "figures").iterdir()}
    assert {"goldilocks.png", "goldilocks.pdf", "density.png", "power.png", "originals.png"} <= figures

    says(refused("diagnose", run, "--groups", 2), "`groups=2` cannot show a hump", "Use at least 3")
    says(refused("diagnose", run, "--groups", 14), "13 samples cannot fill 14 groups", "Compare more seeds")
    says(refused("diagnose", run, "--clip", "some/clip"), "needs a model with labels", "Remove --clip")
    says(refused("diagnose", run, "--features", "fd_none"), "There is no extractor 'fd_none'", "Use one of")
    other = run / "checkpoints" / "step-2.ckpt"
    says(refused("diagnose", run, "--ckpt_path", other), "was sampled with other weights", "Run fm-lightning test")


@pytest.mark.slow
def test_digits_with_their_classifier_and_the_monitors(command, tmp_path):
    tiny_config(tmp_path / "digits.yaml", digits_config)
    tiny_config(tmp_path / "judged.yaml", judged_config)
    ended = command("run", "-c", "digits.yaml")
    assert ended.status == 0, ended.err
    ended = command("test", "-c", "judged.yaml")  # of kept samples, with the labels that the table has
    assert ended.status == 0, ended.err
    says(ended.out, "measuring kept samples of 2 blocks")
    ended = command("validate", "-c", "judged.yaml")
    says(
        ended.out.replace("\n", " "),
        "val/base/classifier_accuracy",
        "val/base/classifier_margin_mean",
        "val/base/knn_3_mean",
    )
    run = tmp_path / "runs" / "digits"
    ended = command("diagnose", run, "--probes", 40, "--features", "fd_digits")
    assert ended.status == 0, ended.err
    results, arrays = loaded(run)
    evaluation, data = Evaluation.open(run), Digits(n=40, conditional=True)
    data.setup()
    lines, x = evaluation.lines("base"), torch.from_numpy(evaluation.samples("base"))
    labels = torch.from_numpy(lines.label.to_numpy().astype(np.int64))

    said = " ".join(results["questions"]["density"]["sentences"])
    assert "given noise, distance from the mean and class: rho" in said
    assert "The field empirical under the same seeds: KPE and support by the 5 nearest training images" in said
    other = results["questions"]["density"]["numbers"]["others"]["empirical"]
    entry = next(e for e in other if (e["energy"], e["measure"]) == ("kpe", "knn_5, training, model space"))
    theirs = torch.from_numpy(evaluation.samples("empirical"))
    support = LocalSupport(data.reference(), (5,), ()).measure(theirs)["knn_5"]
    assert entry["plain"]["value"] == pytest.approx(spearman(evaluation.lines("empirical").kpe, support).value)
    # What the monitors left in the table, and in training's log.
    assert lines.knn_3.to_numpy() == pytest.approx(LocalSupport(data.reference(), (3,), ()).measure(x)["knn_3"].numpy())
    assert ((lines.classifier_score >= 0) & (lines.classifier_score <= 1)).all()
    assert "val/base/knn_3_mean" in (run / "metrics.csv").read_text()
    floor = next(row for row in json.loads((run / "results.json").read_text())["rows"] if row["name"] == "held_out")
    assert "knn_3_mean" in floor["metrics"]
    assert "classifier_score_mean" not in floor["metrics"]

    still = Trajectory(
        x, x.new_zeros(0, 61), x.new_zeros(61), x.new_zeros(61), torch.zeros(1), torch.zeros(0), 0, labels
    )
    margins = ClassifierSemantics(DigitsClassifier.load()).measure(still)["classifier_margin"]
    means = group_means(quantile_groups(lines.kpe, 3, labels), margins)
    found = results["questions"]["semantics"]["numbers"]["classifier"]
    assert not found["guessed"]
    assert [g["value"] for g in found["columns"]["classifier_margin"]["means"]] == pytest.approx(
        [g.value for g in means], rel=1e-5
    )
    assert arrays["semantics/lowest"].dtype == np.uint8
    measures = {e["measure"] for e in results["questions"]["density"]["numbers"]["associations"]}
    assert "kde_1, held-out, fd_digits" in measures
    likelihood = results["questions"]["density"]["numbers"]["likelihood"]
    assert likelihood["standard_error"] is None, "64 dimensions: exact"
    assert likelihood["backwards"] == 64 * 4 * 2
    assert (run / "diagnosis" / "figures" / "thirds.png").stat().st_size > 5000


@pytest.fixture
def subject():
    """37 samples of the closed form of 24 moons."""
    data = Toy2D(n=24, eval_batch_size=20)
    data.setup()
    return made(data, EmpiricalVelocity(data.reference()))


def made(data, velocity, n=37, **schedule):
    seeds = torch.arange(n)
    schedule = Schedule(steps=20, **schedule)
    way = integrate(velocity, noise(range(n), data.shape, 0), schedule, seeds=seeds)
    energies = {"kpe": way.kpe, "early": way.early(0.6), "late": way.late(0.6)}
    energies |= {"displacement": way.displacement, "excess": way.excess}
    neighbours = MemorizationRate(data.reference()).measure(way.x1)
    energies = {name: values.double() for name, values in energies.items()}
    return Subject(
        data=data,
        trajectory=way,
        energies=energies,
        base_seed=0,
        velocity=velocity,
        schedule=schedule,
        neighbours=neighbours,
        threshold=1 / 3,
        tau_split=0.6,
        device=torch.device("cpu"),
        resampled=0,
    )


def test_the_closed_form_is_known(subject):
    probed = probe(subject, 30)
    assert len(probed) == 30
    # Its power relative to itself along its own trajectory is the same field's.
    assert torch.allclose(probed.network, probed.closed["along the network's way"])
    assert torch.allclose(probed.network, probed.closed["along its own way"])
    assert torch.allclose(subject.covariates["||x0||"][:3], noise(range(3), (2,), 0).norm(dim=1).double())
    found = copy_measures(subject).numbers
    assert found["measures"]["ratio"]["value"].value == subject.copies.double().mean() > 0.9
    assert found["measures"]["ratio"]["saying"] == "copies"


def test_a_diagnosis_is_the_same_at_any_batch_size(subject):
    subject.data.eval_batch_size = 7
    small = probe(subject, 30)
    subject.data.eval_batch_size = 64
    large = probe(subject, 30)
    assert torch.equal(small.commitment, large.commitment)
    assert torch.allclose(small.bridge_density, large.bridge_density, atol=1e-4)


def test_constant_energies_are_undefined_with_their_reason(subject):
    constant = replace(subject, energies={name: torch.ones(37, dtype=torch.float64) for name in subject.energies})
    results, _ = diagnose(constant, probes=5)
    text = json.dumps(results, allow_nan=False)
    assert "NaN" not in text
    says(" ".join(results["questions"]["density"]["sentences"]), "no Spearman's rho (constant x", "n = 37")
    says(
        " ".join(results["questions"]["copying"]["sentences"]),
        "No F_mem over quantiles of KPE: 1 different values cannot fill 5 groups",
    )
    says(" ".join(results["questions"]["semantics"]["sentences"]), "No thirds of KPE")
    assert plain(float("nan")) is None


def test_what_is_outside_the_true_support_is_counted(subject):
    board = Toy2D(name="checkerboard", n=24)
    board.setup()
    answer = density(replace(subject, data=board), probe(subject, 5))
    entry = next(e for e in answer.numbers["associations"] if e["measure"] == "true log density")
    outside = int(log_density("checkerboard", subject.samples).isinf().sum())
    assert entry["outside"] == outside > 0
    assert entry["plain"].value is None  # a constant density on what is left
    assert entry["plain"].n == 37 - outside


@pytest.mark.parametrize(
    ("series", "words"),
    [
        ({}, "no validation logged F_mem"),
        ({"val/base/f_mem": [(9, 0.0), (19, 0.009)]}, "never reached 1%"),
        ({"val/base/f_mem": [(9, 0.0), (19, 0.01)]}, "between the steps 9 and 19"),
        ({"val/base/f_mem": [(9, 0.5)]}, "at the first validation already"),
    ],
)
def test_first_passage_over_training(series, words):
    says(" ".join(over_training(series, 500).sentences), words)


def test_arguments_out_of_range(subject):
    with pytest.raises(UserError, match="probes=0"):
        check(subject, 0, 5)
    with pytest.raises(UserError, match="37 samples cannot fill 38 groups"):
        check(subject, 1, 38)
