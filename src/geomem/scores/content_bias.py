"""Run the content-bias test on the true clips of a split, for every network that is here."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from geomem.errors import InputError
from geomem.formats import ClipStore
from geomem.metrics.content_bias import DamagedClips, content_bias, damage_per_frame
from geomem.metrics.video_networks import available_video_networks
from geomem.scores.score import digits
from geomem.settings.jobs import ContentBiasJob


def measure_content_bias(
    folder: Path,
    settings: ContentBiasJob,
    *,
    device: torch.device,
    progress: Callable[..., Any],
) -> dict[str, Any]:
    """Return which clips were damaged, by how much, and what every network makes of it.

    Args:
        folder: Directory of the split.
        settings: Of the job.
        device: Where the networks are.
        progress: Wraps an iteration, with a `label`.

    Raises:
        InputError: If no network is here, or the clips cannot be damaged equally.
    """
    first, *rest = [Path(path) for path in (settings.i3d_weights, *(settings.vjepa_weights or ()))]
    vjepa = (rest[0], rest[1]) if rest else None
    videomae = Path(settings.videomae_weights) if settings.videomae_weights else None
    networks = available_video_networks(first, vjepa, videomae, device=device)
    if not networks:
        raise InputError("no network of video features is here (pip install -e '.[scores,video]')")
    store, chosen = ClipStore(folder), settings.content_bias
    numbers = range(min(chosen.clips, len(store)))
    frames = list(range(chosen.frames))
    clips = [torch.from_numpy(store.rgb(number, frames).copy()) for number in numbers]
    damaged = DamagedClips(clips, chosen.strengths, seed=chosen.seed)
    damage = damage_per_frame(damaged, progress=partial(progress, label="damage"))
    found = {}
    for name, load in networks.items():
        network = load()
        result = content_bias(
            network.features,
            damaged,
            seed=chosen.seed,
            resamples=settings.bootstrap,
            progress=partial(progress, label=name),
        )
        found[name] = {"details": network.details, **_rounded(result)}
    return {
        "clips": [store.clips[number].clip_id for number in numbers],
        "damage": _rounded(damage),
        "networks": found,
    }


def _rounded(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _rounded(value) for name, value in content.items()}
    return digits(content) if isinstance(content, float) else content
