"""Sets of frames that show one scene, and sets into which something else was mixed.

A frame's label is the share of its pixels that show the first frame's scene as its camera would.
Legend: K frames, S side of a frame in pixels. Frames are float in [0, 1], (K, 3, S, S).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from geomem.geometry.warp import share_seen

# A repeated frame is wrong where its camera sees less of the first view than this: by pixels of a
# view that has hardly moved nobody could tell.
REPEATED_SEES = 0.8
LEAST_PATCH = 4  # a patch's side is at least one over this of the frame's


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A set of frames.

    Attributes:
        kind: How it was made.
        spliced: How many of its frames are not, or not all, of the first one's scene.
        images: (K, 3, S, S).
        labels: (K - 1,) of all frames but the first, in [0, 1]; NaN where it cannot be said.
    """

    kind: str
    spliced: int
    images: Tensor
    labels: Tensor


def mixtures(
    images: Tensor,
    depth: Tensor,
    cameras: Tensor,
    *,
    other: Callable[[], Tensor],
    generator: np.random.Generator,
) -> Iterator[Mixture]:
    """Yield a clip's frames as they are and mixed with others; their cameras stay.

    `true`; `spliced`, with 1 to K - 1 frames of one other scene, at places drawn anew; `several`,
    frames each of another scene; `cut`, the last frames of another scene; `noise`, uniform;
    `repeated`, the first frame throughout; `patches`, rectangles of another scene.

    Args:
        images: Of one scene (K, 3, S, S).
        depth: True planar depth (K, S, S).
        cameras: (K, 16).
        other: Gives frames (K, 3, S, S) of some other scene, drawn anew at each call.
        generator: Of all draws.
    """
    frames = len(images)

    def mixed(kind: str, chosen: np.ndarray, put: Callable[[int], Tensor]) -> Mixture:
        made, labels = images.clone(), torch.ones(frames, dtype=torch.float64)
        for number in chosen.tolist():
            made[number], labels[number] = put(number), 0.0
        return Mixture(kind=kind, spliced=len(chosen), images=made, labels=labels[1:])

    def some(least: int = 1) -> np.ndarray:
        count = int(generator.integers(least, frames))
        return 1 + generator.choice(frames - 1, count, replace=False)

    yield mixed("true", np.array([], dtype=int), images.__getitem__)
    for count in range(1, frames):
        stranger = other()
        chosen = 1 + generator.choice(frames - 1, count, replace=False)
        yield mixed("spliced", chosen, stranger.__getitem__)
    yield mixed("several", some(2), lambda number: other()[number])
    yield mixed("cut", np.arange(int(generator.integers(1, frames)), frames), other().__getitem__)
    shape = images.shape[1:]
    yield mixed("noise", some(), lambda _: torch.from_numpy(generator.random(shape)).to(images))
    yield _repeated(images, depth, cameras)
    yield _patched(images, other(), some(), generator)


def _repeated(images: Tensor, depth: Tensor, cameras: Tensor) -> Mixture:
    seen = share_seen(depth[1:], cameras[1:], depth[:1], cameras[:1])
    labels = torch.full_like(seen, torch.nan).masked_fill(seen < REPEATED_SEES, 0.0)
    return Mixture(
        kind="repeated",
        spliced=len(images) - 1,
        images=images[:1].expand_as(images),
        labels=labels,
    )


def _patched(
    images: Tensor, other: Tensor, chosen: np.ndarray, generator: np.random.Generator
) -> Mixture:
    made, labels = images.clone(), torch.ones(len(images), dtype=torch.float64)
    side = images.shape[-1]
    for number in chosen.tolist():
        height, width = generator.integers(side // LEAST_PATCH, side, 2).tolist()
        top, left = (int(generator.integers(0, side - size + 1)) for size in (height, width))
        place = (number, slice(None), slice(top, top + height), slice(left, left + width))
        made[place] = other[place]
        labels[number] = 1 - height * width / side**2
    return Mixture(kind="patches", spliced=len(chosen), images=made, labels=labels[1:])
