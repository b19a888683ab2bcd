"""Bins of overlap: the share of a later frame's pixels whose surface an earlier one sees."""

# The upper bound is outside, but of the last.
BINS = {"few": (0.1, 0.4), "half": (0.4, 0.7), "most": (0.7, 1.0)}


def shown(low: float, high: float) -> str:
    """Return the bounds of a bin in words."""
    return f"{round(100 * low)} to {round(100 * high)} %"


def bin_of(share: float) -> str | None:
    """Return the name of the bin of a share, None where it is below all of them."""
    lows = {name: low for name, (low, _) in BINS.items() if share >= low}
    return max(lows, key=lambda name: lows[name], default=None)
