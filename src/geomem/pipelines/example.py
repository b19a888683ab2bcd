"""A clip to try a pipeline on: a rendered room of the kind that the tracked weights know."""

import torch
from einops import rearrange
from torch import Tensor

from geomem.sources.embedded import FIRST_SCENE, cast_rays, rooms
from geomem.sources.kinds.rooms import Trajectory, WorldOptions, WorldSettings
from geomem.sources.registry import ClipsOfSplit


def example_clip(
    trajectory: Trajectory = "out_and_back", *, scene: int = 0, frames: int = 32
) -> tuple[Tensor, Tensor]:
    """Return the true frames (T, 3, 32, 32) in [0, 1] and the cameras (T, 16) of a held-out room.

    They are those of the split that tests this trajectory at the scale `tiny`.

    Args:
        trajectory: Way of the camera.
        scene: Number of the room.
        frames: T.
    """
    split = ClipsOfSplit(
        name="example",
        role="test",
        clips=1,
        frames=frames,
        shards=1,
        resolution=32,
        supersample=2,
        settings=WorldSettings(source="rooms_plain"),
        options=WorldOptions(trajectories={trajectory: 1}, stride=2),
        version=1,
    )
    film = cast_rays(split, rooms("rooms_plain"))
    cameras, rgb, _ = film(FIRST_SCENE[split.role] + scene, trajectory)
    return rearrange(rgb, "t h w c -> t c h w").to(torch.float32) / 255, cameras
