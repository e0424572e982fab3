"""The protocol that all data speak, and the loaders that follow from it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fm_lightning.data.batches import (
    HeldOutBatch,
    HeldOutBatches,
    Planned,
    Planner,
    SeedBatch,
    SeedBatches,
    Share,
    TrainBatch,
    TrainingBatches,
)
from fm_lightning.data.checks import checked_splits
from fm_lightning.data.labels import class_shares, seed_labels
from fm_lightning.data.order import in_random_order, stratified_order
from fm_lightning.data.split import Encoded, Split, content_hash
from fm_lightning.errors import OldError

# Seeds never overlap between purposes: schedules are chosen on validation seeds and judged on test seeds.
VAL_SEED, TEST_SEED, CALIBRATION_SEED, PREDICT_SEED = 0, 10_000_000, 20_000_000, 30_000_000


class FlowData(LightningDataModule, ABC):
    """Data for training, and seeds for sampling.

    A subclass sets ``shape`` and ``num_classes`` and fills ``train_split`` (exactly what the model sees),
    ``held_out_split`` (validation loss; the floor of real images) and ``real_split`` (what samples are compared with)
    in ``load()``. Splits hold samples as stored; ``encode`` brings them into the model's space, ``decode`` back into the
    visible one (images: [-1, 1]), ``to_uint8`` to pixels, where there are any. Labels are 0 to ``num_classes - 1``.

    Args:
        batch_size: samples per optimizer step, over all devices and accumulated batches.
        eval_batch_size: seeds, or held-out samples, per device and batch.
        val_seeds: samples drawn per schedule at each validation.
        test_seeds: samples drawn per schedule in the comparison; other seeds than validation's.
        predict_seeds: samples written by ``predict``.
        label_shares: how often each class is sampled: "training": as often as it is trained on; "uniform"; or one number a
            class. Which class a seed is given depends on it and on the base seed alone.
        base_seed: the run's seed; orders, noise and labels of samples derive from it.

    Raises:
        UserError: at ``setup``: splits that cannot be trained on or compared with, see ``checked_splits``.
    """

    shape: tuple[int, ...]
    num_classes: int = 0
    space: str = "[-1, 1]"
    flip: bool = False  # whether training sees mirror images, too
    skipped: int = 0  # samples left out because they could not be read
    has_training_data: bool = True  # otherwise there are seeds alone: nothing to train on, no copies to be told
    class_names: Sequence[str] = ()  # in the order of the labels, where the source names them
    decoder: str = ""  # names what `decode` depends on, where that may change while the samples stay
    train_split: Split
    held_out_split: Split
    real_split: Split

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
        super().__init__()
        given = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "test_seeds": test_seeds}
        given |= {"val_seeds": val_seeds, "predict_seeds": predict_seeds}
        for name, value in given.items():
            if value < 1:
                raise OldError(f"{name}={value} given", "at least 1", f"type --data.init_args.{name} 100")
        self.batch_size, self.eval_batch_size, self.base_seed = batch_size, eval_batch_size, base_seed
        self.val_seeds, self.test_seeds, self.predict_seeds = val_seeds, test_seeds, predict_seeds
        self._asked_shares = label_shares
        self._loaded = False

    @abstractmethod
    def load(self) -> None:
        """Fills the three splits."""

    def encode(self, x: Tensor) -> Tensor:
        """Samples as stored -> the model's space, float32. By default only floating-point numbers are converted."""
        return x.float() if x.is_floating_point() else x

    def decode(self, x: Tensor) -> Tensor:
        """The model's space -> the visible one."""
        return x

    def to_uint8(self, x: Tensor) -> Tensor:
        """The model's space -> ``[B, C, H, W]`` uint8, rounded to nearest and clamped.

        Raises:
            TypeError: data without pixels.
        """
        raise TypeError(f"{type(self).__name__} has no pixels")

    @property
    def has_pixels(self) -> bool:
        """Whether samples can be shown as images: whether the data say how (``to_uint8``), whatever their shape."""
        return type(self).to_uint8 is not FlowData.to_uint8

    def augment(self, x: Tensor, batch: TrainBatch) -> Tensor:
        """Random changes of a training batch, drawn from (base seed, step, position). None by default."""
        return x

    def reference(self, index: Tensor | None = None) -> Tensor:
        """``[n, *shape]`` the training subset in the model's space: what memorization is measured against.

        Args:
            index: ``[n]`` only these of it.
        """
        return self.encode(self.train_split.x if index is None else self.train_split.x[index])

    def memorization_reference(self) -> tuple[Any, Tensor | None]:
        """What samples may be copies of: rows as stored ``[n, ...]``, and ``[n]`` int64 the row of which each is another view.

        Views of one sample count as one, and have its number in ``reference``. None: each row is a sample of its own.
        """
        return self.train_split.x, None

    def real(self) -> Tensor:
        """``[n, *shape]`` real samples that the generated ones are compared with."""
        return self.encode(self.real_split.x)

    def held_out(self) -> Tensor:
        """``[n, *shape]`` real samples that are neither trained on nor compared with."""
        return self.encode(self.held_out_split.x)

    def encoded(self, split: Split) -> Encoded:
        """A split in the model's space, without holding all of it there."""
        return Encoded(split.x, self.encode)

    def floor(self, split: Split) -> Encoded:
        """A split whose first samples stand for all of it, also where it is sorted by class."""
        if split.y is None or in_random_order(split.y.numpy()):
            return self.encoded(split)
        return Encoded(split.x, self.encode, torch.from_numpy(stratified_order(split.y.numpy(), len(split))))

    @cached_property
    def label_shares(self) -> Tensor | None:
        """``[K]`` float64, the share of samples of each class; None without classes."""
        return class_shares(self._asked_shares, self.num_classes, self.train_split.y)

    def labels_of(self, seeds: Tensor) -> Tensor | None:
        """``[B]`` int64 labels that belong to the seeds, or None for data without classes."""
        return seed_labels(seeds, self.label_shares, self.base_seed)

    @cached_property
    def fingerprint(self) -> str:
        """Names what training sees: samples, labels, mirroring, and the way into the model's space."""
        return f"{self._hash(self.train_split)}{'-flip' if self.flip else ''}"

    @cached_property
    def comparison_fingerprint(self) -> str:
        """Names what samples are compared with: real and held-out samples, and the way into the model's space."""
        return f"{self._hash(self.real_split)}-{self._hash(self.held_out_split)}"

    def _hash(self, split: Split) -> str:
        # Some samples, encoded, stand for whatever `encode` depends on.
        return content_hash(split.x, split.y, self.encode(split.x[:32]))

    # Lightning's hooks, in the order in which they run.

    def setup(self, stage: str | None = None) -> None:
        if not self._loaded:
            self.load()
            self._check()
            self._loaded = True
        check = getattr(getattr(self.trainer, "lightning_module", None), "check_data", None)
        if check is not None:  # before anything costly is made of them
            check(self)

    def train_dataloader(self) -> TrainingBatches:
        trainer = self._trainer()
        n, accumulate = len(self.train_split), trainer.accumulate_grad_batches
        # An epoch is the whole training where its length is known: tiny training sets would have thousands.
        steps = trainer.max_steps if trainer.max_steps > 0 else max(1, n // self.batch_size)
        return TrainingBatches(
            fetch=self.train_split.fetch,
            n=n,
            total=self.batch_size,
            accumulate=accumulate,
            share=self._share(),
            base_seed=self.base_seed,
            first_step=lambda: trainer.global_step,
            steps=steps,
        )

    def val_dataloader(self) -> list[Any]:
        held_out = HeldOutBatches(
            self.held_out_split.fetch, len(self.held_out_split), self.eval_batch_size, self._share()
        )
        return [held_out, self._seeds(VAL_SEED, self.val_seeds)]

    def test_dataloader(self) -> SeedBatches | Planned:
        trainer = self._trainer()
        planner = next((callback for callback in trainer.callbacks if isinstance(callback, Planner)), None)
        return Planned(planner, trainer, self) if planner else self._seeds(TEST_SEED, self.test_seeds)

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
                _say(f"{n:,} seeds reach all classes but {missing:,} of {self.num_classes:,}; more seeds reach more")
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

    def _check(self) -> None:
        splits = {name: getattr(self, name, None) for name in ("train_split", "held_out_split", "real_split")}
        shape = getattr(self, "shape", None)
        found = checked_splits(splits, shape=shape, num_classes=self.num_classes, encode=self.encode)
        self.train_split, self.held_out_split, self.real_split = found.values()
        _ = self.label_shares  # refused now, not at the first sample

    def _trainer(self) -> Any:
        if self.trainer is None:
            raise OldError("the datamodule has no trainer", "one that runs", "call trainer.fit(model, datamodule=data)")
        return self.trainer

    def _share(self) -> Share:
        ranks = self._trainer().distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        return Share(ranks["rank"], ranks["num_replicas"])


def unit_pixels(x: Tensor) -> Tensor:
    """uint8 pixels -> float32 in [-1, 1]."""
    return x.to(torch.float32).div_(127.5).sub_(1)


def pixels(x: Tensor) -> Tensor:
    """[-1, 1] -> uint8 pixels, rounded to nearest and clamped."""
    return ((x + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)
