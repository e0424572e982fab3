"""Which runs are replicates, and which are refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import TINY

from fm_lightning.comparison.results import QualityFacts, Results
from fm_lightning.errors import UserError
from fm_lightning.study.replicates import Run, experiments, no_replicate
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.manifest import Manifest

STEPS = {"schedule": {"class": "Schedule", "steps": 4}, "content": ""}
GAIN = {"schedule": {"class": "Schedule", "gain": {"class": "KTS", "alpha": (0.02).hex()}, "steps": 4}, "content": ""}


def run(seed: int, change=lambda config: None, rows=None, **identity) -> Run:
    """A run as a comparison leaves it, without its lines."""
    config = copy.deepcopy(TINY) | {"name": f"t{seed}", "seed_everything": seed}
    config["model"]["base_seed"] = config["data"]["init_args"]["base_seed"] = seed
    change(config)
    rows = {"base": STEPS, "kts": GAIN} if rows is None else rows
    kinds = {"base": "base", "kts.noise": "control"}
    manifest = Manifest(
        identity={"weights": f"w{seed}", "base_seed": seed, "training_data": "moons", "precision": "32-true"}
        | identity,
        rows={name: {"key": name, "kind": kinds.get(name, "schedule")} for name in rows},
        definitions=dict(rows),
    )
    quality = QualityFacts("fd_raw", samples=13)
    results = Results((), config=config, threshold=1 / 3, tau_split=0.6, quality=quality)
    return Run(config["name"], results, Evaluation(Path("nowhere"), manifest, []))


def names(found) -> list[list[str]]:
    return [[each.name for each in experiment.runs] for experiment in found]


def test_seeds_make_replicates_and_data_make_experiments():
    runs = [run(0), run(3, training_data="spiral"), run(1), run(4, training_data="spiral"), run(2)]
    found = experiments(runs)
    assert names(found) == [["t0", "t1", "t2"], ["t3", "t4"]]
    assert found[0].apart == ()
    assert found[1].apart == ("t3 has other training data than t0",)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["trainer"].update(accelerator="gpu", devices=8, logger=[], enable_progress_bar=True),
        lambda c: c["data"]["init_args"].update(eval_batch_size=512, test_seeds=4000),
        lambda c: c["model"]["test_schedules"].update(more={"steps": 8}),
        lambda c: c.update(threads=2),
    ],
)
def test_where_and_what_a_comparison_is_asked_for_may_differ(change):
    assert no_replicate(run(0), run(1, change)) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c["model"]["net"]["init_args"].update(width=32),
            "model.net.init_args.width is 16 in t0 and 32 in t1",
        ),
        (lambda c: c["trainer"].update(max_steps=8), "trainer.max_steps is 4 in t0 and 8 in t1"),
        (
            lambda c: c["trainer"]["callbacks"][0]["init_args"].update(decay=0.5),
            "trainer.callbacks.EMA.decay is 0.9 in t0 and 0.5 in t1",
        ),
        (
            lambda c: c["trainer"]["callbacks"].insert(0, {"class_path": "a.CheckpointSeries"}),
            "trainer.callbacks.CheckpointSeries is not given in t0 and {} in t1",
        ),
        (lambda c: c["data"]["init_args"].update(batch_size=8), "batch_size is 16 in t0 and 8 in t1"),
    ],
)
def test_another_training_is_no_replicate(change, words):
    assert words in str(no_replicate(run(0), run(1, change)))


def test_another_measure_is_no_replicate():
    other = run(1)
    other = replace(other, results=replace(other.results, threshold=0.2))
    assert no_replicate(run(0), other) == "threshold is 0.3333333333333333 in t0 and 0.2 in t1"
    more = run(1)
    more = replace(more, results=replace(more.results, quality=QualityFacts("fd_raw", samples=4000)))
    assert no_replicate(run(0), more) is None


def test_shared_weights_or_noise_are_no_replicates():
    assert "same weights" in str(no_replicate(run(0), run(1, weights="w0")))
    assert "base_seed=0" in str(no_replicate(run(0), run(1, base_seed=0)))
    # ... of any run of the experiment, not only its first.
    assert names(experiments([run(0), run(1), run(2, weights="w1")])) == [["t0", "t1"], ["t2"]]


def test_the_same_run_twice():
    with pytest.raises(UserError, match="t0 and t0 are the same run"):
        experiments([run(0), run(0)])


def test_one_name_for_two_schedules():
    other = copy.deepcopy(GAIN)
    other["schedule"]["gain"]["alpha"] = (0.05).hex()
    with pytest.raises(UserError, match=r"Row 'kts' has schedule.gain.alpha 0.02 in t0 and 0.05 in t1"):
        experiments([run(0), run(1, rows={"base": STEPS, "kts": other})])
    plain = {"schedule": {"class": "Schedule", "steps": 9}, "content": ""}
    with pytest.raises(UserError, match=r"Row 'base' has schedule.steps 4 in t0 and 9 in t1"):
        experiments([run(0), run(1, rows={"base": plain}, training_data="spiral")])


def test_controls_are_matched_anew_in_each_run():
    one = run(0, rows={"base": STEPS, "kts": GAIN, "kts.noise": STEPS})
    other = run(1, rows={"base": STEPS, "kts": GAIN, "kts.noise": GAIN})
    assert names(experiments([one, other])) == [["t0", "t1"]]
