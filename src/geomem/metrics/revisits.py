"""Revisit error: does the model show the same place when the camera comes back to it?

Two questions, both needed. Self-consistency compares a revisited frame with the generated frame of
the first visit: it sees forgetting, but a collapsed (still or grey) clip passes it too, so the same
comparison at wrong places is subtracted (`contrast`). Fidelity compares revisited frames with the
truth: it cannot be cheated, but is bounded by what was invented on the first visit, so the first
visit's own fidelity is subtracted (`forgetting`).

Legend: T frames, P pairs. Frames are float in [0, 1], (T, 3, H, W).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from geomem.geometry.cameras import camera_centres, split_cameras
from geomem.metrics.frames import psnr_per_frame

Distance = Callable[[Tensor, Tensor], Tensor]
# The part of the clip, counted from its end, that the headline compares with the truth.
LATE_FRACTION = 8


def pose_gaps(cameras: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance (world units) and the angle (degrees) between all poses, (T, T) each."""
    _, w2c = split_cameras(cameras.double())
    centres, rotations = camera_centres(w2c), w2c[..., :3]
    # |Ra - Rb| = 2 sqrt(2) sin(angle / 2) in the Frobenius norm: exact at small angles, where the
    # arc cosine of the trace loses half the digits.
    chord = torch.linalg.matrix_norm(rotations[:, None] - rotations[None])
    angle = torch.rad2deg(2 * torch.asin((chord / math.sqrt(8)).clamp(max=1.0)))
    return torch.linalg.vector_norm(centres[:, None] - centres[None], dim=-1), angle


def revisit_pairs(
    cameras: Tensor, *, minimum_gap: int, max_distance: float = 0.02, max_angle: float = 1.0
) -> Tensor:
    """Return the revisits as int64 (P, 2): (first visit, later frame of the same pose).

    Each later frame has one partner, the frame nearest in pose (of equals the earliest) among those
    at least `minimum_gap` before it: a full `spin` gives (0, T - 1), `out_and_back` mirror pairs.

    Args:
        cameras: (T, 16).
        minimum_gap: Smallest index difference of two visits, so that neighbours do not count.
        max_distance: Between the camera centres, in world units.
        max_angle: Between the viewing rotations, in degrees.

    Raises:
        ValueError: If `minimum_gap` is below 1.
    """
    if minimum_gap < 1:
        raise ValueError(f"minimum_gap must be at least 1, got {minimum_gap}")
    distance, angle = pose_gaps(cameras)
    frame = torch.arange(len(cameras), device=cameras.device)
    apart = frame[:, None] - frame[None] >= minimum_gap
    same = (distance <= max_distance) & (angle <= max_angle) & apart
    later = same.any(1).nonzero()[:, 0]
    mismatch = distance / max_distance + angle / max_angle
    # Rounded, so that poses equal up to float32 noise tie and the earliest wins.
    mismatch = mismatch.mul(1000).round().masked_fill(~same, math.inf)
    return torch.stack([mismatch.argmin(1)[later], later], dim=1)


def revisit_psnr(
    generated: Tensor, truth: Tensor, pairs: Tensor, *, context: int
) -> dict[str, float | None]:
    """Return the revisit errors of one clip by PSNR, dB.

    Args:
        generated: (T, 3, H, W); the first `context` frames are the given truth. A revisit of a
            context frame counts (it is what memory is for); a pair inside the context does not.
        truth: (T, 3, H, W).
        pairs: (P, 2) of `revisit_pairs`, P at least 1, each later frame a generated one.
        context: Number of given frames.

    Returns:
        `closing_psnr`: last generated frame against the first (the turning-around protocol).
        `self_psnr`: generated frame against its generated first visit, mean over pairs.
        `contrast`: `self_psnr` minus the PSNR between the first visit and the frame midway to the
        revisit; 0 for a clip that never moves.
        `truth_psnr`: revisited generated frames against the truth.
        `forgetting`: PSNR to the truth at the first visit minus that at the revisit, over pairs
        whose first visit was generated; 0 is ideal. None without such pairs (a spin has none).
        `late_psnr`: last eighth of the clip against the truth.

    Raises:
        ValueError: If there is no pair, one ends in the context, or the shapes do not fit.
    """
    earlier, later = _visits(pairs, context)
    midway = (earlier + later) // 2
    first, last = _ends(generated)
    to_truth = psnr_per_frame(generated, truth)
    self_psnr = _mean(psnr_per_frame(generated[later], generated[earlier]))
    return {
        "closing_psnr": _mean(psnr_per_frame(last, first)),
        "self_psnr": self_psnr,
        "contrast": self_psnr - _mean(psnr_per_frame(generated[midway], generated[earlier])),
        "truth_psnr": _mean(to_truth[later]),
        "forgetting": _forgetting(to_truth, pairs, context),
        "late_psnr": _mean(to_truth[_late(len(generated))]),
    }


def revisit_distances(
    generated: Tensor, truth: Tensor, pairs: Tensor, *, distance: Distance
) -> dict[str, float | None]:
    """Return the revisit errors of one clip by a perceptual network, in its unit.

    Args:
        generated: As for `revisit_psnr`.
        truth: As for `revisit_psnr`.
        pairs: As for `revisit_psnr`.
        distance: Perceptual distance between (N, 3, H, W) sets, (N,).

    Returns:
        `closing_distance`, `self_distance`, `truth_distance`, `late_distance`: as by PSNR.
    """
    earlier, later = pairs.unbind(1)
    first, last = _ends(generated)
    late = _late(len(generated))
    return {
        "closing_distance": _mean(distance(last, first)),
        "self_distance": _mean(distance(generated[later], generated[earlier])),
        "truth_distance": _mean(distance(generated[later], truth[later])),
        "late_distance": _mean(distance(generated[late], truth[late])),
    }


def _visits(pairs: Tensor, context: int) -> tuple[Tensor, Tensor]:
    earlier, later = pairs.unbind(1)
    if not len(pairs) or int(later.min()) < context:
        raise ValueError(f"need frames after the {context} context frames that revisit a pose")
    return earlier, later


def _ends(frames: Tensor) -> tuple[Tensor, Tensor]:
    return frames[:1], frames[-1:]


def _late(length: int) -> slice:
    return slice(length - max(length // LATE_FRACTION, 1), length)


def _forgetting(to_truth: Tensor, pairs: Tensor, context: int) -> float | None:
    # A context frame is the truth: its lead would measure the model, not what it forgot.
    invented = pairs[pairs[:, 0] >= context]
    if not len(invented):
        return None
    return _mean(to_truth[invented[:, 0]] - to_truth[invented[:, 1]])


def _mean(values: Tensor) -> float:
    return float(values.double().mean())
