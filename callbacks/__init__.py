"""Lightning callbacks: each a thin adaptor from Trajectory to a metric. Import them from ``fm_lightning.callbacks``."""

from fm_lightning.callbacks.divergence import DivergenceWatch
from fm_lightning.callbacks.ema import EMA
from fm_lightning.callbacks.fid_monitor import FIDMonitor
from fm_lightning.callbacks.kept_weights import CheckpointSeries, PowerAverages
from fm_lightning.callbacks.kpe_distribution import KPEDistribution
from fm_lightning.callbacks.log_spaced_validation import LogSpacedValidation
from fm_lightning.callbacks.loss_over_time import LossOverTime
from fm_lightning.callbacks.memorization_monitor import MemorizationMonitor
from fm_lightning.callbacks.progress import Progress
from fm_lightning.callbacks.sample_grid import SampleGrid
from fm_lightning.callbacks.sample_writer import SampleWriter
from fm_lightning.callbacks.schedule_table import ScheduleTable
from fm_lightning.callbacks.semantics_monitor import SemanticsMonitor
from fm_lightning.callbacks.support_monitor import SupportMonitor
from fm_lightning.callbacks.training_threads import TrainingThreads

__all__ = [
    "EMA",
    "CheckpointSeries",
    "DivergenceWatch",
    "FIDMonitor",
    "KPEDistribution",
    "LogSpacedValidation",
    "LossOverTime",
    "MemorizationMonitor",
    "PowerAverages",
    "Progress",
    "SampleGrid",
    "SampleWriter",
    "ScheduleTable",
    "SemanticsMonitor",
    "SupportMonitor",
    "TrainingThreads",
]
