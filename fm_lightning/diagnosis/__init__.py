"""What the energy says of a model: density, semantics and copying, out of a finished comparison."""

from fm_lightning.diagnosis.answer import Answer
from fm_lightning.diagnosis.diagnose import diagnose
from fm_lightning.diagnosis.subject import Subject, read_subject

__all__ = ["Answer", "Subject", "diagnose", "read_subject"]
