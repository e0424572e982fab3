"""Counters of Lightning's loops, corrected in a checkpoint so that a run that resumes from it repeats and skips nothing.

Lightning saves its counters as they stand when the checkpoint is written. Between two micro-batches of a step, before a
step that was announced but not taken, and in the middle of a validation, training could not resume exactly from them.
"""

from __future__ import annotations

from typing import Any


def end_at_a_whole_step(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Forgets the micro-batches of an unfinished step, whose gradients are not saved: they are repeated."""
    progress = _epoch(checkpoint)["epoch_loop.batch_progress"]
    half = progress["current"]["processed"] % accumulate
    for counts in (progress["current"], progress["total"]):
        counts["completed"] -= half


def end_before_the_announced_step(checkpoint: dict[str, Any]) -> None:
    """Sets the counters to what ModelCheckpoint would have saved after the latest step, before the next one began."""
    loop = _epoch(checkpoint)
    progress = loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        done = counts["ready"] - 1
        counts |= {"ready": done, "started": done, "processed": done, "completed": done - 1}
    progress["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def restart_validation(checkpoint: dict[str, Any]) -> None:
    """Repeats all batches of a validation, since the samples of the finished ones are lost with the process."""
    for counts in _epoch(checkpoint)["epoch_loop.val_loop.batch_progress"].values():
        if isinstance(counts, dict):
            counts |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}


def validate_before_the_next_step(checkpoint: dict[str, Any]) -> None:
    """Has a resumed run begin with the validation that follows the latest step, which Lightning would take for done."""
    restart_validation(checkpoint)
    loop = _epoch(checkpoint)
    total = loop["epoch_loop.batch_progress"]["total"]
    # Saved in the hooks of the step: Lightning counts it when it resumes and, since the validation is part of it, once more.
    if total["completed"] < total["processed"]:
        loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def _epoch(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return checkpoint["loops"]["fit_loop"]
