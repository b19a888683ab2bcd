"""Voxel map: budget, conservation of weight, no growth without new places."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.geometry.voxels import fit_voxel_size, voxel_downsample


def cloud(seed: int, count: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    points = 3 * torch.randn(count, 3, generator=generator)
    features = torch.randn(count, 2, generator=generator)
    return points, features, 0.5 + torch.rand(count, generator=generator)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), count=st.integers(0, 200), budget=st.integers(1, 64))
def test_budget_holds_and_weighted_sums_are_conserved(seed: int, count: int, budget: int) -> None:
    points, features, weights = cloud(seed, count)
    merged = voxel_downsample(points, features, weights, budget=budget, voxel_size=0.1)
    assert len(merged[0]) <= budget
    close = {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(merged[2].sum(), weights.sum(), **close)
    for before, after in zip((points, features), merged[:2], strict=True):
        torch.testing.assert_close(
            (after * merged[2][:, None]).sum(0), (before * weights[:, None]).sum(0), **close
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), budget=st.integers(1, 64))
def test_same_points_again_do_not_grow_the_map(seed: int, budget: int) -> None:
    parts = cloud(seed, 150)
    once = voxel_downsample(*parts, budget=budget, voxel_size=0.2)
    twice = voxel_downsample(
        *(torch.cat([part, part]) for part in parts), budget=budget, voxel_size=0.2
    )
    assert len(twice[0]) == len(once[0])
    torch.testing.assert_close(twice[0], once[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(twice[2], 2 * once[2])


def test_cells_match_a_dictionary() -> None:
    points, features, weights = cloud(5, 100)
    merged, means, totals = voxel_downsample(points, features, weights, budget=100, voxel_size=2.0)
    cells: dict[tuple, list[int]] = {}
    for index, point in enumerate(points):
        key = tuple(int(torch.floor(x / 2.0 + 0.5)) for x in point)
        cells.setdefault(key, []).append(index)
    assert len(cells) == len(merged) < 100
    for row, members in enumerate(cells[key] for key in sorted(cells)):
        share = weights[members] / weights[members].sum()
        torch.testing.assert_close(merged[row], share @ points[members])
        torch.testing.assert_close(means[row], share @ features[members])
        torch.testing.assert_close(totals[row], weights[members].sum())


def test_voxel_size_doubles_only_as_far_as_needed() -> None:
    # A line of 8 points 1 apart: 8 cells of size 1, 5 or 4 of size 2.
    points = torch.stack([torch.arange(8.0), torch.zeros(8), torch.zeros(8)], dim=-1)
    assert fit_voxel_size(points, budget=8, voxel_size=0.25) == 0.25
    assert fit_voxel_size(points, budget=5, voxel_size=0.25) == 2.0


def test_bad_arguments_are_refused() -> None:
    points, features, weights = cloud(0, 3)
    with pytest.raises(ValueError, match="budget"):
        voxel_downsample(points, features, weights, budget=0, voxel_size=1.0)
    with pytest.raises(ValueError, match="positive"):
        voxel_downsample(points, features, -weights, budget=1, voxel_size=1.0)
    with pytest.raises(ValueError, match="voxels"):
        voxel_downsample(1e9 * points, features, weights, budget=3, voxel_size=1.0)
