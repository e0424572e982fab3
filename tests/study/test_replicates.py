"""Which runs are replicates, and which are refused."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_runs import TINY

from fm_lightning.comparison.results import QualityFacts, Results, VerdictResult
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
        lambda c: c["model"].update(channels_last=True, compile=True, merge_rows=8),
        lambda c: c.update(threads=2),
    ],
)
def test_where_a_run_works_and_what_it_compares_may_differ(change):
    assert no_replicate(run(0), run(1, change)) is None


def add(path: str, **arguments):
    """A change of a configuration: one more callback."""
    return lambda c: c["trainer"]["callbacks"].append({"class_path": path, "init_args": arguments})


def set_option(name: str, **arguments):
    """A change of a configuration: other arguments of a callback."""

    def change(config):
        (callback,) = (c for c in config["trainer"]["callbacks"] if c["class_path"].endswith(f".{name}"))
        callback["init_args"] = callback.get("init_args", {}) | arguments

    return change


def remove(name: str):
    """A change of a configuration: a callback fewer."""

    def change(config):
        kept = [c for c in config["trainer"]["callbacks"] if not c["class_path"].endswith(f".{name}")]
        assert len(kept) < len(config["trainer"]["callbacks"])
        config["trainer"]["callbacks"] = kept

    return change


@pytest.mark.parametrize(
    "change",
    [
        set_option("ScheduleTable", families=["cheap", "average"], other_models=["a", "b"], samples="base"),
        set_option("MemorizationMonitor", k=5, divided=True),
        set_option("ModelCheckpoint", every_n_train_steps=1),
        add("fm_lightning.callbacks.CheckpointSeries", count=5),
        add("fm_lightning.callbacks.kept_weights.PowerAverages"),
        add("fm_lightning.callbacks.LogSpacedValidation"),
        add("lightning.pytorch.callbacks.LearningRateMonitor"),
        remove("SampleGrid"),
        remove("MemorizationMonitor"),
        lambda c: c["trainer"].update(callbacks=list(reversed(c["trainer"]["callbacks"]))),
        lambda c: c["trainer"].update(val_check_interval=4, limit_val_batches=1, check_val_every_n_epoch=2),
        lambda c: (c["data"]["init_args"].update(val_seeds=64), c["model"].update(val_schedules=None)),
    ],
)
def test_what_only_observes_may_differ(change):
    assert no_replicate(run(0), run(1, change)) is None
    assert no_replicate(run(0, change), run(1)) is None


def stopping(config):
    """A callback that reads validations, which is not ours to know."""
    add("lightning.pytorch.callbacks.EarlyStopping", monitor="val/loss")(config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["trainer"].update(val_check_interval=4), "trainer.val_check_interval is 2 in t0 and 4 in t1"),
        (lambda c: c["data"]["init_args"].update(val_seeds=64), "data.init_args.val_seeds is 13 in t0 and 64 in t1"),
        (add("fm_lightning.callbacks.LogSpacedValidation"), "LogSpacedValidation is not given in t0 and {} in t1"),
        (set_option("ScheduleTable", families="all"), None),
        (add("fm_lightning.callbacks.PowerAverages"), None),
    ],
)
def test_validations_must_agree_where_a_training_may_end_by_them(change, words):
    found = no_replicate(run(0, stopping), run(1, lambda c: (stopping(c), change(c))))
    assert found is None if words is None else words in str(found)


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
            lambda c: c["trainer"]["callbacks"].insert(0, {"class_path": "theirs.CheckpointSeries"}),
            "trainer.callbacks.CheckpointSeries is not given in t0 and {} in t1",
        ),
        (remove("EMA"), 'trainer.callbacks.EMA is {"decay": 0.9} in t0 and not given in t1'),
        (
            lambda c: c["trainer"].update(precision="bf16-mixed"),
            "trainer.precision is not given in t0 and bf16-mixed in t1",
        ),
        (
            lambda c: c["trainer"].update(gradient_clip_val=1.0),
            "trainer.gradient_clip_val is not given in t0 and 1.0 in t1",
        ),
        (lambda c: c["model"]["optimizer"]["init_args"].update(lr=0.1), "lr is 0.004 in t0 and 0.1 in t1"),
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
    other = run(1)
    other = replace(other, results=replace(other.results, quality=QualityFacts("fid", samples=13)))
    assert no_replicate(run(0), other) == "quality.key is fd_raw in t0 and fid in t1"
    mirrored = run(1, set_option("MemorizationMonitor", mirrored=True))
    assert no_replicate(run(0), mirrored) == "MemorizationMonitor.mirrored is not given in t0 and true in t1"


def with_results(made: Run, **facts) -> Run:
    return replace(made, results=replace(made.results, **facts))


def test_what_was_not_measured_contradicts_nothing():
    assert no_replicate(run(0), with_results(run(1), quality=None, threshold=None, tau_split=None)) is None


def test_verdicts_with_other_margins_are_not_pooled():
    verdicts = (VerdictResult("kts", "base", "better"),)
    wide, narrow = ({"memorized": 0.01, "of_base": 0.1, "quality": share} for share in (0.05, 0.02))
    one, other = (with_results(run(i), verdicts=verdicts, margins=margins) for i, margins in enumerate((wide, narrow)))
    assert no_replicate(one, other) == "margins.quality is 0.05 in t0 and 0.02 in t1"
    assert no_replicate(one, with_results(other, verdicts=())) is None


def test_an_earlier_step_is_no_replicate():
    one, cut = with_results(run(0), step=4), with_results(run(1), step=2)
    assert no_replicate(one, cut) == "step is 4 in t0 and 2 in t1"
    for ends in (stopping, lambda c: c["trainer"].update(max_time="00:01:00:00")):
        one, other = with_results(run(0, ends), step=4), with_results(run(1, ends), step=2)
        assert no_replicate(one, other) is None


def test_samples_of_another_precision_are_no_replicate():
    assert no_replicate(run(0), run(1, precision="64-true")) == "precision is 32-true in t0 and 64-true in t1"


def test_without_a_configuration_nothing_is_known_of_the_training():
    unknown = with_results(run(1), config={})
    assert no_replicate(run(0), unknown) == "t1 has no configuration, so how it was trained is unknown"
    assert "t1 has no configuration" in str(no_replicate(unknown, run(2)))


def test_a_single_callback_may_stand_without_a_list():
    def one(config):
        config["trainer"]["callbacks"] = config["trainer"]["callbacks"][0]

    assert no_replicate(run(0, one), run(1, one)) is None


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


def test_each_run_matches_its_own_controls():
    one = run(0, rows={"base": STEPS, "kts": GAIN, "kts.noise": STEPS})
    other = run(1, rows={"base": STEPS, "kts": GAIN, "kts.noise": GAIN})
    assert names(experiments([one, other])) == [["t0", "t1"]]
