"""Figures and page of a diagnosis, from its saved results alone."""

from fm_lightning.report.diagnosis.page import draw

__all__ = ["draw"]
