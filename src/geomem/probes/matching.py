"""Correspondence by nearest neighbours in a linear projection, and how often it is right.

Shape suffixes: N tokens of one frame, M of another, D feature width.
"""

import torch
from torch import Tensor


def within_scatter(first_ND: Tensor, second_ND: Tensor) -> Tensor:
    """Return the sum (D, D) of (a - b)(a - b)^T over corresponding tokens, float64."""
    difference = (first_ND - second_ND).double()
    return difference.T @ difference


def fit_projection(scatter_DD: Tensor, strength: float) -> Tensor:
    """Return the projection (D, D) in which corresponding tokens differ alike in all directions.

    S^(-1/2) of the scatter S within corresponding pairs: directions that change between two views
    of one place count little (relevant component analysis, Bar-Hillel et al. 2003).

    Args:
        scatter_DD: Of `within_scatter`, any multiple of it.
        strength: Ridge on S, in units of its mean diagonal; positive.
    """
    unit = scatter_DD.diagonal().mean().clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(scatter_DD / unit)
    scale = (values.clamp_min(0) + strength).rsqrt()
    return (vectors * scale) @ vectors.T


def nearest(first_ND: Tensor, second_MD: Tensor, projection_DD: Tensor) -> Tensor:
    """Return for each of N tokens which of M is nearest to it after projection, (N,)."""
    first, second = (x.double() @ projection_DD for x in (first_ND, second_MD))
    distance = second.square().sum(-1) - 2 * first @ second.T
    return distance.argmin(-1)


def correct_share(predicted_N2: Tensor, truth_N2: Tensor, radius: float) -> float:
    """Return the share of points within `radius` of the truth (PCK); NaN where there is no point.

    Args:
        predicted_N2: Points, in the radius' unit.
        truth_N2: Where they should be.
        radius: Inclusive.
    """
    return ((predicted_N2 - truth_N2).norm(dim=-1) <= radius).double().mean().item()
