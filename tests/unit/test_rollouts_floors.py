"""What needs no model: repeated frames, mean colours, and the memory's own rendering."""

from pathlib import Path

import pytest
import torch
from test_rollouts_memory import CHANNELS, FRAMES, SIZE, cameras, live, reconstructor, video
from torch import Tensor

from conftest import edit_yaml
from geomem.config import load_config
from geomem.errors import InputError
from geomem.memory.live import LiveMemory, Reconstructor
from geomem.memory.registry import KINDS
from geomem.methods.clips import Clips, Sampling
from geomem.methods.registry import METHODS

__all__ = ["reconstructor"]


def clips_of(given: list[int], memory: LiveMemory | None = None) -> Clips:
    depth = torch.full((1, FRAMES, SIZE, SIZE), torch.inf)
    depth[:, :, :, SIZE // 2 :] = 2.0
    return Clips(
        ids=["a"], video=video(given)[None], cameras=cameras()[:1].expand(1, FRAMES, 16),
        memory=memory, depth=depth,
    )  # fmt: skip


def of_points(reconstructor: Reconstructor | None, frames: int) -> LiveMemory:
    return live(
        reconstructor, "explicit", frames=frames, truth=True,
        voxel_size=1e-3, budget=4096, confidence_quantile=0.0,
    )  # fmt: skip


def filled(floor: str, given: list[int], memory: LiveMemory | None = None) -> tuple[Clips, Tensor]:
    clips, method = clips_of(given, memory), METHODS[floor]
    before = clips.video.clone()
    assert not method.trained
    made = method.load(method.Settings(), None, memory=None, device=torch.device("cpu"))
    made.generate(clips, Sampling(context=len(given)), progress=lambda stages, **_: stages)
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
    reconstructor: Reconstructor,
) -> None:
    clips, before = filled("splat", [0], of_points(reconstructor, frames=1))
    half = SIZE // 2
    # every camera is the given one, whose right half alone has depth
    torch.testing.assert_close(
        clips.video[0, 1:, ..., half:], before[0, :1, ..., half:].expand(FRAMES - 1, -1, -1, -1),
        atol=1e-4, rtol=0,
    )  # fmt: skip
    flat = before[0, 0].mean((1, 2))[None, :, None, None].expand(FRAMES - 1, -1, SIZE, half)
    torch.testing.assert_close(clips.video[0, 1:, ..., :half], flat)
    assert clips.coverage[0, 0].isnan() and clips.coverage[0, 1:].tolist() == [0.5] * (FRAMES - 1)


def test_unknown_floors_and_a_splat_without_a_memory_are_refused(project: Path) -> None:
    with pytest.raises(ValueError, match="'copy'"):
        METHODS["copy"]
    experiments = project / "config/experiments.yaml"
    edit_yaml(experiments, variants__splat={"method": "splat"})
    with pytest.raises(InputError, match=r"splat.*memory"):
        load_config(project)


def test_an_empty_memory_gives_maps_of_zeros() -> None:
    memory = of_points(None, frames=0)
    maps = memory.read(video([0]), cameras(), [0], [0, 1, 2], None)
    widths = KINDS["explicit"].channels(CHANNELS)
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        name: (3, width, SIZE, SIZE) for name, width in widths.items()
    }
    assert not any(x.any() for x in maps.values())
