"""SamplingPlan: the rows that a model samples in validation, in its comparison and in prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from fm_lightning.comparison.fields import Field
from fm_lightning.comparison.rows import (
    BASE,
    Row,
    check_fields,
    check_judged,
    check_schedules,
    floor_rows,
    guided_rows,
    judged_rows,
    schedule_rows,
)
from fm_lightning.data.samples import Samples
from fm_lightning.errors import UserError
from fm_lightning.flow import Schedule
from fm_lightning.flow.trained import where_trained
from fm_lightning.flow.velocity import Velocity, guidable
from fm_lightning.guidance import Guidance


class SamplingPlan:
    """Which rows to sample, and when.

    Args:
        velocity: what is sampled; where it says when it was trained, schedules begin there.
        validation: sampled at each validation; plain sampling by default.
        test: the schedules to compare; those of validation by default.
        judge: names among ``test`` that get a verdict; None means every schedule with a gain.
        fields: other velocity fields, sampled like base.
        floors: whether held-out and training images are rows too.
        guidance: of the schedules that have none of their own.

    Attributes:
        validation, test: the rows of the schedules, base first.
        prediction: base alone.
        judge: the names to judge.

    Raises:
        UserError: a name that cannot stand in a table, or a judged one that is no schedule to compare; a schedule that begins
            before the velocity was trained, or has guidance where the velocity has no null label.
    """

    def __init__(
        self,
        velocity: Velocity,
        validation: Mapping[str, Schedule] | None,
        test: Mapping[str, Schedule] | None,
        judge: Sequence[str] | None,
        fields: Mapping[str, Field] | None,
        floors: bool,
        guidance: Guidance | None = None,
    ) -> None:
        guidance = guidance or Guidance()
        for schedules in (validation, test):
            check_schedules(schedules or {})
        begun = where_trained(validation or {BASE: Schedule()}, velocity)
        self.validation = guided_rows(schedule_rows(begun), guidance)
        self.test = guided_rows(schedule_rows(where_trained(test, velocity) if test else begun), guidance)
        self.prediction = {BASE: self.test[BASE]}
        shaped = [name for name, row in self.test.items() if row.schedule.gain is not None]
        check_judged(self.test, shaped if judge is None else judge)
        self.judge = shaped if judge is None else list(judge)
        self._fields, self._floors = dict(fields or {}), floors
        check_fields(self.test, self._fields)
        self._check_guidance(velocity)

    def _check_guidance(self, velocity: Velocity) -> None:
        """Raises UserError where a schedule has guidance and the velocity no null label."""
        rows = {**self.validation, **self.test}
        for name, row in sorted(rows.items(), key=lambda item: item[0] == BASE):  # what the user has named comes first
            if row.schedule.guidance is not None and not guidable(velocity):
                raise UserError(
                    f"The schedule {name} has {row.schedule.guidance}, and {type(velocity).__name__} has no null label.",
                    "Remove the guidance, or use a network trained with null_class=True.",
                )

    def check_data(self, data: Samples) -> None:
        """Raises UserError if a field needs training data that do not exist, or verdicts would compare with copies of them."""
        if self.judge:
            data.check_reference()
        for name, field in self._fields.items():
            field.check_data(data, name)

    def comparison(self, data: Samples, device: torch.device) -> dict[str, Row]:
        """The rows of a comparison but for those that verdicts choose; every process asks, once the weights are in place."""
        base = self.test[BASE]
        fields = {name: field.row(data, device, base) for name, field in self._fields.items()}
        floors = floor_rows(data, base.schedule) if self._floors and data.has_training_data else {}
        return {**judged_rows(self.test, self.judge), **fields, **floors}
