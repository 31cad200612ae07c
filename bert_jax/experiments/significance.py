"""Significance tests of the differences between the rows of a table."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np


def welch(a: Sequence[float], b: Sequence[float]) -> float:
    """The p-value of Welch's t-test, which does not assume that both samples have the same variance."""
    from scipy import stats

    moments = [m for x in (a, b) for m in (statistics.fmean(x), statistics.stdev(x), len(x))]
    return float(stats.ttest_ind_from_stats(*moments, equal_var=False).pvalue)


def better_than(values: Sequence[float], target: float, lower_is_better: bool) -> float:
    """The p-value of a one-sided t-test: the probability of such values if their mean were not better than the target."""
    from scipy import stats

    if len({*values}) == 1:  # without variance, SciPy returns NaN
        return float(values[0] > target if lower_is_better else values[0] < target)
    side = 'less' if lower_is_better else 'greater'
    return float(stats.ttest_1samp(values, target, alternative=side).pvalue)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> float:
    """The p-value of a Mann-Whitney U permutation test; exact, even with ties, if each sample has at most 8 values."""
    from scipy import stats

    # By default, SciPy approximates by a normal distribution if there are ties, and steps often are equal.
    method = stats.PermutationMethod(n_resamples=20_000, rng=np.random.default_rng(0))
    return float(stats.mannwhitneyu(a, b, method=method).pvalue)


def reason_not_to_test(a: Sequence[float], b: Sequence[float]) -> str:
    """Why Welch's t-test cannot compare two samples; empty if it can."""
    if not all(map(math.isfinite, (*a, *b))):
        return 'a score is not finite'
    return 'no variance' if len({*a}) == len({*b}) == 1 else ''


def holm(p_values: Mapping[str, float], level: float = 0.05) -> list[str]:
    """The names of the tests that are significant by Holm's step-down procedure, at a family-wise error rate of `level`."""
    ranked = sorted(p_values.items(), key=lambda test: test[1])
    rejected = itertools.takewhile(lambda t: t[1][1] <= level / (len(ranked) - t[0]), enumerate(ranked))
    return [name for _, (name, _) in rejected]
