"""Means and spreads over groups, and differences between methods in the same groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# 97.5 % quantiles of Student's t by degrees of freedom, 1 to 30; beyond, the expansion around the normal one is exact
# to .001.
STUDENT_T: tuple[float, ...] = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
STUDENT_T += (2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086)
STUDENT_T += (2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)
NORMAL = 1.959964


class Spread(NamedTuple):
    """Values of several groups.

    Attributes:
        n: how many.
        mean: their mean.
        deviation: their standard deviation, with one subtracted from the count; NaN for one value.
        half: half of the mean's 95 % confidence interval by Student's t; NaN for one value.
    """

    n: int
    mean: float
    deviation: float
    half: float


def spread(values: Sequence[float]) -> Spread | None:
    """Of values; None if there are none."""
    count = len(values)
    if not count:
        return None
    mean = sum(values) / count
    if count == 1:
        return Spread(1, mean, math.nan, math.nan)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return Spread(count, mean, deviation, t_quantile(count - 1) * deviation / math.sqrt(count))


def differences(values: Mapping[str, float], others: Mapping[str, float]) -> list[float]:
    """Value minus other, in the groups that have both."""
    return [value - others[group] for group, value in values.items() if group in others]


def paired(values: Mapping[str, float], others: Mapping[str, float]) -> Spread | None:
    """Of the differences, value minus other, in the groups that have both."""
    return spread(differences(values, others))


def gain(values: Mapping[str, float], others: Mapping[str, float]) -> float | None:
    """Returns the gain of the mean over the other mean, as a share of the other, over the groups that have both."""
    both = [group for group in values if group in others]
    below = sum(others[group] for group in both)
    return sum(values[group] for group in both) / below - 1 if below > 0 else None


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    if freedom <= len(STUDENT_T):
        return STUDENT_T[freedom - 1]
    first = (NORMAL**3 + NORMAL) / 4
    second = (5 * NORMAL**5 + 16 * NORMAL**3 + 3 * NORMAL) / 96
    return NORMAL + first / freedom + second / freedom**2
