"""Paired tests between methods over subjects, corrected for the number of tests in a table.

Tests are paired because subjects differ from one another by more than methods do.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control, wilcoxon


def paired_wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of the Wilcoxon signed-rank test that differences, one per subject, are symmetric about 0.

    Wilcoxon, Biometrics Bull 1:80, 1945; scipy.stats.wilcoxon, which leaves out zeros and is exact for few subjects. 1
    if all differences are 0. Fewer than six subjects cannot reach 0.05: the smallest p of n subjects is 2 / 2^n.
    """
    return float(wilcoxon(differences).pvalue) if np.any(differences) else 1.0


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The p values of a family of tests, corrected for the false discovery rate.

    Benjamini and Hochberg, J R Stat Soc B 57:289, 1995; scipy.stats.false_discovery_control.
    """
    return [float(p) for p in false_discovery_control(p_values)] if len(p_values) else []
