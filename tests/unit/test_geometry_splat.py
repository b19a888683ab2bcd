"""Splatting against a per-point oracle, and its promises: nearest wins, no growth, no noise."""

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.geometry.cameras import join_cameras
from geomem.geometry.points import pixel_grid, project, unproject
from geomem.geometry.splat import MAX_FOOTPRINT, splat

FRONTAL = torch.tensor([1.0, 1, 0.5, 0.5, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0])


def jittered_cameras(generator: torch.Generator, count: int) -> Tensor:
    angle = 0.4 * torch.randn(count, generator=generator)
    zero, one = torch.zeros(count), torch.ones(count)
    rows = [angle.cos(), zero, angle.sin(), zero, one, zero, -angle.sin(), zero, angle.cos()]
    rotation = torch.stack(rows, dim=-1).view(count, 3, 3)
    translation = 0.3 * torch.randn(count, 3, 1, generator=generator)
    return join_cameras(FRONTAL[:4].expand(count, 4), torch.cat([rotation, translation], dim=-1))


def splat_oracle(
    points: Tensor, features: Tensor, camera: Tensor, size: int, radius: Any, tolerance: float
) -> Any:
    """One camera, plain loops over points and pixels."""
    uv, z = project(points, camera)
    reached: dict[tuple[int, int], list] = {}
    for n in range(len(points)):
        if z[n] <= 1e-3:
            continue
        x, y = (uv[n] * size - 0.5).tolist()
        extent = float(max(camera[0], camera[1]) * size * radius[n] / z[n])
        extent = min(max(extent, 1.0), float(MAX_FOOTPRINT))
        for row in range(size):
            for column in range(size):
                dx, dy = abs(column - x) / extent, abs(row - y) / extent
                if max(dx, dy) <= 0.5:
                    weight = ((1 - dx) * (1 - dy) / extent**2) ** 2
                    reached.setdefault((row, column), []).append((float(z[n]), weight, n))
    known = {}
    for pixel, candidates in reached.items():
        front = min(candidates)[0]
        near = [c for c in candidates if c[0] <= (1 + tolerance) * front]
        total = sum(weight for _, weight, _ in near)
        value = sum(weight * features[n] for _, weight, n in near) / total
        known[pixel] = (value, sum(depth * weight for depth, weight, _ in near) / total)
    return known | close_cracks_oracle(known, size, tolerance)


def close_cracks_oracle(known: Any, size: int, tolerance: float) -> dict[tuple[int, int], Any]:
    closed = {}
    for row in range(size):
        for column in range(size):
            pairs = []
            for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
                one = known.get((row + dy, column + dx))
                other = known.get((row - dy, column - dx))
                if (row, column) in known or one is None or other is None:
                    continue
                if abs(one[1] - other[1]) <= 2 * tolerance * min(one[1], other[1]):
                    pairs.append(((one[0] + other[0]) / 2, (one[1] + other[1]) / 2))
            if pairs:
                values, depths = zip(*pairs, strict=True)
                closed[row, column] = (sum(values) / len(pairs), sum(depths) / len(pairs))
    return closed


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1), count=st.integers(0, 40), tolerance=st.sampled_from([0.02, 0.1])
)
def test_splat_matches_the_naive_oracle(seed: int, count: int, tolerance: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(count, 3, generator=generator) + torch.tensor([0.0, 0.0, 2.5])
    features = torch.randn(count, 2, generator=generator)
    radius = 0.5 * torch.rand(count, generator=generator)
    cameras, size = jittered_cameras(generator, 2), 7
    maps, coverage, depth = splat(
        points, features, cameras, size, radius=radius, tolerance=tolerance
    )
    for view, camera in enumerate(cameras):
        known = splat_oracle(points, features, camera, size, radius, tolerance)
        expected = torch.zeros(4, size, size)
        for (row, column), (value, z) in known.items():
            expected[:, row, column] = torch.tensor([*value.tolist(), 1.0, z])
        actual = torch.cat([maps[view], coverage[view], depth[view]])
        torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3)


def plane(z: float, size: int, *, camera: Tensor = FRONTAL) -> Tensor:
    return unproject(torch.full((1, size, size), z), camera[None]).flatten(0, 2)


def test_the_nearest_surface_wins() -> None:
    points = torch.cat([plane(4.0, 16), plane(2.0, 8)])
    features = torch.cat([torch.zeros(256, 1), torch.ones(64, 1)])
    radius = torch.cat([torch.full((256,), 4 / 16), torch.full((64,), 2 / 8)])
    maps, coverage, depth = splat(points, features, FRONTAL[None], 16, radius=radius)
    assert coverage.all()
    torch.testing.assert_close(maps, torch.ones_like(maps))
    torch.testing.assert_close(depth, torch.full_like(depth, 2.0))


def test_own_camera_gives_the_image_back() -> None:
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    z = 1 + pixel_grid(16, 16)[None, ..., 1]
    points = unproject(z, FRONTAL[None]).flatten(0, 2)
    colours = image[0].flatten(1).T
    maps, coverage, depth = splat(points, colours, FRONTAL[None], 16, radius=z.flatten() / 16)
    assert coverage.all()
    torch.testing.assert_close(maps, image, rtol=0, atol=1e-3)
    torch.testing.assert_close(depth, z[:, None], rtol=1e-3, atol=1e-3)


def test_magnified_plane_has_no_holes_and_does_not_grow() -> None:
    # Seen from 1 m instead of 3 m, the samples lie three pixels apart; half the map is empty.
    points = plane(3.0, 16)
    points = points[points[:, 0] > 0]
    closer = FRONTAL.clone()
    closer[15] = -2.0
    _, coverage, _ = splat(points, points, closer[None], 16, radius=3 / 16)
    assert coverage[..., 9:].all()
    assert not coverage[..., :7].any()


def test_uncovered_is_exactly_zero_and_behind_is_unseen() -> None:
    points = torch.tensor([[0.0, 0.0, 2.0], [0.1, 0.0, -2.0]])
    maps, coverage, depth = splat(points, torch.ones(2, 5), FRONTAL[None], 9, radius=0.0)
    assert coverage.sum() == 1
    assert coverage[0, 0, 4, 4] == 1
    for layer in (maps, depth):
        assert torch.equal(layer * coverage, layer)


def test_cracks_close_but_outlines_stay() -> None:
    # Two samples two pixels apart, and none beside them.
    points = torch.tensor([[-1 / 9, 0.0, 1.0], [1 / 9, 0.0, 1.0]])
    features = torch.tensor([[0.0], [1.0]])
    maps, coverage, _ = splat(points, features, FRONTAL[None], 9, radius=0.1)
    assert coverage[0, 0].nonzero().tolist() == [[4, 3], [4, 4], [4, 5]]
    torch.testing.assert_close(maps[0, 0, 4, 3:6], torch.tensor([0.0, 0.5, 1.0]))
    # The same two at clearly different depths are no crack.
    points[1] *= 2
    assert splat(points, features, FRONTAL[None], 9, radius=0.1)[1].sum() == 2


def test_splat_repeats_bit_for_bit_and_views_are_independent() -> None:
    generator = torch.Generator().manual_seed(3)
    points = torch.randn(2000, 3, generator=generator) + torch.tensor([0.0, 0.0, 3.0])
    features = torch.randn(2000, 4, generator=generator)
    cameras = jittered_cameras(generator, 3)
    first = splat(points, features, cameras, 16, radius=0.05)
    again = splat(points, features, cameras, 16, radius=0.05)
    alone = splat(points, features, cameras[1:2], 16, radius=0.05)
    for a, b, c in zip(first, again, alone, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a[1:2], c, rtol=1e-5, atol=1e-5)
