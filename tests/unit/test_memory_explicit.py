"""Explicit memory: fixed size, faithful maps, exact zeros."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from geomem.geometry.points import camera_directions
from geomem.memory.explicit import ExplicitMemory
from geomem.memory.registry import KINDS, Seen

SIZE = 32
INTRINSICS = torch.tensor([0.9, 0.9, 0.5, 0.5])


def room_camera(degrees: float, x: float = 0.0) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pose = torch.tensor([[c, 0, -s, -c * x], [0, 1, 0, 0], [s, 0, c, -s * x]])
    return torch.cat([INTRINSICS, pose.flatten()])


def render_box(cameras: Tensor) -> tuple[Tensor, Tensor]:
    """Render the inside of the cube [-2, 2]^3 with smooth colours: images and exact z-depth."""
    pose = cameras[:, 4:].unflatten(-1, (3, 4))
    rotation = pose[..., :3]
    centre = -(rotation.mT @ pose[..., 3:])[..., 0][:, None, None]
    direction = camera_directions(cameras[:, :4], SIZE, SIZE) @ rotation[:, None]
    depth = ((2 * direction.sign() - centre) / direction).amin(dim=-1)
    point = centre + direction * depth[..., None]
    colour = 0.5 + 0.5 * torch.sin(2.5 * point + torch.tensor([0.0, 1.0, 2.0]))
    return colour.permute(0, 3, 1, 2), depth


def build(cameras: Tensor, *, repeats: int = 1, **changes: Any) -> ExplicitMemory:
    frames, depth = render_box(cameras)
    ramp = torch.linspace(-1, 1, 4 * 8 * 8).view(1, 4, 8, 8).expand(len(cameras), -1, -1, -1)
    parts = {
        "frames": frames, "cameras": cameras, "depth": depth, "confidence": torch.ones_like(depth),
        "features": ramp,
    }  # fmt: skip
    seen = Seen(**{name: torch.cat([part] * repeats) for name, part in parts.items()})
    settings = {"budget": 8192, "voxel_size": 0.01, "confidence_quantile": 0.0} | changes
    return ExplicitMemory.build(seen, **settings)


def psnr(a: Tensor, b: Tensor) -> float:
    return -10 * math.log10(max((a - b).square().mean().item(), 1e-12))


AROUND = torch.stack([room_camera(a) for a in (0, 90, 180, 270)])


def test_own_camera_reproduces_frame_features_and_depth() -> None:
    camera = room_camera(20, 0.3)[None]
    frames, depth = render_box(camera)
    maps = build(camera).read(camera, SIZE)
    assert {name: tuple(x.shape) for name, x in maps.items()} == {
        name: (1, width, SIZE, SIZE) for name, width in KINDS["explicit"].channels(4).items()
    }
    assert (maps["coverage"] == 1).all()
    assert psnr((maps["rgb"] + 1) / 2, frames) > 45
    torch.testing.assert_close(1 / maps["inverse_depth"][:, 0], depth, rtol=0.02, atol=0)
    assert maps["features"][0, 0, 0, 0] == pytest.approx(-1, abs=0.1)
    assert maps["features"][0, 3, -1, -1] == pytest.approx(1, abs=0.1)


def test_new_views_match_the_truth_where_covered() -> None:
    views = torch.stack([room_camera(a, x) for a, x in ((10, 0.3), (100, -0.3), (200, 0.2))])
    truth, _ = render_box(views)
    ring = torch.stack([room_camera(a) for a in range(0, 360, 45)])
    maps = build(ring).read(views, SIZE)
    covered = (maps["coverage"] > 0).expand_as(truth)
    assert covered.float().mean() > 0.95
    assert psnr(((maps["rgb"] + 1) / 2)[covered], truth[covered]) > 28


def test_one_frame_and_four_give_different_maps() -> None:
    one, four = build(AROUND[:1]), build(AROUND)
    views = torch.stack([room_camera(0), room_camera(90)])
    maps_one, maps_four = one.read(views, SIZE), four.read(views, SIZE)
    assert {k: x.shape for k, x in maps_one.items()} == {k: x.shape for k, x in maps_four.items()}
    assert maps_one["coverage"][1].sum() == 0
    assert maps_four["coverage"][1].mean() > 0.95


def test_uncovered_is_exactly_zero_in_every_channel() -> None:
    maps = build(AROUND[:1]).read(torch.stack([room_camera(40), room_camera(180)]), SIZE)
    covered = maps["coverage"] > 0
    assert 0.1 < covered[0].float().mean() < 0.9
    assert all((x * ~covered == 0).all() for x in maps.values())
    assert (maps["inverse_depth"][covered] > 0).all()


def test_size_is_fixed_while_the_scene_does_not_grow() -> None:
    once = build(AROUND, budget=1000)
    again = build(AROUND, budget=1000, repeats=5)
    assert 200 < len(once.points) <= 1000
    assert len(again.points) == len(once.points)
    torch.testing.assert_close(again.values, once.values, rtol=1e-3, atol=1e-3)


def test_merged_maps_stay_without_holes() -> None:
    # 4096 points merged into few: footprints must have grown with the voxels.
    memory = build(AROUND, budget=600)
    assert len(memory.points) <= 600
    assert memory.read(AROUND, SIZE)["coverage"].mean() > 0.98


def test_least_confident_and_missing_depths_are_cut() -> None:
    camera = room_camera(0)[None]
    frames, depth = render_box(camera)
    confidence = torch.ones_like(depth)
    confidence[:, :8] = 0.1  # a quarter
    depth[:, -4:] = torch.inf
    seen = Seen(
        frames=frames, cameras=camera, depth=depth, confidence=confidence,
        features=torch.zeros(1, 0, 2, 2),
    )  # fmt: skip
    memory = ExplicitMemory.build(seen, budget=8192, voxel_size=1e-4, confidence_quantile=0.3)
    coverage = memory.read(camera, SIZE)["coverage"][0, 0]
    assert not coverage[:7].any()
    assert coverage[9:-5].all()
    assert not coverage[-3:].any()


def test_memory_of_nothing_reads_zeros() -> None:
    depth = torch.zeros(0, SIZE, SIZE)
    seen = Seen(
        frames=torch.zeros(0, 3, SIZE, SIZE), cameras=torch.zeros(0, 16), depth=depth,
        confidence=depth, features=torch.zeros(0, 4, 2, 2),
    )  # fmt: skip
    built = ExplicitMemory.build(seen, budget=8, voxel_size=0.1, confidence_quantile=0.1)
    for memory in (built, KINDS["explicit"].empty(4)):
        maps = memory.read(AROUND, 16)
        assert {name: x.shape[1] for name, x in maps.items()} == KINDS["explicit"].channels(4)
        assert all(torch.equal(x, torch.zeros(4, x.shape[1], 16, 16)) for x in maps.values())


def test_sizes_that_differ_are_refused() -> None:
    frames, depth = render_box(AROUND[:1])
    seen = Seen(
        frames=frames, cameras=AROUND[:1], depth=depth[:, ::2], confidence=depth, features=frames
    )
    with pytest.raises(ValueError, match="differ in size"):
        ExplicitMemory.build(seen, budget=8, voxel_size=0.1, confidence_quantile=0.1)
    with pytest.raises(ValueError, match="quantile"):
        build(AROUND[:1], confidence_quantile=1.0)
