"""Which history frames enter the memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geomem.geometry.overlap import frustum_points, points_seen


def select_by_time(n_history: int, k: int) -> list[int]:
    """Return up to k frame indices spread evenly over a history of n_history frames.

    Ascending, always with frame 0 (the given context); the newest frame too from k = 2 on.

    Raises:
        ValueError: If the history is empty or k is not positive.
    """
    if n_history < 1 or k < 1:
        raise ValueError(f"need a history and k >= 1, got {n_history} frames and k = {k}")
    if k == 1:
        return [0]
    k = min(k, n_history)
    return [round(i * (n_history - 1) / max(k - 1, 1)) for i in range(k)]


def select_by_overlap(
    cameras: Tensor, targets: Tensor, k: int, *, near: float, far: float
) -> list[int]:
    """Return up to k history frames that together see most of the target cameras' frusta.

    Greedy cover: each step takes the frame that sees most target samples not yet seen; ties go to
    the larger overlap as a whole, then to the older frame. Depth-free.

    Args:
        cameras: History cameras (N, 16).
        targets: Target cameras (T, 16).
        k: Number of frames to choose.
        near: Planar depth at which target frusta start, world units.
        far: Planar depth at which all frusta end.

    Returns:
        min(k, N) frame indices, ascending.

    Raises:
        ValueError: If there is no history, k < 1, or not 0 < near < far.
    """
    if len(cameras) < 1 or k < 1:
        raise ValueError(f"need a history and k >= 1, got {len(cameras)} frames and k = {k}")
    points = frustum_points(targets, near=near, far=far).flatten(0, 1)
    seen = points_seen(points, cameras, far=far)
    total = seen.sum(dim=1)
    remaining = torch.ones_like(seen[0])
    chosen: list[int] = []
    for _ in range(min(k, len(cameras))):
        score = (seen & remaining).sum(dim=1) * (len(points) + 1) + total
        score[chosen] = -1
        best = int(score.argmax())
        chosen.append(best)
        remaining &= ~seen[best]
    return sorted(chosen)


def choose_frames(
    known: Sequence[int],
    targets: Sequence[int],
    cameras: Tensor,
    k: int,
    *,
    selection: str,
    near: float,
    far: float,
) -> list[int]:
    """Return up to k of a clip's finished frames, ascending.

    Args:
        known: Numbers of the finished frames, ascending.
        targets: Numbers of the frames that will read the memory.
        cameras: Cameras of the whole clip (T, 16).
        k: Number of frames to choose.
        selection: "time" (`select_by_time`) or "overlap" (`select_by_overlap`).
        near: As for `select_by_overlap`.
        far: As for `select_by_overlap`.
    """
    if selection == "time":
        picks = select_by_time(len(known), k)
    else:
        seen, wanted = cameras[list(known)], cameras[list(targets)]
        picks = select_by_overlap(seen, wanted, k, near=near, far=far)
    return [known[pick] for pick in picks]
