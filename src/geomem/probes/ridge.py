"""Ridge regression in closed form, from sums that are gathered batch by batch.

Whatever the number of samples, only sums of products are kept; the error of a map on samples that
were only summed follows from the same sums. Shape suffixes: N samples, D inputs, K targets.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """x -> x weight + bias; weight (D, K), bias (K,), float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """Return the map of x (..., D) in float64, (..., K)."""
        return x.double() @ self.weight + self.bias


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums over samples: their number, x (D,), y (K,), x x^T (D, D), x y^T (D, K), y^2 (K,)."""

    count: float
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> Self:
        """Sum inputs (N, D) and targets (N, K).

        Raises:
            ValueError: If their numbers differ.
        """
        if len(x) != len(y):
            raise ValueError(f"{len(x)} inputs for {len(y)} targets")
        x, y = x.double(), y.double()
        return cls(
            count=len(x), x=x.sum(0), y=y.sum(0), xx=x.T @ x, xy=x.T @ y, yy=y.square().sum(0)
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{name: value + getattr(other, name) for name, value in vars(self).items()}
        )


def fit_ridge(moments: Moments, strength: float) -> LinearMap:
    """Return the map W, b that minimises |X W + b - Y|^2 + lambda |W|^2; the bias is free.

    Args:
        moments: Of the samples.
        strength: lambda in units of the mean variance of an input, times the number of samples, so
            that it means the same whatever the inputs' unit and number; positive.

    Raises:
        ValueError: If there is no sample or the strength is not positive.
    """
    if not (moments.count > 0 and strength > 0):
        raise ValueError(f"need samples and a strength, got {moments.count} and {strength}")
    mean_x, mean_y = moments.x / moments.count, moments.y / moments.count
    xx = moments.xx - moments.count * torch.outer(mean_x, mean_x)
    xy = moments.xy - moments.count * torch.outer(mean_x, mean_y)
    # inputs that never change leave a unit ridge, and so a weight of zero
    unit = xx.diagonal().mean().clamp_min(1e-12)
    ridge = strength * unit * torch.eye(len(xx), dtype=xx.dtype, device=xx.device)
    weight = torch.linalg.solve(xx + ridge, xy)
    return LinearMap(weight=weight, bias=mean_y - mean_x @ weight)


def squared_error(moments: Moments, fitted: LinearMap) -> float:
    """Return the mean over samples of |x W + b - y|^2, from sums alone."""
    weight, bias = fitted.weight, fitted.bias
    predicted = (
        (weight * (moments.xx @ weight)).sum()
        + 2 * (moments.x @ weight * bias).sum()
        + moments.count * bias.square().sum()
    )
    crossed = (weight * moments.xy).sum() + (bias * moments.y).sum()
    return float(predicted - 2 * crossed + moments.yy.sum()) / moments.count


def choose_ridge(
    fitted: Moments, held: Moments, strengths: Iterable[float]
) -> tuple[LinearMap, float]:
    """Fit with every strength, keep the one with the least error on held samples, refit on all.

    Returns:
        The map fitted on both sets of samples, and its strength.
    """
    errors = {s: squared_error(held, fit_ridge(fitted, s)) for s in strengths}
    best = min(errors, key=errors.__getitem__)
    return fit_ridge(fitted + held, best), best
