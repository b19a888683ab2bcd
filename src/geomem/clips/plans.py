"""Draw clip plans: every training window of a run, in order, from a seed."""

from typing import Any

import numpy as np

from geomem.clips.version import VERSION
from geomem.formats import ClipStore, Plan, Window


def draw_plan(store: ClipStore, settings: dict[str, Any], *, split: str) -> Plan:
    """Return the plan of a split.

    Clips come in shuffled epochs, so that each is seen equally often. With memory, the history of a
    window is the clip's frames before a uniformly drawn frame, so that the memory holds frames from
    outside the window as well as from inside.

    Args:
        store: The split's clips.
        settings: `Config.plan_settings`.
        split: Name of the split, recorded.
    """
    rng = np.random.default_rng(settings["seed"])
    order: list[int] = []
    while len(order) < settings["windows"]:
        order.extend(rng.permutation(len(store)).tolist())
    windows = [
        _draw_window(clip, store.frames_per_clip, settings, rng)
        for clip in order[: settings["windows"]]
    ]
    return Plan(
        split=split,
        clip_ids=tuple(clip.clip_id for clip in store.clips),
        windows=tuple(windows),
        provenance={"settings": settings, "version": VERSION},
    )


def _draw_window(
    clip: int, clip_frames: int, settings: dict[str, Any], rng: np.random.Generator
) -> Window:
    stride = int(rng.choice(settings["strides"]))
    span = 1 + (settings["frames"] - 1) * stride
    start = int(rng.integers(0, clip_frames - span + 1))
    frames = tuple(range(start, start + span, stride))
    if rng.random() < settings["reverse"]:
        frames = frames[::-1]
    flip = bool(rng.random() < settings["flip"])
    history = int(rng.integers(1, clip_frames + 1)) if settings["memory"] else 0
    return Window(clip=clip, frames=frames, history=history, flip=flip)
