"""Choice of memory frames."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geomem.memory.selection import choose_frames, select_by_overlap, select_by_time

RANGE = {"near": 0.5, "far": 8.0}


def turned(degrees: float) -> Tensor:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([0.5, 0.5, 0.5, 0.5, c, 0, -s, 0, 0, 1, 0, 0, s, 0, c, 0])


@settings(max_examples=50, deadline=None)
@given(n=st.integers(1, 300), k=st.integers(1, 20))
def test_times_are_distinct_spread_and_hold_the_first(n, k):
    chosen = select_by_time(n, k)
    assert len(chosen) == min(n, k)
    assert chosen[0] == 0
    assert chosen == sorted(set(chosen))
    assert max(chosen) < n
    if len(chosen) > 1:
        assert chosen[-1] == n - 1
        gaps = [b - a for a, b in pairwise(chosen)]
        assert max(gaps) - min(gaps) <= 1


def test_times_by_hand():
    assert select_by_time(256, 1) == [0]
    assert select_by_time(9, 3) == [0, 4, 8]
    with pytest.raises(ValueError, match="0 frames"):
        select_by_time(0, 1)


def test_overlap_prefers_the_frame_that_looks_there():
    history = torch.stack([turned(a) for a in (0, 90, 180, 270)])
    assert select_by_overlap(history, turned(175)[None], 1, **RANGE) == [2]
    assert select_by_overlap(history, turned(10)[None], 1, **RANGE) == [0]


def test_overlap_covers_before_it_repeats():
    # Three near-duplicates of the best view and one that sees the other target.
    history = torch.stack([turned(a) for a in (2, 1, 0, 120)])
    targets = torch.stack([turned(0), turned(5), turned(120)])
    assert select_by_overlap(history, targets, 2, **RANGE) in ([0, 3], [1, 3], [2, 3])


def test_overlap_never_repeats_a_frame_and_stops_at_the_history():
    history = turned(0).expand(3, 16)
    assert select_by_overlap(history, turned(0)[None], 8, **RANGE) == [0, 1, 2]
    with pytest.raises(ValueError, match="0 frames"):
        select_by_overlap(history[:0], history, 1, **RANGE)


def test_frames_are_chosen_among_the_finished_ones_for_the_target_views():
    cameras = torch.stack([turned(30.0 * i) for i in range(12)])
    known, targets = [0, 2, 5, 7, 9], [6, 8]
    by_time = choose_frames(known, targets, cameras, 3, selection="time", **RANGE)
    assert by_time == [0, 5, 9]
    by_overlap = choose_frames(known, targets, cameras, 3, selection="overlap", **RANGE)
    assert set(by_overlap) <= set(known)
    assert {5, 7} < set(by_overlap)
    assert 0 not in by_overlap
