"""Which frames WorldMem retrieves, which it draws for training, and the bank that holds them."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from geomem.memory.bank import elapsed, pad_bank
from geomem.memory.registry import KINDS, Seen
from geomem.memory.retrieval import (
    MOST_DEGREES,
    draw_in_range,
    select_by_views,
    shares_seen,
    too_alike,
    view_points,
)
from geomem.memory.selection import choose_frames
from geomem.scenes.trajectories import make_trajectory
from geomem.scenes.worlds import make_world

SIZE, RADIUS = 16, 8.0


def turned(degrees: float, x: float = 0.0, focal: float = 0.5) -> Tensor:
    """Camera at (x, 0, 0), turned right by the angle."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pose = torch.tensor([[c, 0, -s, -c * x], [0, 1, 0, 0], [s, 0, c, -s * x]])
    return torch.cat([torch.tensor([focal, focal, 0.5, 0.5]), pose.flatten()])


def test_views_share_what_their_geometry_says() -> None:
    points = view_points(turned(30, x=1.0), RADIUS)
    assert (points - torch.tensor([1.0, 0, 0])).norm(dim=1).max() <= RADIUS + 1e-4
    # a pyramid of 90 degrees both ways is a sixth of the ball
    assert len(points) == pytest.approx(10_000 / 6, rel=0.05)
    others = torch.stack([turned(a, x=1.0) for a in (30, 75, 120, 210)])
    shares = shares_seen(points, others)
    assert shares[0] > 0.999 and 0.4 < shares[1] < 0.6 and shares[2:].max() < 0.01
    assert shares_seen(points[:0], others).tolist() == [0.0] * 4
    # a wide view covers a narrow one and not the other way round
    narrow, wide = turned(0, focal=1.5), turned(0)
    assert shares_seen(view_points(narrow, RADIUS), wide[None]) == 1
    assert too_alike(narrow, torch.stack([wide, narrow]), RADIUS) == [False, True]
    assert too_alike(wide, torch.stack([wide, narrow]), RADIUS) == [True, False]


def mutual(one: Tensor, other: Tensor) -> float:
    pairs = ((one, other), (other, one))
    return min(float(shares_seen(view_points(a, RADIUS), b[None])) for a, b in pairs)


@pytest.mark.parametrize("seed", [0, 1])
def test_on_the_way_back_the_frames_of_the_way_there_are_retrieved(seed: int) -> None:
    frames, window = 64, 4
    cameras = make_trajectory(make_world("rooms", seed), "out_and_back", frames=frames, seed=seed)
    targets = range(frames - window, frames)  # the first frames again, the other way round
    known = range(frames - window)
    chosen = choose_frames(known, targets, cameras, 4, selection="worldmem", near=0.5, far=RADIUS)
    assert min(chosen) < 2 * window, "the place that the target sees was seen at the start"
    points = torch.cat([view_points(cameras[i], RADIUS) for i in targets])
    shares = shares_seen(points, cameras)
    assert shares[min(chosen)] >= 0.95 * max(shares[i] for i in known)
    # the newest alone would see less
    assert shares[min(chosen)] > max(shares[i] for i in list(known)[-3:])
    for i, j in itertools.combinations(chosen, 2):
        assert mutual(cameras[i], cameras[j]) <= 0.9


def test_a_window_that_looks_back_in_the_middle_finds_its_mirror_images() -> None:
    cameras = make_trajectory(make_world("rooms", 3), "out_and_back", frames=64, seed=3)
    targets, known = range(48, 52), range(48)
    chosen = choose_frames(known, targets, cameras, 4, selection="worldmem", near=0.5, far=RADIUS)
    mirrored = {63 - i for i in targets}  # 12 to 15
    assert mirrored & set(chosen) or min(abs(i - j) for i in chosen for j in mirrored) <= 1


def test_of_equal_views_the_nearer_in_time_is_retrieved() -> None:
    cameras = torch.stack([turned(0), turned(0), turned(180), turned(90), turned(60)])
    times, target = [3, 20, 25, 26, 30], turned(2)[None]
    assert select_by_views(cameras, times, target, [40], 1, radius=RADIUS) == [1]
    assert select_by_views(cameras, times, target, [10], 1, radius=RADIUS) == [0]
    # its equal is gone, and what overlaps comes before what does not
    assert select_by_views(cameras, times, target, [40], 2, radius=RADIUS) == [1, 4]
    assert select_by_views(cameras, times, target, [40], 9, radius=RADIUS) == [1, 2, 3, 4]
    # time is no more than a fifth: a view is preferred to a newer frame that sees nothing
    assert select_by_views(cameras[:3], times[:3], target, [26], 1, radius=RADIUS) == [1]


def test_what_sees_nothing_and_what_is_not_there() -> None:
    behind = torch.stack([turned(180), turned(170)])
    assert select_by_views(behind, [1, 2], turned(0)[None], [3], 1, radius=RADIUS) == [1]
    assert select_by_views(behind[:0], [], turned(0)[None], [0], 4, radius=RADIUS) == []
    with pytest.raises(ValueError, match="radius"):
        select_by_views(behind, [1, 2], turned(0)[None], [3], 1, radius=0.0)
    # the frames of a window are not candidates for it
    cameras = torch.stack([turned(10 * i) for i in range(6)])
    how: dict[str, Any] = {"selection": "worldmem", "near": 0.5, "far": RADIUS}
    assert set(choose_frames([0, 1, 2, 5], [2, 3, 4, 5], cameras, 4, **how)) <= {0, 1}
    assert choose_frames([0, 5], [0, 3, 5], cameras, 4, **how) == []


def test_training_draws_similar_views_the_same_for_a_window() -> None:
    cameras = torch.stack([turned(5 * i) for i in range(36)])
    target = turned(0)[None]
    drawn = [draw_in_range(cameras, target, 4, number=n) for n in range(300)]
    assert drawn == [draw_in_range(cameras, target, 4, number=n) for n in range(300)]
    assert max(map(max, drawn)) == MOST_DEGREES // 5
    assert {i for one in drawn for i in one} == set(range(23))
    single = sum(len(one) == 1 for one in drawn) / len(drawn)
    assert 0.05 < single < 0.16 and {len(one) for one in drawn} == {1, 4}
    away = torch.stack([turned(180), turned(150)])
    assert max(len(draw_in_range(away, target, 2, number=n)) for n in range(9)) == 2
    how: dict[str, Any] = {"selection": "worldmem", "near": 0.5, "far": RADIUS}
    assert choose_frames(range(35), [35], cameras, 4, number=7, **how) != choose_frames(
        range(35), [35], cameras, 4, number=8, **how
    )


def bank_of(frames: Tensor, cameras: Tensor, times: list[int], targets: list[int]) -> Any:
    seen = Seen(frames=frames, cameras=cameras, elapsed=elapsed(times, targets, frames))
    kind = KINDS["bank"]
    return kind.build(seen, kind.Settings()).read(cameras[:1], frames.shape[-1])


def test_a_bank_tells_frames_cameras_and_times_and_pads_none_of_them_in() -> None:
    frames, cameras = torch.rand(2, 3, SIZE, SIZE), torch.stack([turned(0), turned(40)])
    read = bank_of(frames, cameras, [2, 9], [10, 12, 14])
    assert read["elapsed"].tolist() == [[-8, -10, -12], [-1, -3, -5]]
    assert set(read) == set(KINDS["bank"].channels(0))
    padded = pad_bank(read, 4)
    assert padded["present"].tolist() == [1, 1, 0, 0]
    assert padded["images"][:2].equal(2 * frames - 1)
    assert all(len(x) == 4 for x in padded.values())
    empty = bank_of(frames[:0], cameras[:0], [], [10])
    assert all(len(x) == 0 for x in pad_bank(empty, 4).values())
    with pytest.raises(ValueError, match="frame numbers"):
        KINDS["bank"].build(Seen(frames=frames, cameras=cameras), KINDS["bank"].Settings())
