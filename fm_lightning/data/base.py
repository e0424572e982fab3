"""FlowData: samples as a LightningDataModule, with loaders of data and of seeds."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor

from fm_lightning.data.batches import (
    HeldOutBatch,
    HeldOutBatches,
    SeedBatch,
    SeedBatches,
    Share,
    TrainBatch,
    TrainingBatches,
)
from fm_lightning.data.samples import PREDICT_SEED, TEST_SEED, VAL_SEED, Samples, say
from fm_lightning.errors import UserError


class FlowData(Samples, LightningDataModule):
    """Data for training, and seeds for sampling. What a subclass provides: see ``Samples``.

    Args:
        batch_size: samples per optimizer step, over all devices and accumulated batches.
        eval_batch_size: seeds, or held-out samples, per device and batch.
        val_seeds: samples drawn per schedule at each validation.
        test_seeds: samples drawn per schedule in the comparison; other seeds than validation's.
        predict_seeds: samples written by ``predict``.
        label_shares: frequency of each class among the samples: "training" (as in the training data), "uniform", or one
            number per class. The class of a seed depends on the shares and on the base seed alone.
        base_seed: the run's seed; orders, noise and labels of samples derive from it.

    Raises:
        UserError: at ``setup``: splits that cannot be trained on or compared with, see ``checked_splits``.
    """

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int = 500,
        val_seeds: int = 500,
        test_seeds: int = 2000,
        predict_seeds: int = 100,
        label_shares: Literal["training", "uniform"] | list[float] = "training",
        base_seed: int = 0,
    ) -> None:
        LightningDataModule.__init__(self)
        Samples.__init__(self, label_shares, base_seed)
        given = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "test_seeds": test_seeds}
        given |= {"val_seeds": val_seeds, "predict_seeds": predict_seeds}
        for name, value in given.items():
            if value < 1:
                raise UserError(f"{name}={value} must be at least 1.", f"Set for example {name}=100")
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.val_seeds, self.test_seeds, self.predict_seeds = val_seeds, test_seeds, predict_seeds

    def augment(self, x: Tensor, batch: TrainBatch) -> Tensor:
        """Random changes to a training batch, drawn from (base seed, step, position); none by default."""
        return x

    # Lightning's hooks, in the order in which they run.

    def setup(self, stage: str | None = None) -> None:
        self.prepare()
        check = getattr(getattr(self.trainer, "lightning_module", None), "check_data", None)
        if check is not None:  # before anything costly is made of them
            check(self)

    def train_dataloader(self) -> TrainingBatches:
        trainer = self._trainer()
        n, accumulate = len(self.train_split), trainer.accumulate_grad_batches
        # An epoch is the whole training where its length is known: tiny training sets would have thousands.
        steps = trainer.max_steps if trainer.max_steps > 0 else max(1, n // self.batch_size)

        def first_step() -> int:
            if trainer.accumulate_grad_batches != accumulate:  # steps would not end where batches do
                raise UserError(
                    f"accumulate_grad_batches changed from {accumulate} to {trainer.accumulate_grad_batches} in training.",
                    "Set it once: Trainer(accumulate_grad_batches=...)",
                )
            return trainer.global_step

        return TrainingBatches(
            fetch=self.train_split.fetch,
            n=n,
            total=self.batch_size,
            accumulate=accumulate,
            share=self._share(),
            base_seed=self.base_seed,
            first_step=first_step,
            steps=steps,
        )

    def val_dataloader(self) -> list[Any]:
        held_out = HeldOutBatches(
            self.held_out_split.fetch, len(self.held_out_split), self.eval_batch_size, self._share()
        )
        return [held_out, self._seeds(VAL_SEED, self.val_seeds)]

    def test_dataloader(self) -> SeedBatches:
        """The seeds of the comparison; those on which doses are chosen come from the comparison itself."""
        return self._seeds(TEST_SEED, self.test_seeds)

    def predict_dataloader(self) -> SeedBatches:
        return self._seeds(PREDICT_SEED, self.predict_seeds)

    def _seeds(self, first: int, n: int) -> SeedBatches:
        # Few seeds make a small batch: padding is sampled like any other row.
        if n < 10 * self.num_classes:
            drawn = self.labels_of(torch.arange(first, first + n))
            assert drawn is not None
            assert self.label_shares is not None
            missing = int((self.label_shares > 0).sum()) - len(drawn.unique())
            if missing:
                say(f"{missing:,} of {self.num_classes:,} classes get none of the {n:,} seeds; use more seeds")
        return SeedBatches(first, n, min(n, self.eval_batch_size), self._share())

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, SeedBatch):
            return batch  # noise is drawn on the host, which would have to ask the device for the seeds
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if isinstance(batch, TrainBatch):
            return batch._replace(x=self.augment(self.encode(batch.x), batch))
        if isinstance(batch, HeldOutBatch):
            return batch._replace(x=self.encode(batch.x))
        return batch

    def _trainer(self) -> Any:
        if self.trainer is None:
            raise UserError("The datamodule has no trainer.", "Call trainer.fit(model, datamodule=data)")
        return self.trainer

    def _share(self) -> Share:
        ranks = self._trainer().distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        return Share(ranks["rank"], ranks["num_replicas"])
