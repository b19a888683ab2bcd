"""Frames of a clip that see the same place: how well they agree, by how much they share.

A frame is compared with an earlier one that is warped into its view through true depth and given
cameras, over the pixels whose surface both see (covisible ones, exactly). Unlike a comparison of
frames of one pose it needs no exact return, and a frozen clip does not pass it: what it repeats is
not what its cameras would see.
Legend: T frames, P pairs. Frames are float in [0, 1], (T, 3, H, W).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from geomem.geometry.warp import share_seen, warp_frame
from geomem.metrics.bins import BINS, bin_of
from geomem.metrics.frames import psnr_of_error
from geomem.metrics.revisits import Distance


@dataclass(frozen=True, kw_only=True)
class CovisiblePair:
    """Two frames of a clip that see the same place.

    Attributes:
        earlier: Number of the earlier frame.
        later: Number of the later one.
        share: Share of the later one's pixels whose surface the earlier one sees.
    """

    earlier: int
    later: int
    share: float


def covisible_pairs(
    depth: Tensor, cameras: Tensor, *, context: int, gap: int, stride: int
) -> dict[str, list[CovisiblePair]]:
    """Return all pairs of an earlier frame and a later, generated one that share a place, by bin.

    Args:
        depth: True planar depth (T, H, W), infinite where there is no surface.
        cameras: (T, 16).
        context: Number of given frames; they are earlier frames only.
        gap: Smallest difference of the two numbers, so that neighbours do not count.
        stride: Every n-th frame is looked at, counted from the last.

    Returns:
        Pairs by name of `BINS`, by the later frame, then the earlier one.
    """
    cameras = cameras.to(depth)
    shown = range((len(depth) - 1) % stride, len(depth), stride)
    pairs: dict[str, list[CovisiblePair]] = {name: [] for name in BINS}
    for later in shown:
        if later < context:
            continue
        for earlier in shown:
            if later - earlier < gap:
                break
            share = float(
                share_seen(
                    depth[later, None], cameras[later, None], depth[earlier, None],
                    cameras[earlier, None],
                )
            )  # fmt: skip
            name = bin_of(share)
            if name:
                pairs[name].append(CovisiblePair(earlier=earlier, later=later, share=share))
    return pairs


def pair_agreement(
    frames: Tensor,
    depth: Tensor,
    cameras: Tensor,
    pairs: Iterable[CovisiblePair],
    *,
    reference: Tensor | None = None,
) -> float:
    """Return the PSNR of pairs in dB, of the squared error pooled over all covisible pixels.

    Args:
        frames: Of the clip (T, 3, H, W), whose later frames are judged.
        depth: True planar depth (T, H, W).
        cameras: (T, 16).
        pairs: At least one.
        reference: Frames (T, 3, H, W) that the later ones are compared with on the same pixels,
            without a warp; without, the earlier ones of `frames`, warped.
    """
    error, pixels = 0.0, 0
    for pair in pairs:
        seen, covisible = into_later(frames, depth, cameras, pair)
        if reference is not None:
            seen = reference[pair.later]
        off = (frames[pair.later].double() - seen.double()).square().mean(0)
        error += float(off[covisible].sum())
        pixels += int(covisible.sum())
    return float(psnr_of_error(torch.tensor(error / pixels, dtype=torch.float64)))


def pair_distance(
    frames: Tensor,
    depth: Tensor,
    cameras: Tensor,
    pairs: Iterable[CovisiblePair],
    *,
    distance: Distance,
) -> float:
    """Return the mean perceptual distance of pairs, in the network's unit.

    A later frame is compared with itself in which all covisible pixels are those of the warped
    earlier one, so that what only one of them sees adds nothing.

    Args:
        frames: Of the clip (T, 3, H, W).
        depth: True planar depth (T, H, W).
        cameras: (T, 16).
        pairs: At least one.
        distance: Perceptual distance between (N, 3, H, W) sets, (N,).
    """
    made, mixed = [], []
    for pair in pairs:
        warped, covisible = into_later(frames, depth, cameras, pair)
        made.append(frames[pair.later])
        mixed.append(torch.where(covisible, warped, frames[pair.later]))
    return float(distance(torch.stack(made), torch.stack(mixed)).double().mean())


def into_later(
    frames: Tensor, depth: Tensor, cameras: Tensor, pair: CovisiblePair
) -> tuple[Tensor, Tensor]:
    """Return the earlier frame as the later one's camera sees it (3, H, W), and where (H, W)."""
    earlier, later = pair.earlier, pair.later
    return warp_frame(
        frames[earlier], depth[earlier], cameras[earlier], depth[later], cameras[later]
    )
