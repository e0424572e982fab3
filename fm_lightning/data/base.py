"""The protocol that all data speak, and the loaders that follow from it."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from lightning import LightningDataModule
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
from fm_lightning.errors import UserError

# Seeds never overlap between purposes: schedules are chosen on validation seeds and judged on test seeds.
VAL_SEED, TEST_SEED, CALIBRATION_SEED, PREDICT_SEED = 0, 10_000_000, 20_000_000, 30_000_000


def seed_labels(seeds: Tensor, num_classes: int) -> Tensor | None:
    """``[B]`` labels that belong to the seeds (classes take turns), or None for data without classes."""
    return seeds % num_classes if num_classes else None


@dataclass(frozen=True)
class Split:
    """Samples as stored, with their labels."""

    x: Tensor  # [n, ...]
    y: Tensor | None = None  # [n] int64

    def __len__(self) -> int:
        return len(self.x)

    def fetch(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.x[index], None if self.y is None else self.y[index]


@dataclass(frozen=True)
class Encoded:
    """Stored samples in the model's space, encoded as they are read: 50 000 CIFAR images are 150 MB so, not 600."""

    stored: Tensor  # [n, ...]
    encode: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.encode(self.stored[index])

    @property
    def device(self) -> torch.device:
        return self.stored.device

    def split(self, size: int) -> Iterator[Tensor]:
        """The samples in blocks of ``size``, like ``Tensor.split``."""
        return (self[start : start + size] for start in range(0, len(self), size))


class FlowData(LightningDataModule, ABC):
    """Data for training, and seeds for sampling.

    A subclass sets ``shape`` and ``num_classes`` and fills ``train_split`` (exactly what the model sees),
    ``held_out_split`` (validation loss; the floor of real images) and ``real_split`` (what samples are compared with)
    in ``load()``. Splits hold samples as stored; ``encode`` brings them into the model's space, ``decode`` back into the
    visible one (images: [-1, 1]), ``to_uint8`` to pixels.

    Args:
        batch_size: samples per optimizer step, over all devices and accumulated batches.
        eval_batch_size: seeds, or held-out samples, per device and batch.
        val_seeds: samples drawn per schedule at each validation.
        test_seeds: samples drawn per schedule in the comparison; other seeds than validation's.
        predict_seeds: samples written by ``predict``.
        base_seed: the run's seed; orders and noise derive from it.
    """

    shape: tuple[int, ...]
    num_classes: int = 0
    space: str = "[-1, 1]"
    has_pixels: bool = False  # whether `to_uint8` shows samples as images
    flip: bool = False  # whether training sees mirror images, too
    skipped: int = 0  # samples left out because they could not be read
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
        base_seed: int = 0,
    ) -> None:
        super().__init__()
        given = {"batch_size": batch_size, "eval_batch_size": eval_batch_size, "test_seeds": test_seeds}
        given |= {"val_seeds": val_seeds, "predict_seeds": predict_seeds}
        for name, value in given.items():
            if value < 1:
                raise UserError(f"{name}={value} given, expected at least 1; type --data.init_args.{name} 100")
        self.batch_size, self.eval_batch_size, self.base_seed = batch_size, eval_batch_size, base_seed
        self.val_seeds, self.test_seeds, self.predict_seeds = val_seeds, test_seeds, predict_seeds
        self._loaded = False

    @abstractmethod
    def load(self) -> None:
        """Fills the three splits."""

    def encode(self, x: Tensor) -> Tensor:
        """Samples as stored -> the model's space."""
        return x

    def decode(self, x: Tensor) -> Tensor:
        """The model's space -> the visible one."""
        return x

    def to_uint8(self, x: Tensor) -> Tensor:
        """The model's space -> ``[B, C, H, W]`` uint8, rounded to nearest and clamped.

        Raises:
            TypeError: data that are no images.
        """
        raise TypeError(f"{type(self).__name__} holds points, not images")

    def augment(self, x: Tensor, batch: TrainBatch) -> Tensor:
        """Random changes of a training batch, drawn from (base seed, step, position). None by default."""
        return x

    def reference(self, index: Tensor | None = None) -> Tensor:
        """``[n, *shape]`` the training subset in the model's space: what memorization is measured against.

        Args:
            index: ``[n]`` only these of it.
        """
        return self.encode(self.train_split.x if index is None else self.train_split.x[index])

    def real(self) -> Tensor:
        """``[n, *shape]`` real samples that the generated ones are compared with."""
        return self.encode(self.real_split.x)

    def held_out(self) -> Tensor:
        """``[n, *shape]`` real samples that are neither trained on nor compared with."""
        return self.encode(self.held_out_split.x)

    def encoded(self, split: Split) -> Encoded:
        """A split in the model's space, without holding all of it there."""
        return Encoded(split.x, self.encode)

    # Lightning's hooks, in the order in which they run.

    def setup(self, stage: str | None = None) -> None:
        if not self._loaded:
            self.load()
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
            raise UserError(
                "the datamodule has no trainer, expected one that runs; call trainer.fit(model, datamodule=data)"
            )
        return self.trainer

    def _share(self) -> Share:
        ranks = self._trainer().distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
        return Share(ranks["rank"], ranks["num_replicas"])


def content_hash(x: Tensor) -> str:
    """Names samples by their bytes."""
    return hashlib.sha256(x.contiguous().numpy().data).hexdigest()[:16]


def unit_pixels(x: Tensor) -> Tensor:
    """uint8 pixels -> float32 in [-1, 1]."""
    return x.to(torch.float32).div_(127.5).sub_(1)


def pixels(x: Tensor) -> Tensor:
    """[-1, 1] -> uint8 pixels, rounded to nearest and clamped."""
    return ((x + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)
