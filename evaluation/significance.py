"""Paired tests between methods over subjects, corrected for the number of tests in a table.

Tests are paired because subjects differ from one another by more than methods do.
"""

from collections.abc import Sequence

import numpy as np
from scipy.stats import false_discovery_control, wilcoxon


def paired_wilcoxon(differences: Sequence[float]) -> float:
    """Two-sided p of the Wilcoxon signed-rank test that differences, one per subject, are symmetric about 0.

    Wilcoxon, Biometrics Bull 1:80, 1945, who leaves out zeros; scipy.stats.wilcoxon, which is exact for few subjects. 1
    if all differences are 0. Fewer than six that are not cannot reach 0.05: the smallest p of n is 2 / 2^n.
    """
    # Left out here: SciPy would take the normal approximation as soon as there is a zero.
    others = np.asarray(differences)[np.not_equal(differences, 0)]
    return float(wilcoxon(others).pvalue) if len(others) else 1.0


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """The p values of a family of tests, corrected for the false discovery rate.

    Benjamini and Hochberg, J R Stat Soc B 57:289, 1995; scipy.stats.false_discovery_control.
    """
    return [float(p) for p in false_discovery_control(p_values)] if len(p_values) else []
