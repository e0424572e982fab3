"""FlowMatching: conditional flow matching as a LightningModule.

    training    x_t, u_t = path(x0, x1, t);  loss = mean || v(x_t, t, y) - u_t ||^2
    validation  the same loss on held-out data; and seeds -> noise -> one Trajectory per schedule
    test        the same for all schedules to compare, trivial manipulations, other fields and floors
    predict     seeds -> one Trajectory

Callbacks compute the metrics, from the trajectories that they receive in ``on_validation_batch_end`` and ``on_test_batch_end``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.optim import AdamW
from torchmetrics import MeanMetric

from fm_lightning.adapters import load_weights
from fm_lightning.adapters.checkpoints import DATA
from fm_lightning.comparison.compare import ComparisonLoop
from fm_lightning.comparison.fields import Field
from fm_lightning.comparison.identity import Probes, sampling_identity
from fm_lightning.comparison.model_families import model_families
from fm_lightning.comparison.plan import SamplingPlan
from fm_lightning.comparison.rows import Row
from fm_lightning.comparison.sampling import Model, SamplingListener
from fm_lightning.data.base import FlowData
from fm_lightning.data.batches import HeldOutBatch, SeedBatch, TrainBatch
from fm_lightning.errors import UserError
from fm_lightning.flow import Coupling, Independent, LinearPath, Schedule, TimeSampling, Uniform
from fm_lightning.guidance import Guidance
from fm_lightning.hashes import weights_hash
from fm_lightning.metrics.measure import Measure
from fm_lightning.nets.conditions import drop_labels
from fm_lightning.nets.velocity import check_network, check_null_label, check_returned
from fm_lightning.training.checks import check_accumulation, check_average, check_precision
from fm_lightning.training.draws import Draws, held_out_bridge
from fm_lightning.training.loop_state import end_at_a_whole_step
from fm_lightning.training.optim import Recipe
from fm_lightning.trajectory import Trajectory


class FlowMatching(LightningModule):
    """Trains a velocity network by conditional flow matching (arXiv 2210.02747) and samples from it.

    Args:
        net: ``v(x, t, y)``: ``x [B, ...]``, ``t [B]``, ``y [B]`` or None, returns like x.
        path: the bridge.
        coupling: pairing of noise and data; independent by default.
        times: distribution of t in the loss; uniform by default.
        optimizer: parameters -> optimizer.
        scheduler: optimizer -> learning-rate scheduler, stepped every optimizer step; None keeps the rate.
        val_schedules: sampled at each validation; plain sampling by default.
        test_schedules: compared in test; those of validation by default.
        judge: names of the ``test_schedules`` that get a verdict: a comparison with trivial manipulations of equal effect. None
            means every schedule with a gain.
        fields: other velocity fields as rows of the comparison, sampled like ``base``.
        floors: add the rows ``held_out`` (real images) and ``copies`` (training images).
        label_dropout: share of training labels replaced by the network's null label, for guidance.
        guidance: classifier-free guidance of the schedules that have none of their own, or its scale; 1 is none. An
            evaluation then costs two.
        weights: file with weights for the network, from this package or another (see ``adapters.load_weights``).
        channels_last: store the network's images with channels last, the layout for which tensor cores are fastest.
        compile: compile the network.
        merge_rows: largest batch in which a comparison evaluates schedules together once their trajectories differ; 0 evaluates
            them separately.
        base_seed: seed of the run, from which every random draw derives.
    """

    def __init__(
        self,
        net: nn.Module,
        path: LinearPath | None = None,
        coupling: Coupling | None = None,
        times: TimeSampling | None = None,
        optimizer: OptimizerCallable = AdamW,
        scheduler: LRSchedulerCallable | None = None,
        val_schedules: dict[str, Schedule] | None = None,
        test_schedules: dict[str, Schedule] | None = None,
        judge: list[str] | None = None,
        fields: dict[str, Field] | None = None,
        floors: bool = True,
        label_dropout: float = 0.0,
        guidance: Guidance | float = 1.0,
        weights: str | None = None,
        channels_last: bool = False,
        compile: bool = False,
        merge_rows: int = 0,
        base_seed: int = 0,
    ) -> None:
        super().__init__()
        self.net = net
        self.path = path or LinearPath()
        self.coupling = coupling or Independent()
        self.times = times or Uniform()
        self.optimizer, self.scheduler = Recipe(optimizer), Recipe(scheduler) if scheduler else None
        if not 0 <= label_dropout < 1:
            raise UserError(
                f"`label_dropout={label_dropout:g}` must be at least 0 and below 1.", "Use 0.1, for example."
            )
        self.guidance = guidance if isinstance(guidance, Guidance) else Guidance(guidance)
        if label_dropout or self.guidance.scale != 1:
            check_null_label(net, f"label_dropout={label_dropout:g} and guidance={self.guidance.scale:g}")
        self.plan = SamplingPlan(net, val_schedules, test_schedules, judge, fields, floors, self.guidance)
        self.base_seed, self.merge_rows = base_seed, merge_rows
        self.rows: dict[str, Row] = {}  # those being sampled
        self.comparison: ComparisonLoop | None = None  # keeps the samples of a test
        self.val_loss = MeanMetric()
        self.label_dropout = label_dropout
        self.weights = load_weights(net, weights) if weights else None  # the file and the entry in it
        if channels_last:
            self.net.to(memory_format=torch.channels_last)
        if compile:
            self.net.compile()  # in place: torch.compile(net) would rename every parameter

    @property
    def data(self) -> FlowData:
        """The datamodule that the trainer runs with."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, FlowData):
            raise UserError("The trainer has no FlowData.", "Call trainer.fit(model, datamodule=data)")
        return data

    def check_data(self, data: FlowData) -> None:
        """Refuses data that the network was not built for; called by the datamodule once it has loaded them.

        Raises:
            UserError: another number of classes, another shape, or a field of training data where there are none.
        """
        self.plan.check_data(data)
        check_network(self.net, data.shape, data.num_classes)

    def setup(self, stage: str) -> None:
        check_precision(self.trainer.precision)
        if stage == "fit":
            check_accumulation(self.trainer.callbacks)  # type: ignore[attr-defined]
        self.comparison = None

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.net.parameters())
        if self.scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"}}

    # Training

    def training_step(self, batch: TrainBatch, batch_idx: int) -> Tensor:
        draws = Draws(self.base_seed, batch, self.device)
        draws.seed_network()
        t, noise = draws.bridge(self.times)
        labels = batch.y
        if labels is not None and self.label_dropout:
            labels = drop_labels(labels, draws.labels(), self.label_dropout, cast(int, self.net.null_label))
        x0 = draws.couple(self.coupling, noise, self.trainer.world_size, self.global_rank, self.all_gather)
        loss = self.loss(x0, batch.x, t, labels).mean()
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # 0: never
        if every and (batch.step + 1) % every == 0:  # logging each step costs a millisecond
            self.log("train/loss", loss, batch_size=len(batch.x), sync_dist=True)
        return loss

    def loss(self, x0: Tensor, x1: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        """``[B]`` mean squared error of the velocity per sample, averaged over the sample's dimensions.

        Raises:
            UserError: the network returns another shape than its input's.
        """
        x_t, target = self.path(x0, x1, t)
        v = self.net(x_t, t, y)
        check_returned(self.net, v, x_t)
        return (v.float() - target).square().flatten(1).mean(1)

    def on_validation_start(self) -> None:
        self.rows = self.plan.validation

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[DATA] = self.data.facts
        if self.trainer.state.fn == "fit" and "loops" in checkpoint:  # not where weights alone are saved
            end_at_a_whole_step(checkpoint, self.trainer.accumulate_grad_batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.trainer.state.fn == "fit":
            check_average(checkpoint, getattr(self.trainer, "callbacks", []))

    # Validation, test and prediction

    def validation_step(
        self, batch: HeldOutBatch | SeedBatch, batch_idx: int, dataloader_idx: int = 0
    ) -> dict[str, Trajectory] | None:
        if isinstance(batch, SeedBatch):
            return self.sample(batch, self.rows)
        t, x0 = held_out_bridge(batch, self.base_seed, self.device, cast(torch.dtype, self.dtype))
        loss = self.loss(x0, batch.x, t, batch.y)[: batch.valid]
        self.val_loss.update(loss, torch.ones_like(loss))
        return None

    def on_validation_epoch_end(self) -> None:
        if not self.data.has_training_data:  # then none are held out
            return
        self.log("val/loss", self.val_loss.compute(), prog_bar=True)
        self.val_loss.reset()

    @property
    def model(self) -> Model:
        """The velocity field with all that sampling needs: the same in validation, comparison and prediction."""
        callbacks = self.trainer.callbacks  # type: ignore[attr-defined]
        return Model(
            self.net,
            self.data,
            self.base_seed,
            self.device,
            cast(torch.dtype, self.dtype),
            self.merge_rows,
            [callback for callback in callbacks if isinstance(callback, SamplingListener)],
        )

    def identity(self, probes: Probes) -> dict[str, Any]:
        """All that the samples of a comparison depend on, except row and seed."""
        return sampling_identity(self.model) | {
            "weights": weights_hash(self.net),
            "precision": str(self.trainer.precision),
        }

    def open_comparison(self, folder: str | Path, measures: Sequence[Measure], **options: Any) -> ComparisonLoop:
        """Opens the table in which a test keeps its samples; called on every process once the weights are loaded.

        Args:
            folder: the run's directory.
            measures: measures of the samples.
            **options: options of ``ComparisonLoop``.
        """
        self.comparison = ComparisonLoop(
            folder,
            self.model,
            self.plan.comparison(self.data, self.device),
            measures,
            self.identity,
            seeds=self.data.test_seeds,
            batch_size=self.data.eval_batch_size,
            judge=self.plan.judge,
            source=self.weights,
            further=model_families(folder, self._trained_steps(), self.net, self.data),
            **options,
        )
        self.comparison.open()
        return self.comparison

    def _trained_steps(self) -> int | None:
        """The training step of the weights under test; None for weights from elsewhere."""
        return None if self.weights else getattr(self.trainer, "tested_step", None) or self.trainer.global_step

    def on_test_start(self) -> None:
        if self.comparison is None:
            self.rows = self.plan.comparison(self.data, self.device)

    def test_step(self, batch: SeedBatch, batch_idx: int) -> dict[str, Trajectory]:
        if self.comparison is not None:
            self.rows = self.comparison.rows
            return self.comparison.sample(batch)
        return self.sample(batch, self.rows) if batch.valid else {}

    def on_test_end(self) -> None:
        self.comparison = None

    def on_predict_start(self) -> None:
        self.rows = self.plan.prediction

    def predict_step(self, batch: SeedBatch, batch_idx: int) -> dict[str, Trajectory]:
        return self.sample(batch, self.rows)

    def sample(self, batch: SeedBatch, rows: Mapping[str, Row]) -> dict[str, Trajectory]:
        """Samples a batch of seeds with the present weights: row name -> trajectory."""
        model = self.model
        model.announce([rows] if batch.valid else [], len(batch.seeds))
        return model.sample(rows, batch.seeds, batch.valid)
