"""Sets of frames of several clips as tensors.

Shape suffixes: B sets, K frames of a set, S pixels.
"""

import numpy as np
import torch
from torch import Tensor

from geomem.formats.clips import ClipStore


def read_sets(
    store: ClipStore, sets: list[tuple[int, list[int]]], *, depth: bool = True
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Read sets of frames of equal length: images (B, K, 3, S, S) in [0, 1], cameras, depth."""
    rgb = np.stack([store.rgb(clip, frames) for clip, frames in sets])
    cameras = torch.from_numpy(np.stack([store.cameras(clip, frames) for clip, frames in sets]))
    images = torch.from_numpy(rgb).permute(0, 1, 4, 2, 3).float() / 255
    distances = None
    if depth:
        distances = torch.from_numpy(np.stack([store.depth(c, frames) for c, frames in sets]))
    return images, cameras, distances
