"""Choice of memory frames as WorldMem makes it (arXiv 2504.12369): by overlap of views and by time.

Shape suffixes: N frames to choose from, T frames that will read the memory, P points.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from geomem.geometry.cameras import invert_poses, split_cameras
from geomem.geometry.overlap import points_seen

POINTS = 10_000
TIME_WEIGHT = 0.2
MOST_OVERLAP = 0.9
MOST_DEGREES = 110.0  # between views, in training
SINGLE = 0.1  # share of training windows that remember one frame


@lru_cache(maxsize=1)
def _unit_ball() -> Tensor:
    """Return points (P, 3) drawn evenly in the unit ball, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(POINTS, 3, generator=generator)
    radii = torch.rand(POINTS, 1, generator=generator) ** (1 / 3)
    return directions / directions.norm(dim=1, keepdim=True) * radii


def view_points(camera: Tensor, radius: float) -> Tensor:
    """Return which points of a ball round a camera (16,) lie in its field of view, (P', 3).

    The ball is drawn in the camera's own axes, in which it is as even as in the world's: cameras of
    equal pose then have equal points.
    """
    intrinsics, w2c = split_cameras(camera)
    local = radius * _unit_ball().to(camera)
    own = torch.cat(
        [intrinsics, torch.eye(3, 4, device=camera.device, dtype=camera.dtype).flatten()]
    )
    local = local[points_seen(local, own[None], far=math.inf)[0]]
    c2w = invert_poses(w2c)
    return local @ c2w[:, :3].mT + c2w[:, 3]


def shares_seen(points: Tensor, cameras: Tensor) -> Tensor:
    """Return the share of points (P, 3) in the field of view of each camera (N, 16), at any depth
    and without occlusion; 0 of no points."""
    return points_seen(points, cameras, far=math.inf).sum(dim=1) / max(1, len(points))


def too_alike(camera: Tensor, others: Tensor, radius: float) -> list[bool]:
    """Return which of other cameras (N, 16) share more than 0.9 of their view with a camera (16,).

    Of what either sees in the ball round it the other has to see that share, so that a wide view is
    not the same as a part of it.
    """
    forth = shares_seen(view_points(camera, radius), others) > MOST_OVERLAP
    return [
        bool(seen and shares_seen(view_points(other, radius), camera[None]) > MOST_OVERLAP)
        for other, seen in zip(others, forth.tolist(), strict=True)
    ]


def select_by_views(
    cameras: Tensor,
    times: Sequence[int],
    targets: Tensor,
    target_times: Sequence[int],
    k: int,
    *,
    radius: float,
) -> list[int]:
    """Return up to k history frames whose views overlap with those of the target frames.

    The score of frame i is o_i - 0.2 |t_i - t| / t, o_i the share of what the target frames see of
    the balls round them that frame i sees too, t the mean of their times. The best frame is taken;
    all that are `too_alike` go; and so on. The published o_i is a share of
    all points of the ball: a camera sees a small part of these, and time alone would decide.

    Args:
        cameras: History cameras (N, 16).
        times: Their N frame numbers.
        targets: Target cameras (T, 16).
        target_times: Their T frame numbers.
        k: Number of frames to choose.
        radius: Of the balls, world units.

    Returns:
        At most min(k, N) frame indices, ascending; none of no history.

    Raises:
        ValueError: If there is no target frame, k < 1, or the radius is not positive.
    """
    if len(targets) < 1 or k < 1 or radius <= 0:
        raise ValueError(
            f"need target frames, k >= 1 and radius > 0, got {len(targets)}, {k} and {radius}"
        )
    points = torch.cat([view_points(camera, radius) for camera in targets])
    now = sum(target_times) / len(target_times)
    away = (torch.tensor(times, device=cameras.device, dtype=cameras.dtype) - now).abs()
    scores = shares_seen(points, cameras) - TIME_WEIGHT * away / max(1.0, now)
    left, chosen = list(range(len(cameras))), list[int]()
    while left and len(chosen) < k:
        best = left[int(scores[left].argmax())]
        chosen.append(best)
        left.remove(best)
        alike = too_alike(cameras[best], cameras[left], radius)
        left = [frame for frame, same in zip(left, alike, strict=True) if not same]
    return sorted(chosen)


def draw_in_range(cameras: Tensor, targets: Tensor, k: int, *, number: int) -> list[int]:
    """Return up to k history frames drawn at random for training, ascending.

    Drawn evenly from the frames that look at most 110 degrees away from a target frame, from all
    where there is none; in a tenth of the windows one frame alone, so that what little a bank may
    hold is known.

    Args:
        cameras: History cameras (N, 16).
        targets: Target cameras (T, 16).
        k: Number of frames to draw.
        number: Of the window; equal numbers draw equal frames.
    """
    generator = torch.Generator().manual_seed(number)
    ahead, wanted = (split_cameras(c)[1][:, 2, :3] for c in (cameras, targets))
    near = (ahead @ wanted.mT).amax(dim=1) >= math.cos(math.radians(MOST_DEGREES))
    among = near.nonzero()[:, 0].tolist() or list(range(len(cameras)))
    alone = bool(torch.rand((), generator=generator) < SINGLE)
    order = torch.randperm(len(among), generator=generator)[: 1 if alone else k]
    return sorted(among[i] for i in order.tolist())
