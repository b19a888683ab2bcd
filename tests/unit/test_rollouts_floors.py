"""What needs no model: repeated frames, mean colours, and the memory's own rendering."""

from typing import Any

import pytest
import torch
from test_rollouts_memory import CHANNELS, FRAMES, SETTINGS, SIZE, cameras, reader, video
from torch import Tensor

from geomem.rollouts.floors import fill_floor
from geomem.rollouts.generate import Clips, MemoryReader

__all__ = ["reader"]


def clips_of(given: list[int]) -> Clips:
    made = video(given)[None]
    depth = torch.full((1, FRAMES, SIZE, SIZE), torch.inf)
    depth[:, :, :, SIZE // 2 :] = 2.0
    return Clips(ids=["a"], video=made, cameras=cameras()[:1].expand(1, FRAMES, 16), depth=depth)


def of_points(reader: MemoryReader, **changes: Any) -> MemoryReader:
    settings = {
        **SETTINGS, "geometry": "truth", "voxel_size": 1e-3, "budget": 4096,
        "scale_from": "cameras", "scale_prior_weight": 0.01, "confidence_quantile": 0.0, **changes,
    }  # fmt: skip
    return MemoryReader(teacher=reader.teacher, basis=reader.basis, settings=settings)


def filled(
    floor: str, given: list[int], memory: MemoryReader | None = None
) -> tuple[Clips, Tensor]:
    clips = clips_of(given)
    before = clips.video.clone()
    fill_floor(clips, floor, context=len(given), memory=memory)
    assert clips.video[:, : len(given)].equal(before[:, : len(given)])
    assert clips.video.isfinite().all()
    return clips, before


def test_the_last_given_frame_is_repeated() -> None:
    clips, before = filled("repeat", [0, 1])
    assert all(clips.video[0, frame].equal(before[0, 1]) for frame in range(2, FRAMES))
    assert clips.coverage.isnan().all()


def test_the_mean_colour_is_that_of_the_given_frames() -> None:
    clips, before = filled("mean_colour", [0, 1])
    expected = before[0, :2].mean((0, 2, 3))
    for frame in range(2, FRAMES):
        torch.testing.assert_close(clips.video[0, frame].mean((1, 2)), expected)
        assert clips.video[0, frame].flatten(1).std(1).max() < 1e-6


def test_a_splat_is_the_given_frame_where_its_geometry_is_known_and_flat_elsewhere(
    reader: MemoryReader,
) -> None:
    clips, before = filled("splat", [0], of_points(reader, frames=1))
    half = SIZE // 2
    # every camera is the given one, whose right half alone has depth
    torch.testing.assert_close(
        clips.video[0, 1:, ..., half:], before[0, :1, ..., half:].expand(FRAMES - 1, -1, -1, -1),
        atol=1e-4, rtol=0,
    )  # fmt: skip
    flat = before[0, 0].mean((1, 2))[None, :, None, None].expand(FRAMES - 1, -1, SIZE, half)
    torch.testing.assert_close(clips.video[0, 1:, ..., :half], flat)
    assert clips.coverage[0, 0].isnan() and clips.coverage[0, 1:].tolist() == [0.5] * (FRAMES - 1)


def test_unknown_floors_and_a_splat_without_a_memory_are_refused() -> None:
    with pytest.raises(ValueError, match="'copy'"):
        fill_floor(clips_of([0]), "copy", context=1, memory=None)
    with pytest.raises(ValueError, match="needs a memory"):
        fill_floor(clips_of([0]), "splat", context=1, memory=None)


def test_an_empty_memory_gives_maps_of_zeros(reader: MemoryReader) -> None:
    empty = of_points(reader, frames=0)
    built = empty.build(video([0]), cameras(), [0], [1, 2], None)
    maps = built.render(cameras()[:3], SIZE)
    assert maps.shape == (3, 3 + CHANNELS + 2, SIZE, SIZE) and not maps.any()
