"""What VBench (Huang et al. 2024) computes of a video once its networks have looked at it.

Formulas and constants are those of its released code, which is what published numbers come from.
Legend: T frames, D feature width, H, W pixels. Frames are in [0, 1].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT, LONG = "VBench", "VBench-Long"
LONG_SECONDS = 5  # VBench-Long from there on
CLIP_SECONDS = 2  # of its clips
# Dynamic degree looks at so many frames a second.
FLOW_RATE = 8
FASTEST = 0.05  # share of a frame's pixels whose flow counts
MOVING = 6 / 256  # of the shorter side, between the frames of a pair
MOVING_PAIRS = 4 / 16  # of the frames looked at


@dataclass(frozen=True)
class Range:
    """How a dimension enters the quality score: the values taken for 0 and 1, and its weight."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0


QUALITY: Mapping[str, Range] = {
    "subject_consistency": Range(0.1462, 1.0),
    "background_consistency": Range(0.2615, 1.0),
    "temporal_flickering": Range(0.6293, 1.0),
    "motion_smoothness": Range(0.706, 0.9975),
    "dynamic_degree": Range(weight=0.5),
    "aesthetic_quality": Range(),
    "imaging_quality": Range(),
}


def is_long(frames: int, fps: int) -> bool:
    """Return whether a video lasts 5.0 s or more, and VBench-Long is the one to take."""
    return frames >= LONG_SECONDS * fps


def spans(frames: int, fps: int) -> list[range]:
    """Return which frames are scored together: all, or of a long video clips of 2 s.

    What remains at the end is extended backwards to a whole clip, so that frames may count twice.
    """
    if not is_long(frames, fps):
        return [range(frames)]
    length = CLIP_SECONDS * fps
    whole = [range(start, start + length) for start in range(0, frames - length + 1, length)]
    return whole if frames % length == 0 else [*whole, range(frames - length, frames)]


def consistency(features_TD: Tensor) -> float:
    """Return the mean over t >= 1 of max(0, cos(t, t-1)) and max(0, cos(t, 0)), in [0, 1]."""
    units = F.normalize(features_TD.double(), dim=1)
    before = (units[1:] * units[:-1]).sum(1).clamp(min=0)
    first = (units[1:] @ units[0]).clamp(min=0)
    return float((before + first).mean() / 2)


def flickering(frames: Tensor) -> float:
    """Return 1 less the mean absolute change of frames (T, 3, H, W) to their next, in [0, 1]."""
    changes = [(later - earlier).abs().double().mean() for earlier, later in pairwise(frames)]
    return 1 - float(torch.stack(changes).mean())


def smoothness(frames: Tensor, between: Callable[[Tensor, Tensor], Tensor]) -> float | None:
    """Return 1 less the mean absolute difference of odd frames from what lies between even ones.

    Args:
        frames: (T, 3, H, W).
        between: Gives the frame (3, H, W) between two, in [0, 1].

    Returns:
        In [0, 1]; None of fewer than 3 frames.
    """
    if len(frames) < 3:
        return None
    made = [between(earlier, later) for earlier, later in pairwise(frames[::2])]
    # The released code compares 8 bits a value, cut off.
    errors = [
        ((255 * found).floor() / 255 - true).abs().double().mean()
        for found, true in zip(made, frames[1::2], strict=False)
    ]
    return 1 - float(torch.stack(errors).mean())


def dynamic_degree(
    frames: Tensor, fps: int, flow: Callable[[Tensor, Tensor], Tensor]
) -> float | None:
    """Return 1 if a video moves, else 0.

    It moves if in a quarter of the frames looked at, 8 a second, the fastest 5 % of the pixels go
    further to the next such frame than 6 pixels of 256 on average.

    Args:
        frames: (T, 3, H, W).
        fps: Frames a second.
        flow: Gives the optical flow (2, h, w) between two frames, in shorter sides of a frame.

    Returns:
        None of fewer than 3 frames to look at: by the released formula they need not move at all.
    """
    shown = frames[:: max(1, round(fps / FLOW_RATE))]
    if len(shown) < 3:
        return None
    fast = sum(speed(flow(earlier, later)) > MOVING for earlier, later in pairwise(shown))
    return float(fast >= round(MOVING_PAIRS * len(shown)))


def speed(flow_2HW: Tensor) -> float:
    """Return the mean length of the largest 5 % of a flow's vectors; at least of one."""
    lengths = torch.linalg.vector_norm(flow_2HW.double(), dim=0).flatten()
    return float(lengths.topk(max(1, int(FASTEST * len(lengths)))).values.mean())


def normalised(dimension: str, value: float) -> float:
    """Return a dimension's value in its range, not clipped: below 0 or above 1 beyond it."""
    found = QUALITY[dimension]
    return (value - found.low) / (found.high - found.low)


def quality(values: Mapping[str, float]) -> float:
    """Return VBench's quality score of all seven dimensions: the weighted mean, each normalised.

    Raises:
        KeyError: If one of them is missing.
    """
    total = sum(r.weight * normalised(name, values[name]) for name, r in QUALITY.items())
    return total / sum(r.weight for r in QUALITY.values())
