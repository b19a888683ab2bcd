"""Draw clip plans: every training window of a run, in order, from a seed."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from geomem.formats import ClipStore, Plan, Window
from geomem.settings.data import PlanSettings


def draw_plan(store: ClipStore, settings: PlanSettings, record: Mapping[str, Any]) -> Plan:
    """Return the plan of a split.

    Clips come in shuffled epochs, so that each is seen equally often. With memory, the history of a
    window is the clip's frames before a uniformly drawn frame, so that the memory holds frames from
    outside the window as well as from inside.

    Args:
        store: The split's clips.
        settings: How windows are drawn.
        record: Provenance, kept in the plan.
    """
    rng = np.random.default_rng(settings.seed)
    order: list[int] = []
    while len(order) < settings.windows:
        order.extend(rng.permutation(len(store)).tolist())
    windows = [
        _draw_window(clip, store.frames_per_clip, settings, rng)
        for clip in order[: settings.windows]
    ]
    return Plan(
        split=settings.split,
        clip_ids=tuple(clip.clip_id for clip in store.clips),
        windows=tuple(windows),
        provenance=record,
    )


def _draw_window(
    clip: int, clip_frames: int, settings: PlanSettings, rng: np.random.Generator
) -> Window:
    stride = int(rng.choice(settings.strides))
    span = 1 + (settings.frames - 1) * stride
    start = int(rng.integers(0, clip_frames - span + 1))
    frames = tuple(range(start, start + span, stride))
    if rng.random() < settings.reverse:
        frames = frames[::-1]
    flip = bool(rng.random() < settings.flip)
    history = int(rng.integers(1, clip_frames + 1)) if settings.memory else 0
    return Window(clip=clip, frames=frames, history=history, flip=flip)
