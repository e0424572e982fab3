"""Ctrl-C and SIGTERM: the current step is finished, a checkpoint is saved, one line says how to resume.

Stopping in the middle of an optimizer step would leave half of the weights updated. The signal is therefore only recorded,
and the command stops where the state is consistent: before the next step, or in a validation, which changes no weights. A second
signal, at least a second later, stops at once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from fm_lightning.training.loop_state import end_before_the_announced_step, restart_validation

# Processes agree on the step to stop before. That costs a message between them, so they do not do it at every step.
_AGREE_EVERY = 10
# A wrapper (timeout, srun) repeats the signal of the terminal: signals within this many seconds count as one.
_ONE_SIGNAL = 1.0


class Interruption(Callback):
    """Stops training where it can be resumed exactly, and saves a checkpoint there.

    Attributes:
        last: path of the checkpoint, from which the same command resumes.
        leave_out: options of the command that would keep the same command from resuming.
        signal: the first signal received, if any.
        message: for the user, about how the command ended.
    """

    last: Path
    leave_out: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.signal: int | None = None
        self.message = "Interrupted. Run the same command to resume"
        self._training = False  # a signal then waits until the state is consistent
        self._place: str | None = None  # "step" or "validation": where the state is consistent
        self._saving = False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Receives the signals until the end of the block."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A background job ignores Ctrl-C, and keeps ignoring it.
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) != signal.SIG_IGN]
        before = {n: signal.signal(n, self._receive) for n in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._saving:
            return
        now = time.monotonic()
        first, self.signal = self.signal is None, self.signal or number
        if first:
            self._since = now
        elif now - self._since < _ONE_SIGNAL:
            return
        if not (first and self._training) or self._place:
            raise KeyboardInterrupt

    def _take_over_sigterm(self) -> None:
        # Lightning's handler for SIGTERM sends messages to other processes in the middle of their communication.
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) != signal.SIG_IGN:
            signal.signal(signal.SIGTERM, self._receive)

    # Where training stops

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_over_sigterm()
        self._training, self._began = True, trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # Never before the first step of an epoch: Lightning cannot resume an epoch without a step.
        accumulate = trainer.accumulate_grad_batches
        if batch_idx >= accumulate and batch_idx % accumulate == 0:
            alone = trainer.world_size == 1
            if (alone or trainer.global_step % _AGREE_EVERY == 0) and self._agreed(trainer):
                self._stop("step")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not 0 < trainer.max_steps <= trainer.global_step and self._agreed(trainer):
            self._stop("epoch")

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self._whole(trainer):
            if self._agreed(trainer):
                self._stop("validation")
            if trainer.world_size == 1:
                self._place = "validation"  # a batch may take long, and no other process waits

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._place = None

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "test" and self.signal is not None:  # received during the last step of ``run``'s training
            raise KeyboardInterrupt

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._take_over_sigterm()

    on_predict_start = on_validation_start = on_test_start

    def _whole(self, trainer: Trainer) -> bool:
        """Whether a validation lies between two steps, not between two micro-batches of one step."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        return self._training and done % trainer.accumulate_grad_batches == 0

    def _agreed(self, trainer: Trainer) -> bool:
        stop = trainer.strategy.reduce_boolean_decision(self.signal is not None, all=False)
        if stop and self.signal is None:
            self.signal = signal.SIGTERM
        return stop

    def _stop(self, place: str) -> None:
        self._place = place
        raise KeyboardInterrupt

    # Checkpoint and message

    @property
    def but(self) -> str:
        """Options to leave out of the same command."""
        return f" (without {' and '.join(self.leave_out)})" if self.leave_out else ""

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt) or self.signal is None:
            return
        but = self.but
        if trainer.state.fn == "test":
            self.message = (
                f"Interrupted while comparing schedules; finished samples are kept. Run the same command{but} to resume"
            )
        elif trainer.state.fn == "predict":
            self.message = "Interrupted while sampling. Run the same command with --again to repeat it"
        elif trainer.state.fn == "fit" and not self._training:
            self.message = f"Interrupted before training. Run the same command{but} to start"
        elif trainer.state.fn == "fit":
            resume = f"Run the same command{but} to resume"
            self.message = f"Stopped at once. {resume} from the latest checkpoint"
            if self._place and trainer.checkpoint_callbacks:
                if trainer.global_step > self._began:
                    self._save(trainer)
                self.message = f"Interrupted at step {trainer.global_step:,}. {resume} from there"

    def _save(self, trainer: Trainer) -> None:
        self._saving = True
        for callback in trainer.checkpoint_callbacks:
            # Otherwise it would take the file for another run's and write last-v1.ckpt afterwards.
            if isinstance(callback, ModelCheckpoint) and callback.dirpath == os.path.realpath(self.last.parent):
                callback.last_model_path = os.path.realpath(self.last)
        trainer.save_checkpoint(self.last)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if not self._saving:
            return
        if self._place == "step":
            end_before_the_announced_step(checkpoint)
        if self._place == "validation":
            restart_validation(checkpoint)
