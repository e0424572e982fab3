"""What training needs besides the module: trainer, optimizer recipes, tracking."""

from fm_lightning.training.optim import Warmup
from fm_lightning.training.tracking import AppendingCSVLogger
from fm_lightning.training.trainer import FlowTrainer

__all__ = ["AppendingCSVLogger", "FlowTrainer", "Warmup"]
