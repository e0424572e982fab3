"""Evaluates a velocity at times that the host knows: in few batches, with checked shapes, without waiting for the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from fm_lightning.errors import UserError
from fm_lightning.flow.velocity import DeclaredVelocity, GuidableVelocity, GuidedVelocity, Velocity, declared
from fm_lightning.guidance import Guidance

Question = tuple[Tensor, float, Guidance | None]  # state [B, ...], told time, guidance in place of the velocity's own


class Evaluator:
    """Gives velocities and their norms for states, told times and guidance.

    Args:
        velocity: a plain function or a declared velocity.
        labels: ``[B]`` int64, handed to the velocity.
        merge_rows: evaluate several states in one network batch of at most this many rows.
        evaluated: called before each call of the velocity.

    Attributes:
        singular_end: the field does not exist at ``t = 1``.
        guided: the velocity has guidance of its own.
        records: norms are those of the guided velocity, the conditional one, and conditional minus unconditional.
    """

    def __init__(
        self,
        velocity: Velocity,
        labels: Tensor | None,
        merge_rows: int = 0,
        evaluated: Callable[[], None] | None = None,
    ) -> None:
        self.name = type(velocity).__name__
        self.velocity, self.labels = declared(velocity), labels
        self.merge_rows, self.evaluated = merge_rows, evaluated
        self.singular_end = self.velocity.singular_end
        self._first = True
        self.guided = isinstance(self.velocity, GuidedVelocity)
        self.records = isinstance(self.velocity, GuidedVelocity) and self.velocity.record
        self._by_guidance: dict[Guidance, GuidedVelocity] = {}

    def check_start(self, x0: Tensor, seeds: Tensor | None) -> None:
        """Raises UserError unless x0 is a floating ``[B, ...]``, with B labels and seeds where there are any."""
        if not isinstance(x0, Tensor) or x0.ndim < 2 or not x0.is_floating_point():
            tensor = isinstance(x0, Tensor)
            what = f"one of shape {list(x0.shape)} and {x0.dtype}" if tensor else f"a {type(x0).__name__}"
            raise UserError(
                f"x0 must be a floating-point tensor [B, ...], not {what}.",
                "Draw it with noise(seeds, shape, base_seed).",
            )
        for name, given in (("labels", self.labels), ("seeds", seeds)):
            if given is not None and given.shape != x0.shape[:1]:
                raise UserError(
                    f"{len(x0)} samples do not go with {name} of shape {list(given.shape)}.", "Pass one per sample."
                )

    def under(self, guidance: Guidance | None) -> DeclaredVelocity:
        """The velocity under a schedule's guidance.

        Raises:
            UserError: the velocity has no null label.
        """
        if guidance is None:
            return self.velocity
        if guidance not in self._by_guidance:
            if not isinstance(self.velocity, GuidableVelocity):
                raise UserError(
                    f"{self.name} has no null label, which guidance needs.",
                    "Pass a network of fm_lightning.nets with null_class=True.",
                )
            self._by_guidance[guidance] = self.velocity.guided(guidance)
        return self._by_guidance[guidance]

    def evaluations(self, told: float, guidance: Guidance | None = None) -> int:
        """Network evaluations that one state costs at a told time."""
        return self.under(guidance).evaluations(told)

    def __call__(self, asked: Sequence[Question]) -> list[tuple[Tensor, Tensor]]:
        """Returns for each question the velocity, like the state, and norms ``[1, B]`` (``[3, B]`` with guidance recorded;
        the third is NaN where there is no unconditional velocity).

        Raises:
            UserError: the velocity returns another shape or wider numbers, or changes the state that it was given.
        """
        groups: dict[tuple[Callable[..., Any], bool], list[int]] = {}
        for i, (_, told, guidance) in enumerate(asked):
            groups.setdefault(self._function(told, guidance), []).append(i)
        answers: dict[int, tuple[Tensor, Tensor]] = {}
        for function, members in groups.items():
            first, told, guidance = asked[members[0]]
            together = max(1, self.merge_rows // max(1, len(first) * self.evaluations(told, guidance)))
            for begin in range(0, len(members), together):
                some = members[begin : begin + together]
                answers.update(zip(some, self._call(function, [asked[i] for i in some])))
        return [answers[i] for i in range(len(asked))]

    def _function(self, told: float, guidance: Guidance | None) -> tuple[Callable[..., Any], bool]:
        """What to call, and whether it returns the parts of the velocity."""
        velocity = self.under(guidance)
        if self.records if guidance is None else guidance.record:
            return cast(GuidedVelocity, velocity).parts_at(told), True
        return velocity.at(told), False

    def _call(
        self, function: tuple[Callable[..., Any], bool], group: Sequence[Question]
    ) -> Sequence[tuple[Tensor, Tensor]]:
        if self.evaluated is not None:
            self.evaluated()
        rows = len(group[0][0])
        if len(group) == 1:
            x, told, _ = group[0]
            # One number in memory, expanded: a network that notices embeds the time once, not once per row.
            t = x.new_full((1,), told).expand(rows)
            return [self._ask(function, x, t, self.labels)]
        x = torch.cat([x for x, _, _ in group])
        t = torch.cat([x.new_full((rows,), told) for _, told, _ in group])
        labels = None if self.labels is None else self.labels.repeat(len(group))
        v, norms = self._ask(function, x, t, labels)
        return list(zip(v.split(rows or 1), norms.split(rows or 1, dim=1)))

    def _ask(
        self, function: tuple[Callable[..., Any], bool], x: Tensor, t: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        # Tensors of inference mode count no changes: there the first state is compared with what it was.
        counts, first = not x.is_inference(), self._first
        before: Any = x._version if counts else x.clone() if first else None
        self._first = False
        answer = function[0](x, t, labels)
        if x._version != before if counts else first and not torch.allclose(x, before, 0, 0, equal_nan=True):
            raise UserError(
                f"The velocity {self.name} changes its input in place.", "Write for example x * 2 instead of x.mul_(2)."
            )
        return self._checked(answer if function[1] else (answer,), x)

    def _checked(self, answer: Sequence[Any], x: Tensor) -> tuple[Tensor, Tensor]:
        v, *parts = answer
        if not isinstance(v, Tensor) or v.shape != x.shape:
            got = f"a velocity of shape {list(v.shape)}" if isinstance(v, Tensor) else f"a {type(v).__name__}"
            raise UserError(
                f"The velocity {self.name} returns {got} for states of shape {list(x.shape)}.",
                "Return one tensor, with one number per number of x.",
            )
        if not v.is_floating_point() or torch.promote_types(v.dtype, x.dtype) != x.dtype:
            raise UserError(
                f"The velocity {self.name} returns {v.dtype} for states of {x.dtype}.",
                f"Convert it, or sample with x0.to({v.dtype})." if v.is_floating_point() else "Convert it.",
            )
        own = norm(v, x.dtype)
        if not parts:
            return v, own[None]
        conditional, null = parts
        if null is None:
            return v, torch.stack([own, own, torch.full_like(own, torch.nan)])
        return v, torch.stack([own, norm(conditional, x.dtype), norm(conditional - null, x.dtype)])


def norm(v: Tensor, state_dtype: torch.dtype) -> Tensor:
    """``[B]`` Euclidean norms over every dimension of the sample, at least float32, for any dtype of the network."""
    dtype = torch.promote_types(state_dtype, torch.float32)
    # Not flattened first: of a channels-last tensor that would be a copy.
    return torch.linalg.vector_norm(v, dim=tuple(range(1, v.ndim)), dtype=dtype)
