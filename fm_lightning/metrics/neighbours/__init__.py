"""Exact nearest neighbours and kernel sums in bounded memory."""

from fm_lightning.metrics.neighbours.distinct import Groups, find_groups, nearest_distinct
from fm_lightning.metrics.neighbours.reference import Reference
from fm_lightning.metrics.neighbours.search import nearest
from fm_lightning.metrics.neighbours.sharded import ShardedReference

__all__ = ["Groups", "Reference", "ShardedReference", "find_groups", "nearest", "nearest_distinct"]
