"""Copying, measured in more ways than one: each with its interval, and with the floor of held-out real samples.

The ratio d1 / d2 of the paper, its thresholds and its versions that near-duplicates do not fool are ``MemorizationRate``.
"""

from fm_lightning.diagnosis.copy_metrics.authenticity import AuthPct
from fm_lightning.diagnosis.copy_metrics.calibrated import CalibratedDistance
from fm_lightning.diagnosis.copy_metrics.data_copying import DataCopying
from fm_lightning.diagnosis.copy_metrics.descriptor import DescriptorCosine
from fm_lightning.diagnosis.copy_metrics.measure import CopyMeasure

# What a diagnosis measures, in the order of its page.
COPY_MEASURES: tuple[type[CopyMeasure], ...] = (CalibratedDistance, AuthPct, DataCopying, DescriptorCosine)

__all__ = ["COPY_MEASURES", "AuthPct", "CalibratedDistance", "CopyMeasure", "DataCopying", "DescriptorCosine"]
