"""Exact nearest neighbours and kernel sums in bounded memory."""
