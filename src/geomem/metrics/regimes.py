"""What a clip asks of a model: how far its camera goes, and how much of what comes was given.

The truth's cameras and depth alone say so, whatever was generated.
Legend: T frames, H, W pixels.
"""

from collections.abc import Sequence

from torch import Tensor

from geomem.geometry.warp import share_seen
from geomem.metrics.revisits import pose_gaps


def camera_motion(cameras: Tensor, *, context: int) -> tuple[float, float]:
    """Return how far the camera goes from the last given frame to the end of a clip.

    Args:
        cameras: (T, 16).
        context: Number of given frames, the first ones.

    Returns:
        Length of its path in world units, and the sum of its rotations from frame to frame in
        degrees.
    """
    distance, angle = pose_gaps(cameras[context - 1 :])
    return float(distance.diagonal(1).sum()), float(angle.diagonal(1).sum())


def overlap_with_given(
    depth: Tensor, cameras: Tensor, *, context: int, given: Sequence[int]
) -> float | None:
    """Return the share of the generated frames' pixels whose surface some given frame shows.

    Args:
        depth: True planar depth (T, H, W), infinite where there is no surface; such pixels are left
            out.
        cameras: (T, 16).
        context: Number of given frames, the first ones.
        given: Numbers of those that are looked at.

    Returns:
        Of all pixels with a surface; None if there are none.
    """
    chosen, later = list(given), slice(context, None)
    cameras = cameras.to(depth)
    surface = float(depth[later].isfinite().double().mean((1, 2)).sum())
    if not surface:
        return None
    seen = share_seen(depth[later], cameras[later], depth[chosen], cameras[chosen])
    return float(seen.sum()) / surface
