"""Metric scale of cameras that are predicted up to scale (METHOD 7)."""

from torch import Tensor

from geomem.geometry.cameras import camera_centres


def solve_scale(
    predicted_w2c: Tensor, given_w2c: Tensor, *, prior: float, prior_weight: float
) -> float:
    """Return the factor that brings predicted lengths to the given cameras' unit.

    With p_k and g_k the predicted and given distances of camera k from camera 0, 1/s minimises

        sum_k (p_k - g_k / s)^2 + prior_weight * (1 / s - 1 / prior)^2 .

    The predicted distances, which carry the error, are regressed on the given ones. So noise on a
    camera that does not move cannot pull the scale: without a given baseline (one frame, or pure
    rotation) the prior is returned exactly.

    Args:
        predicted_w2c: Predicted world-to-camera poses (K, 3, 4), translation up to scale.
        given_w2c: Given world-to-camera poses (K, 3, 4) of the same frames.
        prior: Scale expected before seeing the cameras, positive.
        prior_weight: Strength of the prior: the sum of squared given distances (world units
            squared) at which cameras and prior count alike, positive.

    Returns:
        The positive scale: given length = scale * predicted length.

    Raises:
        ValueError: If the shapes differ, or the prior or its weight is not positive.
    """
    if predicted_w2c.shape != given_w2c.shape:
        raise ValueError(
            f"poses differ in shape: {tuple(predicted_w2c.shape)}, {tuple(given_w2c.shape)}"
        )
    if not (prior > 0 and prior_weight > 0):
        raise ValueError(f"prior and weight must be positive, got {prior} and {prior_weight}")
    predicted, given = _baselines(predicted_w2c), _baselines(given_w2c)
    numerator = (given * predicted).sum().item() + prior_weight / prior
    denominator = given.square().sum().item() + prior_weight
    return denominator / numerator


def _baselines(w2c: Tensor) -> Tensor:
    """Return the distance (K,) of every camera centre from the first, in float64."""
    centres = camera_centres(w2c.double())
    return (centres - centres[:1]).norm(dim=-1)
