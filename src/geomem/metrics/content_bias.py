"""The content-bias test: does a distance between sets of videos see time, or frames alone?

After Ge et al. (2024, arXiv 2404.12391): frames are damaged equally, once in a way that keeps time
(one warp for a whole clip) and once in a way that breaks it (another warp for every frame). A
distance of videos has to grow when time breaks; one that does not is a distance of frames.
Legend: C clips, T frames, H, W pixels, K control points along a side.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.errors import InputError
from geomem.metrics.damages import BROKEN, CLEAN, FROZEN, KEPT, SHUFFLED, of_strength
from geomem.metrics.distances import Features, kernel_distance
from geomem.metrics.frames import unit_frames
from geomem.statistics import pseudovalues, set_interval

CONTROL_POINTS = 5
# Two halves have to be compared, each of at least two clips.
FEWEST_CLIPS = 4
# By how much the damage of two ways may differ, in units of the smaller.
TOLERANCE = 0.05


class DamagedClips:
    """Clips and their damaged versions, the same at every call.

    Both ways warp frames from one stock, a warp for each clip: where time is kept all frames of a
    clip have its own; where it is broken the warps are dealt out anew at every frame. So each warp
    serves as often in both, and damage per frame is equal but for what it meets.
    """

    def __init__(self, clips: Sequence[Tensor], strengths: Sequence[float], *, seed: int) -> None:
        """Draw the warps.

        Args:
            clips: Stored frames, uint8 (T, H, W, 3) each, of one shape.
            strengths: Root-mean-square displacements, in heights of a frame.
            seed: Of all that is drawn.

        Raises:
            InputError: On fewer than four clips, or clips of one frame.
        """
        if len(clips) < FEWEST_CLIPS or len(clips[0]) < 2:
            raise InputError(
                f"the content-bias test needs {FEWEST_CLIPS} clips of 2 frames, got "
                f"{len(clips)} of {len(clips[0]) if clips else 0}"
            )
        self.clips, self.strengths = clips, strengths
        frames, height, width, _ = clips[0].shape
        generator = np.random.default_rng(seed)
        points = generator.standard_normal((len(clips), 2, CONTROL_POINTS, CONTROL_POINTS))
        # of strength 1: displacements of a height
        self.warps = height * smooth_warps(torch.from_numpy(points).float(), height, width)
        dealt = [generator.permutation(len(clips)) for _ in range(frames)]
        self.dealt = torch.from_numpy(np.stack(dealt, axis=1))  # (C, T)
        self.orders = [torch.from_numpy(_another_order(frames, generator)) for _ in clips]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def names(self) -> list[str]:
        """The versions."""
        ways = [of_strength(way, s) for s in self.strengths for way in (KEPT, BROKEN)]
        return [CLEAN, *ways, SHUFFLED, FROZEN]

    def versions(self, clip: int) -> dict[str, Tensor]:
        """Return a clip and its damaged versions (T, 3, H, W) in [0, 1], by name."""
        frames = unit_frames(self.clips[clip])
        made = {CLEAN: frames, SHUFFLED: frames[self.orders[clip]]}
        made[FROZEN] = frames[:1].expand_as(frames)
        own = self.warps[[clip]].expand(len(frames), -1, -1, -1)
        dealt = self.warps[self.dealt[clip]]
        for strength in self.strengths:
            made[of_strength(KEPT, strength)] = warped(frames, strength * own)
            made[of_strength(BROKEN, strength)] = warped(frames, strength * dealt)
        return made


def content_bias(
    features: Callable[[Tensor], Tensor],
    clips: DamagedClips,
    *,
    seed: int,
    resamples: int,
    progress: Callable[..., Any] = iter,
) -> dict[str, Any]:
    """Return kernel distances of damaged clips to clean ones, and whether the features see time.

    Args:
        features: Of videos (B, T, 3, H, W) in [0, 1], (B, S, D) on the CPU.
        clips: What they are tried on.
        seed: Of the intervals' resamples.
        resamples: Number of them.
        progress: Wraps the iteration over clips.

    Returns:
        `distances` by version (`clean`: between the two halves of the clean clips), and `growth` by
        strength, from kept to broken time; each with `value`, `low` and `high`, of the jackknife
        over clips. `passes`: whether every growth lies above zero.
    """
    found: dict[str, list[Tensor]] = {name: [] for name in clips.names}
    for clip in progress(range(len(clips))):
        for name, video in clips.versions(clip).items():
            found[name].append(features(video[None])[0])
    made = {name: torch.stack(parts).numpy() for name, parts in found.items()}
    clean, half = made.pop(CLEAN), len(clips) // 2
    measured = {CLEAN: _distance(clean[:half], clean[half : 2 * half])}
    measured |= {name: _distance(clean, damaged) for name, damaged in made.items()}
    growth = {
        f"{strength:g}": measured[of_strength(BROKEN, strength)]
        - measured[of_strength(KEPT, strength)]
        for strength in clips.strengths
    }
    interval = partial(_interval, seed=seed, resamples=resamples)
    shown = {name: interval(one) for name, one in growth.items()}
    return {
        "distances": {name: interval(one) for name, one in measured.items()},
        "growth": shown,
        "passes": all(one["low"] > 0 for one in shown.values()),
    }


def damage_per_frame(
    clips: DamagedClips, *, progress: Callable[..., Any] = iter
) -> dict[str, float]:
    """Return by version the mean absolute change of a frame's values, which lie in [0, 1].

    Args:
        clips: What is damaged.
        progress: Wraps the iteration over clips.

    Raises:
        InputError: If the two ways of a strength differ by more than the tolerance.
    """
    total = dict.fromkeys(clips.names, 0.0)
    for clip in progress(range(len(clips))):
        versions = clips.versions(clip)
        for name, video in versions.items():
            total[name] += float((video - versions[CLEAN]).abs().mean())
    damage = {name: value / len(clips) for name, value in total.items()}
    for strength in clips.strengths:
        low, high = sorted(damage[of_strength(way, strength)] for way in (KEPT, BROKEN))
        if high - low > TOLERANCE * low:
            raise InputError(
                f"content_bias: warps of strength {strength:g} damage frames by {low:.4f} and "
                f"{high:.4f}, which is not equal within {TOLERANCE:.0%}: use more clips than "
                f"{len(clips)}"
            )
    return damage


def smooth_warps(points: Tensor, height: int, width: int) -> Tensor:
    """Return displacements (C, 2, H, W), root mean square 1, through control points (C, 2, K, K).

    Each holds shift, stretch and bend at random; channels are x and y.
    """
    fields = F.interpolate(points, size=(height, width), mode="bicubic", align_corners=True)
    # each of one size, so that no way to damage gets the milder warps
    return fields / fields.square().sum(1).mean((1, 2)).sqrt()[:, None, None, None]


def warped(frames: Tensor, displacements: Tensor) -> Tensor:
    """Return frames (T, 3, H, W) as seen through displacements (T, 2, H, W) in pixels."""
    height, width = frames.shape[-2:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([columns, rows]) + displacements + 0.5
    # grid_sample counts from -1 at one border to 1 at the other
    grid = (2 * places.movedim(1, -1) / torch.tensor([width, height]) - 1).to(frames)
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def _another_order(frames: int, generator: np.random.Generator) -> np.ndarray:
    """Return a random order (T,) that is not the one there is."""
    while True:
        order = generator.permutation(frames)
        if (order != np.arange(frames)).any():
            return order


@dataclass(frozen=True)
class _Measured:
    """A distance, or a difference of two, with its pseudovalues (C,)."""

    value: float
    pseudo: np.ndarray

    def __sub__(self, other: "_Measured") -> "_Measured":
        return _Measured(self.value - other.value, self.pseudo - other.pseudo)


def _distance(real: Features, damaged: Features) -> _Measured:
    return _Measured(kernel_distance(real, damaged), pseudovalues(real, damaged, kernel_distance))


def _interval(measured: _Measured, *, seed: int, resamples: int) -> dict[str, float]:
    values, pseudo = np.array([measured.value]), measured.pseudo[None]
    found = set_interval(values, pseudo, seed=seed, resamples=resamples)
    return {"value": found.value, "low": found.low, "high": found.high}
