"""A logistic model of soft labels, and how well its probabilities are calibrated.

Legend: N samples, D features.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

Array = NDArray[np.float64]
SHRINKAGE = 1e-3  # of the standardised weights, per sample; keeps them finite where classes part


@dataclass(frozen=True, kw_only=True)
class Logistic:
    """P = 1 / (1 + exp(-(bias + weights . (x - mean) / deviation))), arrays (D,)."""

    mean: Array
    deviation: Array
    weights: Array
    bias: float

    def probability(self, features: Array) -> Array:
        """Return the probabilities (N,) of features (N, D)."""
        standard = (features - self.mean) / self.deviation
        return np.asarray(expit(standard @ self.weights + self.bias), dtype=np.float64)


def fit_logistic(features: Array, labels: Array) -> Logistic:
    """Return the model of least mean cross-entropy, its weights shrunk a little.

    Args:
        features: (N, D), finite.
        labels: Shares (N,) in [0, 1]; of a label between, both outcomes count by their share.

    Raises:
        ValueError: If shapes do not fit, or all labels are one.
    """
    if features.shape != (len(labels), features.shape[-1]) or labels.min() == labels.max():
        raise ValueError(
            f"features {features.shape} and labels {labels.shape} between {labels.min()} and "
            f"{labels.max()} cannot be fitted"
        )
    mean, spread = features.mean(0), features.std(0)
    deviation = np.where(spread > 0, spread, 1.0)
    design = np.column_stack([np.ones(len(labels)), (features - mean) / deviation])
    shrunk = SHRINKAGE * np.r_[0.0, np.ones(features.shape[1])]

    def loss(parameters: Array) -> tuple[float, Array]:
        score = design @ parameters
        # log(1 + e^s) - y s is the cross-entropy, without a logarithm of zero
        entropy = (np.logaddexp(0, score) - labels * score).mean()
        slope = design.T @ (expit(score) - labels) / len(labels)
        return float(entropy + shrunk @ parameters**2 / 2), slope + shrunk * parameters

    start = np.zeros(design.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 1000}).x
    return Logistic(mean=mean, deviation=deviation, weights=found[1:], bias=float(found[0]))


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Bins of equal mass, by rising probability: arrays (bins,).

    Attributes:
        predicted: Mean probability.
        observed: Mean label.
        count: Samples.
    """

    predicted: Array
    observed: Array
    count: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The expected calibration error: the bins' mean absolute difference, by their mass."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.count))


def reliability(probabilities: Array, labels: Array, *, bins: int) -> Reliability:
    """Return what was observed (Naeini et al. 2015) in bins of as many samples each, by rank.

    Args:
        probabilities: (N,), N at least `bins`.
        labels: Shares (N,) in [0, 1].
        bins: How many.

    Raises:
        ValueError: If there are fewer samples than bins.
    """
    if len(probabilities) < bins:
        raise ValueError(f"{len(probabilities)} samples do not fill {bins} bins")
    parts = np.array_split(np.argsort(probabilities, kind="stable"), bins)
    return Reliability(
        predicted=np.array([probabilities[part].mean() for part in parts]),
        observed=np.array([labels[part].mean() for part in parts]),
        count=np.array([len(part) for part in parts]),
    )
