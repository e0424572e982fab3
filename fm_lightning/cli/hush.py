"""Silences messages of Lightning that do not concern this program's user, so that stderr holds errors alone."""

from __future__ import annotations

import logging
import warnings

_GREETINGS = (
    "Seed set to",
    "GPU available",
    "TPU available",
    "HPU available",
    "LOCAL_RANK:",
    "\U0001f4a1",  # tips
    "`Trainer(val_check_interval=1)` was configured",  # by a short trial
    "`Trainer.fit` stopped: `max_steps",
    "Restoring states from the checkpoint",  # one line of ours says at which step the run resumes
    "Restored all states from the checkpoint",
    "Loaded model weights from the checkpoint",
    "Found current_model_state in the checkpoint",
    "`weights_only` was not set",
    "Detected KeyboardInterrupt",  # another line says what became of it
    "Initializing distributed:",
    "distributed_backend=",  # with its rules
    "Received SIGTERM",
)
_WARNINGS = (
    "does not have many workers",
    "GPU available but not used",
    "litlogger",
    "args parameter is intended to run from within Python",  # diagnose hands its own on
    "isinstance.treespec",
    r'add the following callbacks: \["LastCheckpoint\{[^}]*\}"\]',  # it has nothing to restore
    "exists and is not empty",  # a run's directory is meant to hold its run
    "your dataloader is not resumable",  # it is: it asks for the step that it begins with
    "The dirpath has changed from",  # only what is best by a monitored number is not taken over
    "Couldn't infer the batch indices",  # samples go by their seeds
    r"sync_dist=True\)` when logging on epoch level",  # metrics are computed over all processes before they are logged
    r"number of training batches \(\d+\) is smaller than the logging interval",
)


def hush() -> None:
    """Silences these messages, each by its words."""
    for words in _WARNINGS:
        warnings.filterwarnings("ignore", message=f".*{words}")
    # A logger's filter sees its own records only; the handler's sees those of all loggers below.
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_says_something)


def _says_something(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return bool(message.strip("-\n ")) and not any(greeting in message for greeting in _GREETINGS)
