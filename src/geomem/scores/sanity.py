"""Score truth, shuffled truth and noise as if they had been generated.

Legend: T frames, H rows, W columns.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomem.formats import ClipStore
from geomem.metrics.registry import ClipScores, Scorer
from geomem.metrics.sanity import FAKES
from geomem.scores.score import digits, read_clip, score_sets
from geomem.settings.jobs import SanityJob


def score_fakes(
    folder: Path,
    settings: SanityJob,
    scorer: Scorer,
    *,
    device: torch.device,
    progress: Callable[..., Any],
) -> dict[str, Any]:
    """Return the mean value of every metric of a family, of each of the three.

    Args:
        folder: Directory of the split.
        settings: Of the job.
        scorer: The family at work, on `device`.
        device: Where clips are brought.
        progress: Wraps the iteration over clips.
    """
    store, chosen = ClipStore(folder), settings.scores
    numbers = range(min(settings.clips, len(store)))
    scores: dict[str, list[ClipScores]] = {name: [] for name in FAKES}
    for number in progress(numbers, total=len(numbers)):
        truth = store.rgb(number, list(range(chosen.frames)))
        for name in FAKES:
            made = fake(name, truth, context=chosen.context, seed=number)
            clip = read_clip(store, number, made, [None] * chosen.frames, chosen, device)
            scores[name].append(scorer.clip(clip))
    values = {name: _means(scorer, found) for name, found in scores.items()}
    return {
        "family": chosen.family,
        "protocol": chosen.protocol,
        "clips": [store.clips[number].clip_id for number in numbers],
        "networks": {name: dict(details) for name, details in scorer.networks.items()},
        "values": {
            metric.name: {name: values[name].get(metric.name) for name in FAKES}
            for metric in chosen.spec.metrics
        },
    }


def fake(name: str, truth: np.ndarray, *, context: int, seed: int) -> np.ndarray:
    """Return frames (T, H, W, 3), uint8, whose generated ones are what a name of `FAKES` says.

    Args:
        name: The name.
        truth: True frames (T, H, W, 3), uint8.
        context: Number of given frames, which stay.
        seed: Of the order and of the noise.
    """
    generator = np.random.default_rng(seed)
    made, later = truth.copy(), slice(context, None)
    if name == "shuffled":
        made[later] = generator.permutation(made[later])
    elif name == "noise":
        made[later] = generator.integers(256, size=made[later].shape, dtype=np.uint8)
    return made


def _means(scorer: Scorer, scores: list[ClipScores]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name in {name: None for score in scores for name in score.values}:
        known = [v for score in scores if (v := score.values.get(name)) is not None]
        found[name] = digits(float(np.mean(known))) if known else None
    sets = score_sets(scorer, scores)
    return found | {name: entry and entry["value"] for name, entry in sets.items()}
