"""Rollout plans against the reference's plans and the invariants of any plan."""

import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geomem.diffusion.rollout_plans import RolloutPlan, SamplerWindow, plan_rollout

PLANS = json.loads((Path(__file__).parents[1] / "fixtures/rollout_plans.json").read_text())
DEPTHS = {(256, 8, 0.0625): 5, (256, 16, 0.0625): 3, (64, 8, 1): 15, (32, 8, 0.25): 2}


def as_golden(window: SamplerWindow) -> dict[str, list[int]]:
    return {"frames": list(window.frames), "context_mask": list(window.context_mask)}


def plan_of(golden: dict[str, Any]) -> RolloutPlan:
    return plan_rollout(
        golden["n_frames"],
        window=golden["max_tokens"],
        keyframe_density=golden["keyframe_density"],
        context=golden["n_context"],
    )


@pytest.mark.parametrize("golden", PLANS, ids=lambda g: f"{g['n_frames']}-{g['max_tokens']}")
def test_plan_matches_golden(golden: dict[str, Any]) -> None:
    plan = plan_of(golden)
    assert [as_golden(w) for w in plan.keyframe_windows] == golden["keyframe_windows"]
    batches = [[as_golden(w) for w in batch] for batch in plan.interpolation]
    assert batches == golden["interpolation"]


@pytest.mark.parametrize("golden", PLANS, ids=lambda g: f"{g['n_frames']}-{g['max_tokens']}")
def test_depth_of_golden_plans(golden: dict[str, Any]) -> None:
    key = (golden["n_frames"], golden["max_tokens"], golden["keyframe_density"])
    plan = plan_of(golden)
    assert plan.depth == DEPTHS.get(key, 2)
    assert plan.depth == longest_chain(plan)


def longest_chain(plan: RolloutPlan) -> int:
    """Oracle: walk the graph of windows backwards from each window."""
    maker = {frame: w for w in all_windows(plan) for frame in w.generated}

    def chain_length(window: SamplerWindow) -> int:
        before = {maker[frame] for frame in window.known if frame in maker}
        return 1 + max(map(chain_length, before), default=0)

    return max(map(chain_length, all_windows(plan)))


def all_windows(plan: RolloutPlan) -> list[SamplerWindow]:
    return [*plan.keyframe_windows, *chain.from_iterable(plan.interpolation)]


@given(
    frames=st.integers(3, 200),
    window=st.integers(3, 24),
    density=st.floats(0.02, 1),
    context=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_every_plan_makes_every_frame_once(
    frames: int, window: int, density: float, context: int
) -> None:
    assume(frames > context and round(density * frames) >= 2)
    plan = plan_rollout(frames, window=window, keyframe_density=density, context=context)
    known = set(range(context))
    stages = [(w,) for w in plan.keyframe_windows] + list(plan.interpolation)
    for stage in stages:
        made: list[int] = []
        for w in stage:
            assert 1 <= len(w.frames) <= window and w.known <= known
            assert list(w.frames) == sorted(w.frames)
            assert w.known and w.generated
            made += sorted(w.generated)
        assert len(made) == len(set(made)) and known.isdisjoint(made)
        known.update(made)
    assert known == set(range(frames))
    assert all(len(w.frames) == window for w in chain.from_iterable(plan.interpolation))


def test_of_a_long_history_the_first_window_sees_its_end_and_evenly_spread_frames() -> None:
    plan = plan_rollout(32, window=8, keyframe_density=0.5, context=16)
    first, second = plan.keyframe_windows
    assert first.frames == (10, 12, 14, 15, 17, 19, 21, 23)
    assert first.context_mask == (1, 1, 1, 1, 0, 0, 0, 0)
    assert second.context_mask == (2, 2, 2, 2, 0, 0, 0, 0)
    made = [frame for window in all_windows(plan) for frame in sorted(window.generated)]
    assert sorted(made) == list(range(16, 32))


def test_the_more_a_window_keeps_the_more_windows_are_chained() -> None:
    plans = [
        plan_rollout(33, window=8, keyframe_density=1, context=1, kept=kept)
        for kept in (2, None, 4, 6)
    ]
    for plan, made in zip(plans, (6, 4, 4, 2), strict=True):
        assert all(len(w.generated) == made for w in plan.keyframe_windows[1:-1])
    assert [plan.depth for plan in plans] == [6, 8, 8, 14]
    assert plans[1] == plans[2]


def test_given_and_generated_context_are_told_apart() -> None:
    plan = plan_rollout(8, window=6, keyframe_density=1, context=2)
    assert [as_golden(w) for w in plan.keyframe_windows] == [
        {"frames": [0, 1, 2, 3, 4, 5], "context_mask": [1, 1, 0, 0, 0, 0]},
        {"frames": [3, 4, 5, 6, 7], "context_mask": [2, 2, 2, 0, 0]},
    ]


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ({"window": 1}, "got 1"),
        ({"context": 0}, "got 0"),
        ({"frames": 1}, "got 1"),
        ({"keyframe_density": 0}, "got 0"),
        ({"keyframe_density": 1.5}, r"got 1\.5"),
        ({"keyframe_density": 0.01}, "0.01 of 64 frames gives 1 keyframes"),
        ({"window": 2, "keyframe_density": 0.5}, "got 2"),
        ({"kept": 8}, "1 to 7 frames of a window, got 8"),
        ({"kept": 0}, "got 0"),
    ],
)
def test_impossible_plans_are_refused(arguments: dict[str, Any], number: str) -> None:
    valid = {"frames": 64, "window": 8, "keyframe_density": 0.25, "context": 1}
    with pytest.raises(ValueError, match=number):
        plan_rollout(**(valid | arguments))
