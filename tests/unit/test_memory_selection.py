"""Choice of memory frames."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.diffusion.rollout_plans import plan_rollout
from geomem.memory.selection import choose_frames, select_by_overlap, select_by_time

RANGE = {"near": 0.5, "far": 8.0}


def turned(degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([0.5, 0.5, 0.5, 0.5, c, 0, -s, 0, 0, 1, 0, 0, s, 0, c, 0])


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 300), k=st.integers(1, 20))
def test_times_are_distinct_spread_and_hold_the_first(n: int, k: int) -> None:
    chosen = select_by_time(range(n), k)
    assert len(chosen) == min(n, k)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert max(chosen) < n
    if len(chosen) > 1:
        assert chosen[-1] == n - 1
        gaps = [b - a for a, b in pairwise(chosen)]
        assert max(gaps) - min(gaps) <= 1


def test_times_by_hand() -> None:
    assert select_by_time(range(256), 1) == [0]
    assert select_by_time(range(9), 3) == [0, 4, 8]
    with pytest.raises(ValueError, match="0 frames"):
        select_by_time([], 1)


@settings(max_examples=50, deadline=None)
@given(frames=st.sets(st.integers(0, 300), min_size=1), k=st.integers(1, 12))
def test_times_are_nearest_to_evenly_spaced_ones(frames: set[int], k: int) -> None:
    known = sorted(frames)
    chosen = select_by_time(known, k)
    assert len(chosen) == min(len(known), k) and chosen == sorted(set(chosen) & frames)
    assert chosen[0] == known[0] and (k == 1 or chosen[-1] == known[-1])
    for i in range(1, k - 1):
        time = known[0] + i * (known[-1] - known[0]) / (k - 1)
        # a frame that is nearer than all the chosen ones would have been chosen
        nearest = min(abs(frame - time) for frame in known)
        assert min(abs(frame - time) for frame in chosen) <= nearest + 1


def test_finished_keyframes_do_not_crowd_the_choice() -> None:
    # As on a clip of 64 frames while the gaps between its keyframes are filled from the left: the
    # ranks of what is finished crowd into the first half.
    known = [*range(32), 47, 63]
    assert select_by_time(known, 4) == [0, 21, 47, 63]
    assert select_by_time([*range(16), 31, 47, 63], 4) == [0, 15, 47, 63]


def test_on_a_spin_every_window_has_a_memory_frame_that_looks_its_way() -> None:
    plan = plan_rollout(64, window=8, keyframe_density=0.25, context=1)
    known: list[int] = [0]
    windows = [*plan.keyframe_windows, *(w for batch in plan.interpolation for w in batch)]
    for window in windows:
        if len(known) > 4:
            chosen = select_by_time(sorted(known), 4)
            gaps = [b - a for a, b in pairwise(chosen)]
            assert max(gaps) <= 0.45 * max(known), (window.frames, chosen)
        known += window.generated


def test_overlap_prefers_the_frame_that_looks_there() -> None:
    history = torch.stack([turned(a) for a in (0, 90, 180, 270)])
    assert select_by_overlap(history, turned(175)[None], 1, **RANGE) == [2]
    assert select_by_overlap(history, turned(10)[None], 1, **RANGE) == [0]


def test_overlap_covers_before_it_repeats() -> None:
    # Three near-duplicates of the best view and one that sees the other target.
    history = torch.stack([turned(a) for a in (2, 1, 0, 120)])
    targets = torch.stack([turned(0), turned(5), turned(120)])
    assert select_by_overlap(history, targets, 2, **RANGE) in ([0, 3], [1, 3], [2, 3])


def test_overlap_never_repeats_a_frame_and_stops_at_the_history() -> None:
    history = turned(0).expand(3, 16)
    assert select_by_overlap(history, turned(0)[None], 8, **RANGE) == [0, 1, 2]
    with pytest.raises(ValueError, match="0 frames"):
        select_by_overlap(history[:0], history, 1, **RANGE)


def test_frames_are_chosen_among_the_finished_ones_for_the_target_views() -> None:
    cameras = torch.stack([turned(30.0 * i) for i in range(12)])
    known, targets = [0, 2, 5, 7, 9], [6, 8]
    by_time = choose_frames(known, targets, cameras, 3, selection="time", **RANGE)
    assert by_time == [0, 5, 9]
    by_overlap = choose_frames(known, targets, cameras, 3, selection="overlap", **RANGE)
    assert set(by_overlap) <= set(known)
    assert {5, 7} < set(by_overlap)
    assert 0 not in by_overlap
