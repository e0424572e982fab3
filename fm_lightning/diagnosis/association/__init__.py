"""How measurements of the same samples go together: each number with its interval, or the reason why there is none."""

from fm_lightning.diagnosis.association.correlation import partial_spearman, spearman
from fm_lightning.diagnosis.association.groups import effect_size, group_means, mean_difference, quantile_groups, trend
from fm_lightning.diagnosis.association.monotone import ShareCurve, non_monotonicity, share_curve
from fm_lightning.diagnosis.association.roc import auroc, auroc_difference
from fm_lightning.diagnosis.association.statistic import Statistic

__all__ = [
    "ShareCurve",
    "Statistic",
    "auroc",
    "auroc_difference",
    "effect_size",
    "group_means",
    "mean_difference",
    "non_monotonicity",
    "partial_spearman",
    "quantile_groups",
    "share_curve",
    "spearman",
    "trend",
]
