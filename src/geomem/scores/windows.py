"""The windows on which features are analysed, with the truth of each.

Shape suffixes: B windows, T frames, N patches, P pairs of the first frame with a later one, S
pixels of the teacher's image, C tokens' width.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.formats import ClipStore, read_frames
from geomem.geometry.points import resize_nearest
from geomem.probes.targets import (
    correspondences,
    pair_poses,
    patch_log_depth,
    pose_numbers,
)
from geomem.settings.jobs import AnalysisJob

HELD_SHARE = 4  # one part in so many of the fitting windows chooses the ridge


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Windows of equal length.

    Attributes:
        ids: Clip id of each.
        images: (B, T, 3, H, H) in [0, 1], at the clips' own size.
        cameras: (B, T, 16).
        depth: (B, T, S, S) planar z, metres; infinite where there is no surface.
    """

    ids: list[str]
    images: Tensor
    cameras: Tensor
    depth: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return it on a device."""
        moved = (x.to(device) for x in (self.images, self.cameras, self.depth))
        images, cameras, depth = moved
        return Batch(ids=self.ids, images=images, cameras=cameras, depth=depth)


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is probed for; `known` and `visible` say where (bool).

    Attributes:
        log_depth: (B, T, N).
        known: (B, T, N).
        poses: Relative poses (B, P, 3, 4).
        pose_numbers: What is regressed for them (B, P, 7).
        places: Where the first frame's patches are seen in later ones, (u, v) (B, P, N, 2).
        patches: Patches that hold those places (B, P, N).
        visible: (B, P, N).
    """

    log_depth: Tensor
    known: Tensor
    poses: Tensor
    pose_numbers: Tensor
    places: Tensor
    patches: Tensor
    visible: Tensor


def draw_windows(
    store: ClipStore, count: int, *, frames: int, stride: int, seed: int
) -> list[tuple[int, list[int]]]:
    """Draw one window from each of the first `count` clips: clip and frame numbers."""
    reach = 1 + (frames - 1) * stride
    starts = np.random.default_rng(seed).integers(0, store.frames_per_clip - reach + 1, count)
    return [(c, list(range(s, s + reach, stride))) for c, s in enumerate(starts.tolist())]


def read_batches(
    store: ClipStore, windows: Sequence[tuple[int, list[int]]], *, batch: int, size: int
) -> Iterator[Batch]:
    """Read windows, a batch at a time; depths at S = `size`."""
    for start in range(0, len(windows), batch):
        some = windows[start : start + batch]
        read = [read_frames(store, c, tuple(f), flip=False, depth=True) for c, f in some]
        rgb = torch.from_numpy(np.stack([frames.rgb for frames in read]))
        depth = torch.from_numpy(np.stack([np.asarray(frames.depth) for frames in read]))
        yield Batch(
            ids=[store.clips[clip].clip_id for clip, _ in some],
            images=rgb.permute(0, 1, 4, 2, 3).float() / 255,
            cameras=torch.from_numpy(np.stack([frames.cameras for frames in read])),
            depth=resize_nearest(depth, size),
        )


def truth_of(batch: Batch, patch: int) -> Truth:
    """Return the truth of windows on patches of `patch` pixels of the teacher's image."""
    log_depth, known = patch_log_depth(batch.depth, patch)
    pairs = zip(batch.depth, batch.cameras, strict=True)
    found = [correspondences(depth, cameras, patch) for depth, cameras in pairs]
    places, patches, visible = (torch.stack(part) for part in zip(*found, strict=True))
    poses = pair_poses(batch.cameras)
    return Truth(
        log_depth=log_depth,
        known=known,
        poses=poses,
        pose_numbers=pose_numbers(poses),
        places=places,
        patches=patches,
        visible=visible,
    )


def noise_of(ids: Sequence[str], shape: Sequence[int], seed: int) -> Tensor:
    """Return the noise (B, *shape) of windows, the same in every batch."""
    numbers = [
        int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:8], "big") >> 1
        for name in ids
    ]
    drawn: list[Any] = [
        torch.randn(*shape, generator=torch.Generator().manual_seed(number)) for number in numbers
    ]
    return torch.stack(drawn)


class AnalysisWindows:
    """The fitting, held and test windows of two splits, read again as often as needed."""

    def __init__(
        self,
        fit: Path,
        test: Path,
        settings: AnalysisJob,
        *,
        device: torch.device,
        progress: Callable[..., Any],
    ) -> None:
        """Open the clips.

        Args:
            fit: Directory of the split that probes are fitted on.
            test: Directory of the split that they are measured on.
            settings: Of the job.
            device: Where the windows are read to.
            progress: Wraps the iteration over batches.

        Raises:
            InputError: If clips have no depth or the splits share a scene.
        """
        self.stores = {"fit": ClipStore(fit), "test": ClipStore(test)}
        shared = {c.scene for c in self.stores["fit"].clips} & {
            c.scene for c in self.stores["test"].clips
        }
        if shared:
            raise InputError(f"{fit} and {test} share {len(shared)} scenes, so probes could cheat")
        for path, store in zip((fit, test), self.stores.values(), strict=True):
            if not store.has_depth:
                raise InputError(f"{path} has no true depth to probe for")
        self.settings, self.progress, self.device = settings.analysis, progress, device
        self.size = settings.image_size
        self.patch = settings.patch_size
        drawn = self._draw("fit", self.settings.fit_windows, 0)
        last = len(drawn) - len(drawn) // HELD_SHARE
        test_windows = self._draw("test", len(self.stores["test"]), 1)
        self.parts = {"fitted": drawn[:last], "held": drawn[last:], "test": test_windows}

    def _draw(self, store: str, count: int, seed: int) -> list[tuple[int, list[int]]]:
        frames, stride = self.settings.frames, self.settings.stride
        return draw_windows(self.stores[store], count, frames=frames, stride=stride, seed=seed)

    def batches(self, part: str) -> Iterator[Batch]:
        """Read the windows of `fitted`, `held` or `test`."""
        store = self.stores["test" if part == "test" else "fit"]
        size, count = self.size, self.settings.batch
        read = read_batches(store, self.parts[part], batch=count, size=size)
        return (batch.to(self.device) for batch in self.progress(read))

    def probed(
        self, part: str, tokens_of: Callable[[Batch], dict[str, Tensor]]
    ) -> Iterator[tuple[dict[str, Tensor], Truth]]:
        """Return features beside the truth, batch by batch."""
        return ((tokens_of(b), truth_of(b, self.patch)) for b in self.batches(part))

    @property
    def shown(self) -> str:
        """The test clip whose clouds are drawn."""
        return self.stores["test"].clips[self.settings.shown_clip].clip_id

    def record(self) -> dict[str, Any]:
        """Return what the numbers are about."""
        return {
            "clips": [self.stores["test"].clips[c].clip_id for c, _ in self.parts["test"]],
            "fit_windows": len(self.parts["fitted"]) + len(self.parts["held"]),
        }
