"""Which history frames enter the memory."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geomem.geometry.overlap import frustum_points, points_seen
from geomem.memory.retrieval import draw_in_range, select_by_views


def select_by_time(frames: Sequence[int], k: int) -> list[int]:
    """Return up to k of the frames, those nearest to times spread evenly over all of them.

    Spread over the frames' numbers, not over their rank in the list: while keyframes wait for the
    frames between them, a spread over ranks would crowd where frames are finished.

    Args:
        frames: Numbers of the frames to choose from, ascending; gaps may be of any size.
        k: Number of frames to choose.

    Returns:
        Frame numbers, ascending and distinct; always the oldest (the given context), from k = 2 on
        the newest too. Of two frames equally near to a time the older one.

    Raises:
        ValueError: If there is no frame or k is not positive.
    """
    if len(frames) < 1 or k < 1:
        raise ValueError(f"need a history and k >= 1, got {len(frames)} frames and k = {k}")
    if k >= len(frames):
        return list(frames)
    first, last = frames[0], frames[-1]
    times = [first, *(first + round(i * (last - first) / (k - 1)) for i in range(1, k))]
    left = set(frames)
    # the ends first, so that no time between them takes one of them
    for time in [times[0], *times[:0:-1]]:
        left.remove(min(left, key=lambda frame: (abs(frame - time), frame)))
    return sorted(set(frames) - left)


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
    number: int | None = None,
) -> list[int]:
    """Return up to k of a clip's finished frames, ascending.

    Args:
        known: Numbers of the finished frames, ascending.
        targets: Numbers of the frames that will read the memory.
        cameras: Cameras of the whole clip (T, 16).
        k: Number of frames to choose.
        selection: "time" (`select_by_time`), "overlap" (`select_by_overlap`) or "worldmem": in
            generation `select_by_views` of the frames that are not targets themselves, in training
            `draw_in_range`.
        near: As for `select_by_overlap`.
        far: As for `select_by_overlap`; of "worldmem" the radius.
        number: Of the window in its plan while training; None in generation.
    """
    if selection == "time":
        return select_by_time(known, k)
    seen, wanted = cameras[list(known)], cameras[list(targets)]
    if selection == "overlap":
        return [known[i] for i in select_by_overlap(seen, wanted, k, near=near, far=far)]
    if number is not None:
        return [known[i] for i in draw_in_range(seen, wanted, k, number=number)]
    among = [frame for frame in known if frame not in targets]
    chosen = select_by_views(cameras[among], among, wanted, targets, k, radius=far)
    return [among[i] for i in chosen]
