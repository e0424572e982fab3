"""A comparison as one function, for notebooks and scripts: any velocity field, and no Lightning.

>>> found = compare_schedules(net, {"kts": Schedule(KTS())}, train=train, real=real, held_out=held_out)   # doctest: +SKIP
>>> print(found.verdicts["kts"])                                                                          # doctest: +SKIP
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fm_lightning.comparison.collect import Collector
from fm_lightning.comparison.compare import ComparisonLoop
from fm_lightning.comparison.default_measures import default_measures
from fm_lightning.comparison.facts import comparison_facts
from fm_lightning.comparison.families import Which
from fm_lightning.comparison.fields import Field, Given
from fm_lightning.comparison.identity import Probes, probe, sampling_identity
from fm_lightning.comparison.judge import judge_all
from fm_lightning.comparison.model_families import NO_FURTHER
from fm_lightning.comparison.plan import SamplingPlan
from fm_lightning.comparison.processes import first_process_result, process
from fm_lightning.comparison.progress import Bar
from fm_lightning.comparison.results import Results
from fm_lightning.comparison.rows import BASE, HELD_OUT, check_schedule, check_schedules
from fm_lightning.comparison.sampling import Model
from fm_lightning.data.batches import SeedBatches, Share
from fm_lightning.data.samples import TEST_SEED, Samples, say
from fm_lightning.data.tensors import Tensors, samples_of
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule
from fm_lightning.flow.trained import trained_range, where_trained
from fm_lightning.flow.velocity import Velocity, guidable
from fm_lightning.guidance import Guidance
from fm_lightning.hashes import weights_hash
from fm_lightning.metrics.features.extractor import FeatureExtractor
from fm_lightning.metrics.measure import Measure
from fm_lightning.metrics.memorization import THRESHOLD
from fm_lightning.nets.velocity import Guided
from fm_lightning.nets.velocity import Velocity as NetVelocity
from fm_lightning.report.page import save
from fm_lightning.table.evaluation import Evaluation
from fm_lightning.table.pictures import read_pictures
from fm_lightning.verdicts.margins import Margins
from fm_lightning.verdicts.verdict import Verdict

if TYPE_CHECKING:  # takes half a second to import
    import pandas as pd


@dataclass(frozen=True)
class Comparison:
    """What ``compare_schedules`` found.

    Attributes:
        folder: where the table lies, and the report.
        table: one line per row and seed, on disk.
        results: each row's numbers and the verdicts, as in ``results.json``.
    """

    folder: Path
    table: Evaluation
    results: Results
    _measures: Sequence[Measure]

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line per row: what it is, and its numbers."""
        import pandas as pd

        facts = ("name", "kind", "of", "label", "nfe", "samples")
        return pd.DataFrame([{k: getattr(row, k) for k in facts} | dict(row.metrics) for row in self.results.rows])

    @cached_property
    def verdicts(self) -> dict[str, Verdict]:
        """Name of a schedule -> its verdict."""
        return {verdict.schedule: verdict for verdict in judge_all(self.table)}

    def paragraph(self, name: str) -> str:
        """The verdict on a schedule in a few sentences.

        Raises:
            UserError: a schedule that was not judged.
        """
        if name not in self.verdicts:
            raise UserError(f"{name!r} was not judged.", f"Judged were: {', '.join(self.verdicts) or 'none'}.")
        return str(self.verdicts[name])

    def report(self) -> Path:
        """Writes ``results.json``, ``results.csv`` and ``report.html``; returns the page."""
        arrays = Collector(self.table, self._measures).arrays() | read_pictures(self.table)
        save(self.folder, self.results, arrays)
        return self.folder / "report.html"


def compare_schedules(
    velocity: Velocity,
    schedules: Mapping[str, Schedule],
    *,
    train: Tensor | Samples,
    real: Tensor | None = None,
    held_out: Tensor | None = None,
    seeds: int = 2000,
    batch_size: int = 500,
    labels: Tensor | None = None,
    features: str | FeatureExtractor | None = "raw",
    families: Which = "cheap",
    judge: Sequence[str] | None = None,
    fields: Mapping[str, Field | Velocity] | None = None,
    folder: str | Path | None = None,
    device: str | torch.device | None = None,
    base_seed: int = 0,
    threshold: float = THRESHOLD,
    tau_split: float = 0.6,
    margins: Margins | None = None,
    measures: Sequence[Measure] | None = None,
    identity: str | None = None,
) -> Comparison:
    """Compares sampling schedules of one velocity field, and judges them against trivial manipulations.

    The same call with the same folder resumes after an interruption; with more schedules, seeds or measures it samples only
    what is missing. Under ``torchrun`` the processes share the work.

    Args:
        velocity: ``v(x [B, ...], t [B], y [B] or None)`` -> like x: a network, evaluated in evaluation mode, or a function.
        schedules: name -> schedule; plain sampling is added as ``base`` unless it is there. They begin at the largest noise
            level that the velocity was trained on, where it says so (``trained_on``) and they have no ``t_start``.
        train: ``[n, ...]`` what the model was trained on, in the velocity's own space; or one FlowData for this and the next
            two.
        real: ``[m, ...]`` what samples are compared with; best real samples that were not trained on.
        held_out: ``[k, ...]`` further real samples, which tell how well a distance is known. If most of ``real`` was trained
            on, verdicts compare with these if there are at least 100.
        seeds: samples per schedule.
        batch_size: samples per batch and process.
        labels: ``[l]`` int64 classes from 0, for example those of ``train``: every seed draws its label from these.
        features: on which the Fréchet distance is measured: "raw" (the samples themselves), the name of another distance, for
            example "fid", or an extractor; None for no distance.
        families: trivial manipulations to judge against: the "cheap" ones, "all", "none", or families of one's own.
        judge: names of the schedules to judge; by default those with a gain.
        fields: other velocity fields, sampled like ``base``.
        folder: of the table and the report; by default a temporary one.
        device: by default the network's, or that of ``train``.
        base_seed: of the noise, and of the labels of tensors.
        threshold: a sample is a copy below this ratio of the distances to its two nearest training samples.
        tau_split: time that separates early from late energy.
        margins: the smallest effects that matter.
        measures: of the samples, instead of energy, memorization and Fréchet distance.
        identity: names the velocity in the table. By default a network is known by its weights, and every velocity by its
            values at a few states: a changed one is refused in a folder of the old one.

    Returns:
        the table, the numbers and the verdicts.

    Raises:
        UserError: samples, schedules or a velocity that cannot be compared; a folder that holds another comparison.
    """
    if dist.is_torchelastic_launched() and not dist.is_initialized():
        dist.init_process_group()
    check_schedules(schedules)
    if isinstance(base_seed, bool) or not isinstance(base_seed, int) or not 0 <= base_seed < 2**63:
        raise UserError(
            f"base_seed={base_seed!r} is not a whole number from 0 to 2**63 - 1.", "Pass for example base_seed=0"
        )
    data = samples_of(train, real, held_out, labels, base_seed)
    where, dtype = _numbers(velocity, data, device)
    guidance = velocity.guidance if isinstance(velocity, Guided) else None
    if isinstance(velocity, Guided):  # rows differ in guidance; the field is the conditional one
        same = isinstance(velocity.net, NetVelocity) and velocity.net.null_label == velocity.null_label
        velocity = velocity.net if same else velocity.guided(Guidance())
    model = Model(velocity, data, base_seed, where, dtype, listeners=[Bar()])
    if isinstance(velocity, NetVelocity) and 0 < velocity.num_classes < data.num_classes:
        problem = f"labels has {data.num_classes} classes, and the velocity knows {velocity.num_classes}."
        raise UserError(problem, f"Pass labels from 0 to {velocity.num_classes - 1}.")
    schedules = _begun(velocity, schedules, fields or {})
    others = {name: field if isinstance(field, Field) else Given(field) for name, field in (fields or {}).items()}
    plan = SamplingPlan(velocity, None, schedules, judge, others, floors=True, guidance=guidance)
    plan.check_data(data)
    rows = plan.comparison(data, where)
    if isinstance(data, Tensors) and not data.has_held_out:
        rows.pop(HELD_OUT)
    if measures is None:
        measures = default_measures(data, features, where, threshold, tau_split)
    place = Path(folder or first_process_result(lambda: tempfile.mkdtemp(prefix="comparison-")))

    def named(probes: Probes) -> dict[str, Any]:
        about = sampling_identity(model)
        if identity is not None:
            probe(velocity, model)  # it may still have dropout
            return about | {"velocity": identity}
        weights = weights_hash(velocity) if isinstance(velocity, nn.Module) else None
        return about | {"weights": weights, "velocity": probes.name(velocity)}

    loop = ComparisonLoop(
        place,
        model,
        rows,
        measures,
        named,
        seeds=seeds,
        batch_size=batch_size,
        judge=plan.judge,
        families=families,
        margins=margins,
        further=NO_FURTHER._replace(guidable=guidable(velocity)),
    )
    share = Share(*process())
    batches = SeedBatches(TEST_SEED, seeds, min(seeds, batch_size), share)
    try:
        loop.open()
        loop.choose()
        for batch in model.follow("Comparing schedules", batches):
            loop.step(batch)
        results = loop.finish(comparison_facts(place, data, where, share.world))
    finally:
        loop.close()
    return Comparison(place, loop.table, results, loop.measures)


def falsify(velocity: Velocity, schedule: Schedule, *, families: Which = "all", **options: Any) -> Verdict:
    """The verdict on one schedule, judged against all families: does it do more than they do?

    Args:
        velocity: see ``compare_schedules``.
        schedule: the schedule.
        families: to judge it against.
        **options: of ``compare_schedules``.
    """
    name = "schedule"
    check_schedule("This", schedule)
    found = compare_schedules(velocity, {name: schedule}, families=families, judge=[name], **options)
    return found.verdicts[name]


def _begun(
    velocity: Velocity, schedules: Mapping[str, Schedule], fields: Mapping[str, Field | Velocity]
) -> Mapping[str, Schedule]:
    """The schedules, beginning where the velocity's training does; other fields are sampled like ``base``."""
    begun = where_trained(schedules or {BASE: Schedule()}, velocity)
    first = trained_range(velocity)[0]
    if any(begun[name] != schedule for name, schedule in schedules.items()) or (first and not schedules):
        say(f"Sampling begins at t = {first:.4g}, the largest noise level that the network was trained on.")
    start = begun.get(BASE, next(iter(begun.values()))).t_start
    for name, field in fields.items():
        if not isinstance(field, Field) and (own := trained_range(field)[0]) > start + 1e-6:
            raise UserError(
                f"The field {name} was trained only for t >= {own:.4g}, and base begins at t = {start:.4g}.",
                f"Pass every schedule with t_start={own!r}.",
            )
    return begun


def _numbers(velocity: Velocity, data: Samples, device: str | torch.device | None) -> tuple[torch.device, torch.dtype]:
    """Where and in which numbers the velocity is evaluated."""
    if device is not None:
        _check_device(device)
    weights = next(velocity.parameters(), None) if isinstance(velocity, nn.Module) else None
    if weights is None:
        where = data.train_split.x.device if isinstance(data.train_split.x, Tensor) else torch.device("cpu")
        return torch.device(device or where), torch.float32
    if device is not None and torch.device(device).type != weights.device.type:
        raise UserError(f"The network is on {weights.device}, not on {device}.", "Move it with net.to(device).")
    if weights.dtype not in (torch.float32, torch.float64):
        raise UserError(
            f"The network's weights are {weights.dtype}, in which energies lose their digits.",
            "Convert them with net.float().",
        )
    return weights.device, weights.dtype


def _check_device(device: str | torch.device) -> None:
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise UserError(f"The device {device!r} does not exist here.", 'Pass device="cpu", or leave it out.') from error
