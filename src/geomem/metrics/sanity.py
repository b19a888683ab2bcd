"""What a metric has to tell apart before a table may show it: truth, shuffled truth, and noise.

The three are scored as if they had been generated. By a metric with a better side, truth has to be
ahead of shuffled truth and that of noise; a metric may ask for less (`Metric.sanity`): for truth
ahead of both, where what is left of either means nothing, or for nothing, where truth itself has no
best value. A metric that has no value of one of them is not judged by it.
"""

from collections.abc import Iterable, Mapping

from geomem.metrics.registry import Metric

FAKES = ("truth", "shuffled", "noise")  # from the best to the worst
Values = Mapping[str, float | None]


def out_of_order(metrics: Iterable[Metric], found: Mapping[str, Values]) -> dict[str, str]:
    """Return the metrics that do not tell the three apart, each with what it says, in words.

    Args:
        metrics: That are judged.
        found: Mean values by metric and by name of `FAKES`.
    """
    return {
        metric.name: ", ".join(f"{name} {_shown(found[metric.name][name])}" for name in FAKES)
        for metric in metrics
        if metric.name in found and not _in_order(metric, found[metric.name])
    }


def _in_order(metric: Metric, values: Values) -> bool:
    if metric.better == "neither" or metric.sanity == "none":
        return True
    pairs = [("truth", "shuffled"), ("truth", "noise")]
    pairs += [("shuffled", "noise")] if metric.sanity == "ordered" else []
    sign = 1 if metric.better == "higher" else -1
    for better, worse in pairs:
        one, other = values[better], values[worse]
        if one is not None and other is not None and not sign * (one - other) > 0:
            return False
    return True


def _shown(value: float | None) -> str:
    return "no value" if value is None else f"{value:.4g}"
