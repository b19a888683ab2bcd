"""Floors: what no diffusion model is needed for (METHOD 9). They stand beside every method.

Shape suffixes: B clips, T frames of a clip, S pixels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geomem.rollouts.generate import Clips, MemoryReader


def fill_floor(clips: Clips, floor: str, *, context: int, memory: MemoryReader | None) -> None:
    """Fill the frames of `clips.video` after the first `context` ones in place.

    Args:
        clips: The clips; only their first `context` frames are read.
        floor: `repeat`: the last given frame again. `mean_colour`: the mean colour of the given
            frames, one flat picture. `splat`: the memory of the given frames seen by each camera,
            its holes filled with that mean colour.
        context: Number of given frames.
        memory: Reads the given frames; for `splat`.

    Raises:
        ValueError: If the floor is unknown, or a splat comes without a memory.
    """
    floors: dict[str, Callable[..., Any]] = {
        "repeat": _repeat,
        "mean_colour": _mean_colour,
        "splat": _splat,
    }
    if floor not in floors:
        raise ValueError(f"floor {floor!r} is not one of {sorted(floors)}")
    floors[floor](clips, context, memory)


def _repeat(clips: Clips, context: int, memory: MemoryReader | None) -> None:
    clips.video[:, context:] = clips.video[:, context - 1 : context]


def _mean_colour(clips: Clips, context: int, memory: MemoryReader | None) -> None:
    clips.video[:, context:] = mean_colour(clips.video[:, :context])


def mean_colour(given_BT3SS: Tensor) -> Tensor:
    """Return the mean colour of each clip's frames, (B, 1, 3, 1, 1)."""
    return given_BT3SS.mean(dim=(1, 3, 4), keepdim=True)


def _splat(clips: Clips, context: int, memory: MemoryReader | None) -> None:
    if memory is None:
        raise ValueError("the floor `splat` needs a memory")
    colours = mean_colour(clips.video[:, :context])
    length, size = clips.video.shape[1], clips.video.shape[-1]
    given, missing = list(range(context)), list(range(context, length))
    for clip, colour in enumerate(colours):
        depth = None if clips.depth is None else clips.depth[clip]
        built = memory.build(clips.video[clip], clips.cameras[clip], given, missing, depth)
        maps = built.render(clips.cameras[clip, missing], size)
        coverage = maps[:, -2:-1]
        clips.video[clip, missing] = torch.where(coverage > 0, maps[:, :3], colour)
        clips.coverage[clip, missing] = coverage.mean((1, 2, 3))
