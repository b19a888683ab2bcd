"""A small preference study with true files, for tests of its pages and its votes."""

from pathlib import Path

import numpy as np

from geomem.study.build import Clip, build_study
from geomem.study.plan import Study

METHODS = ("alpha", "beta", "gamma")
SIDE, FRAMES, CONTEXT = 32, 8, 2


def clip(number: int, methods: tuple[str, ...] = METHODS) -> Clip:
    """A clip of moving colours, its camera on a walk forward and to the right."""
    rng = np.random.default_rng(number)
    truth = rng.integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    truth = np.stack([np.roll(truth[0], t, axis=1) for t in range(FRAMES)])
    cameras = np.zeros((FRAMES, 16), np.float32)
    cameras[:, :4] = [0.6, 0.6, 0.5, 0.5]
    cameras[:, [4, 9, 14]] = 1
    cameras[:, 7] = -0.1 * np.arange(FRAMES)
    cameras[:, 15] = -0.3 * np.arange(FRAMES)
    videos = {}
    for shade, method in enumerate(methods, start=1):
        videos[method] = truth.copy()
        videos[method][CONTEXT:] //= shade + 1
    return Clip(
        clip_id=f"clip-{number}", cameras=cameras, truth=truth, videos=videos, context=CONTEXT
    )


def make_study(
    folder: Path, *, clips: int = 2, title: str = "Which is better", repeats: int = 1
) -> Study:
    """Build a study of three methods with two checks."""
    made = [clip(number) for number in range(clips)]
    return build_study(
        folder, made, title=title, rate=8, checks=2, repeats=repeats, made_of={"scale": "test"}
    )
