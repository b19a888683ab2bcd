"""Spoiled clips: the displacement that is told is the one that was made."""

import pytest
import torch
from torch import Tensor

from geomem.metrics.consistency import WAYS, Way, rank_correlations, spoiled
from geomem.scenes.render import render
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world

WORLD = make_world("rooms", 4)
CAMERAS = make_trajectory(WORLD, "walk", frames=8, seed=4)[:3]


def shown(cameras: Tensor) -> tuple[Tensor, Tensor]:
    rgb, depth = render(WORLD, cameras, resolution=32)
    return rgb.permute(0, 3, 1, 2).float() / 255, depth


@pytest.mark.parametrize("way", WAYS)
def test_displacement_and_damage_grow_from_none(way: Way) -> None:
    made = [spoiled(shown, CAMERAS, way, strength, seed=1) for strength in (0, 0.25, 0.5, 1)]
    true, _ = shown(CAMERAS)
    damage = [float((one.images - true).abs().mean()) for one in made]
    # grid_sample at whole pixels rounds
    assert damage[0] < 1e-5 and made[0].displacement < 1e-3
    moved = [one.displacement for one in made]
    assert damage == sorted(damage) and moved == sorted(moved) and moved[1] > 0.2
    again = spoiled(shown, CAMERAS, way, 0.5, seed=1)
    assert torch.equal(again.images, made[2].images)
    assert not torch.equal(spoiled(shown, CAMERAS, way, 0.5, seed=2).images, made[2].images)


def test_warps_have_the_mean_that_is_asked_for_and_jitter_spares_the_first_frame() -> None:
    assert spoiled(shown, CAMERAS, "warps", 0.5, seed=1).displacement == pytest.approx(2, abs=1e-6)
    true, _ = shown(CAMERAS)
    jittered = spoiled(shown, CAMERAS, "jitter", 1, seed=1).images
    assert torch.equal(jittered[0], true[0]) and not torch.equal(jittered[1], true[1])


def test_swapped_blocks_show_what_lies_a_displacement_away() -> None:
    made, (true, _) = spoiled(shown, CAMERAS, "swaps", 0.5, seed=1), shown(CAMERAS)
    changed = (made.images != true).any(1).double().mean((1, 2))
    # a fifth of the blocks, of which some were alike
    assert ((changed > 0.05) & (changed <= 13 / 64)).all()


def test_correlations_are_of_ranks_and_of_what_is_known() -> None:
    scores = [{"a": v, "b": 1.0, "c": None} for v in (1.0, 10.0, 100.0, 1000.0)]
    found = rank_correlations([0.0, 1.0, 2.0, 3.0], scores)
    assert found == {"a": pytest.approx(1), "b": None, "c": None}
    assert rank_correlations([3.0, 2.0, 1.0, 0.0], scores)["a"] == pytest.approx(-1)
