"""95 % confidence intervals of a mean over queries."""

import math
from collections.abc import Sequence

import numpy as np

from jaxtbpr.core import seeds

_Z = 1.959964  # the standard normal distribution has 95 % of its mass within as many deviations
_DRAWS = 2000


def wilson(hits: float, total: int) -> tuple[float, float]:
    """Returns the interval of a proportion, as fractions: Wilson's score interval (JASA, 1927)."""
    if not total:
        return 0.0, 1.0
    rate, z2 = hits / total, _Z**2
    centre = (rate + z2 / (2 * total)) / (1 + z2 / total)
    reach = _Z * math.sqrt(rate * (1 - rate) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    return max(0.0, centre - reach), min(1.0, centre + reach)


def bootstrap(
    values: np.ndarray, groups: Sequence[str], span: tuple[float, float] = (0.0, 1.0)
) -> tuple[float, float]:
    """Returns the interval of the mean of `values` [N] by resampling whole groups.

    groups: the group of each value, as its person: captions of one person succeed or fail
    together, and an interval over single captions would be too narrow; span: the smallest and
    the largest possible value. The percentile bootstrap (Efron, 1979) over groups, of 2,000 draws
    that are the same each time. Where all groups are equal (every query right, say) each draw is
    the same and the bootstrap has no width: then it is Wilson's interval over groups.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        return math.nan, math.nan
    number = np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, sizes = np.bincount(number, values), np.bincount(number)
    if np.ptp(sums / sizes) < 1e-9:
        least, greatest = span
        scaled = (values.mean() - least) / (greatest - least)
        low, high = wilson(scaled * len(sums), len(sums))
        return least + low * (greatest - least), least + high * (greatest - least)
    rng = seeds.rng(0, "report", "bootstrap")
    means = np.empty(_DRAWS)
    for n in range(_DRAWS):  # one by one, since a set may have many people
        drawn = rng.integers(len(sums), size=len(sums))
        means[n] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)
