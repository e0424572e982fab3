"""What Lightning's loops count, corrected in a checkpoint so that the run that resumes from it repeats and skips nothing.

Lightning saves its counters as they stand when the checkpoint is written. Between two micro-batches of a step, before a
step that was announced but not taken, and in the middle of a validation they do not describe a place where training can go
on exactly.
"""

from __future__ import annotations

from typing import Any


def end_at_a_whole_step(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Forgets half-accumulated gradients, which are not saved: the step's micro-batches are repeated."""
    progress = _epoch(checkpoint)["epoch_loop.batch_progress"]
    half = progress["current"]["processed"] % accumulate
    for counts in (progress["current"], progress["total"]):
        counts["completed"] -= half


def end_before_the_announced_step(checkpoint: dict[str, Any]) -> None:
    """As ModelCheckpoint would have left it after the latest step, before the next one was begun."""
    loop = _epoch(checkpoint)
    progress = loop["epoch_loop.batch_progress"]
    for counts in (progress["total"], progress["current"]):
        done = counts["ready"] - 1
        counts |= {"ready": done, "started": done, "processed": done, "completed": done - 1}
    progress["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def begin_the_validation_again(checkpoint: dict[str, Any]) -> None:
    """The samples of its finished batches are lost with the process, so that none of them may be skipped."""
    for counts in _epoch(checkpoint)["epoch_loop.val_loop.batch_progress"].values():
        if isinstance(counts, dict):
            counts |= {"ready": 1, "started": 1, "processed": 0, "completed": 0}


def _epoch(checkpoint: dict[str, Any]) -> dict[str, Any]:
    return checkpoint["loops"]["fit_loop"]
