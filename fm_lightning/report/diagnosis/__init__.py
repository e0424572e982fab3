"""Figures and page of a diagnosis, from its saved results alone."""
