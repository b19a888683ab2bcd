"""How often the intervals of a table hold the true mean, in simulations that are like it.

Studentised intervals hold by the central limit theorem, of ten skewed clips less than of a hundred.
So clips are drawn with the number, the skewness and the seeds of each column, again and again.
Legend: S seeds, C clips.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.special import gammaincinv, ndtri

from geomem.paper.collect import Array
from geomem.statistics import mean_intervals

SIMULATIONS = 2000
RESAMPLES = 500
SEED = 0
# Laws are rounded to so much, away from none, so that columns that are alike share a simulation.
STEP_OF_SKEWNESS, STEP_OF_SPREAD = 0.25, 0.1
LEAST_CLIPS = 3  # that have a skewness
# What intervals of 95 % may fall to before a table says so.
LEAST_COVERAGE = 0.93


@dataclass(frozen=True, kw_only=True, order=True)
class Law:
    """What the values of a column are like.

    Attributes:
        clips: C.
        seeds: S.
        skewness: Of clips' means over seeds.
        of_seeds: Standard deviation between seeds, in that of clips.
        of_both: Of what a seed and a clip do together, in that of clips.
    """

    clips: int
    seeds: int
    skewness: float
    of_seeds: float = 0.0
    of_both: float = 0.0


def law_of(values: Sequence[Array]) -> Law | None:
    """Return the law of a column by the values (S, C) of its rows, None where none has a spread.

    Skewness and spreads are means over the rows, whose clips are the same: of a single row of ten
    clips, skewness would be mostly chance.
    """
    seeds = max((len(table) for table in values), default=0)
    kept = [
        table
        for table in values
        if len(table) == seeds
        and table.shape[1] >= LEAST_CLIPS
        and np.ptp(table.mean(0)) > 1e-9 * np.abs(table).max()
    ]
    if not kept:
        return None
    skewness = float(np.mean([skewness_of(table.mean(0)) for table in kept]))
    spreads = np.mean([_spreads(table) for table in kept], axis=0)
    return Law(
        clips=min(table.shape[1] for table in kept),
        seeds=seeds,
        skewness=_rounded(skewness, STEP_OF_SKEWNESS),
        of_seeds=_rounded(float(spreads[0]), STEP_OF_SPREAD),
        of_both=_rounded(float(spreads[1]), STEP_OF_SPREAD),
    )


@lru_cache(maxsize=256)
def coverage(law: Law) -> float:
    """Return the share of simulated 95 % intervals that hold the true mean.

    Clips are of Pearson's type III (a shifted gamma) with that skewness, mean 0 and standard
    deviation 1; what seeds add is normal. The standard error of the share is 0.005.
    """
    generator = np.random.default_rng(SEED)
    tables = type_three(generator.uniform(size=(SIMULATIONS, 1, law.clips)), law.skewness)
    if law.seeds > 1:
        apart = generator.normal(size=(SIMULATIONS, law.seeds, 1))
        mixed = generator.normal(size=(SIMULATIONS, law.seeds, law.clips))
        tables = tables + law.of_seeds * apart + law.of_both * mixed
    _, low, high = mean_intervals(tables, seed=SEED, resamples=RESAMPLES)
    return float(np.mean((low <= 0) & (high >= 0)))


def type_three(shares: Array, skewness: float) -> Array:
    """Return quantiles of Pearson's type III of mean 0 and standard deviation 1.

    Args:
        shares: In (0, 1), of any shape.
        skewness: Third standardised moment; 0 is the normal law.
    """
    if not skewness:
        return np.asarray(ndtri(shares))
    shape = 4 / skewness**2
    sign = np.sign(skewness)
    quantiles = gammaincinv(shape, shares if sign > 0 else 1 - shares)
    return np.asarray(sign * (quantiles - shape) / np.sqrt(shape))


def skewness_of(values: Array) -> float:
    """Return the sample skewness G1 of values (C,), C at least 3 (Joanes & Gill 1998)."""
    clips, offsets = len(values), values - values.mean()
    plain = (offsets**3).mean() / (offsets**2).mean() ** 1.5
    return float(plain * np.sqrt(clips * (clips - 1)) / (clips - 2))


def coverage_record(laws: dict[str, Law]) -> dict[str, Any]:
    """Return what the intervals of a table's columns hold, with the least of them.

    Args:
        laws: By key of a column.
    """
    if not laws:
        return {}
    found = {key: coverage(law) for key, law in laws.items()}
    least = min(found, key=lambda key: (found[key], key))
    return {
        "least": found[least],
        "column": least,
        "simulations": SIMULATIONS,
        "columns": {
            key: {
                "clips": law.clips,
                "seeds": law.seeds,
                "skewness": law.skewness,
                "held": found[key],
            }
            for key, law in laws.items()
        },
    }


def _spreads(table: Array) -> tuple[float, float]:
    """Return the standard deviations between seeds and of both together, in that of clips.

    By the mean squares of the two-way layout without repetition; 0 of one seed.
    """
    seeds, clips = table.shape
    if seeds == 1:
        return 0.0, 0.0
    rest = table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()
    of_rest = float((rest**2).sum() / ((seeds - 1) * (clips - 1)))
    of_seeds = max(float(table.mean(1).var(ddof=1)) - of_rest / clips, 0.0)
    of_clips = float(table.mean(0).var(ddof=1))
    return float(np.sqrt(of_seeds / of_clips)), float(np.sqrt(of_rest / of_clips))


def _rounded(value: float, step: float) -> float:
    return float(np.sign(value) * np.ceil(round(abs(value) / step, 6)) * step)
