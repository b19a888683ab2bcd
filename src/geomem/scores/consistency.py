"""Score rooms that are spoiled by known amounts, by the metrics of 3D consistency.

Legend: T frames, H, W pixels.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.metrics.bundle import cells_of
from geomem.metrics.consistency import WAYS, Spoiled, Way, rank_correlations, spoiled
from geomem.metrics.families.reprojection import ReprojectionScorer
from geomem.metrics.registry import FAMILIES, ClipVideos, Scorer
from geomem.scenes.render import render
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import World, make_world
from geomem.scores.score import digits
from geomem.settings.jobs import ConsistencyJob

FIRST_SCENE = 20_000_000  # of the test role: no teacher was trained on them
KINDS: tuple[TrajectoryKind, ...] = ("walk", "orbit")
PATH = 32  # frames of a path; a clip is its beginning
OF_MATCHES = ("depth_match_share", "match_error")


def measure_consistency(
    settings: ConsistencyJob, *, device: torch.device, progress: Callable[..., Any]
) -> dict[str, Any]:
    """Return every score of true and spoiled clips, and how it ranks them.

    Displacements are in pixels; a correlation is Spearman's, of a score with the displacement, over
    true clips and those that are spoiled in one way. `matches` is left out, with its reason, where
    it is not installed.

    Args:
        settings: Of the job.
        device: Where the networks are.
        progress: Wraps an iteration, with a `label`.

    Raises:
        InputError: If the weights of the teacher are not there.
    """
    scorer = FAMILIES["reprojection"].open(settings.reprojection, device)
    assert isinstance(scorer, ReprojectionScorer)
    matches, left_out = None, {}
    try:
        matches = FAMILIES["matches"].open(settings.matches, device)
    except InputError as error:
        left_out["matches"] = str(error)
    rows = [
        row
        for clip in progress(range(settings.consistency.clips), label="consistency")
        for row in _scored(clip, settings, scorer, matches, device)
    ]
    networks = {"start": settings.reprojection.teacher.weights}
    return {
        "rows": rows,
        "correlations": {way: _correlations(rows, way) for way in WAYS},
        "networks": networks | ({} if matches is None else dict(matches.networks)),
        "left_out": left_out,
    }


def _scored(
    clip: int,
    settings: ConsistencyJob,
    scorer: ReprojectionScorer,
    matches: Scorer | None,
    device: torch.device,
) -> list[dict[str, Any]]:
    """Return the scores of one room, true and spoiled."""
    chosen = settings.consistency
    world, kind = make_world("rooms", FIRST_SCENE + clip), KINDS[clip % len(KINDS)]
    cameras = make_trajectory(world, kind, frames=PATH, seed=clip)[: chosen.frames]
    shown = partial(_rendered, world, chosen.resolution)
    truth, depth = shown(cameras)
    videos = ClipVideos(
        generated=truth.to(device),
        truth=truth.to(device),
        cameras=cameras.to(device),
        context=1,
        revisits=torch.zeros(0, 2, dtype=torch.long, device=device),
        coverage=[],
        partial=[],
        depth=depth.to(device),
    )
    pixel = chosen.resolution / float(cells_of(chosen.resolution, chosen.resolution)[0])
    cases: list[tuple[str, float, Spoiled]] = [
        ("true", 0.0, Spoiled(images=truth, displacement=0.0)),
        *(
            (way, strength, spoiled(shown, cameras, way, strength, seed=clip))
            for way in WAYS
            for strength in chosen.strengths
        ),
    ]
    rows = []
    for way, strength, made in cases:
        frames = made.images.to(device)
        scores = dict(scorer.scores(frames, videos.cameras))
        if matches is not None:
            found = matches.clip(replace(videos, generated=frames)).values
            scores |= {name: found.get(name) for name in OF_MATCHES}
        rows.append(
            {
                **{"clip": clip, "path": kind, "way": way, "strength": strength},
                "displacement": digits(made.displacement * pixel),
                "scores": {k: None if v is None else digits(v) for k, v in scores.items()},
            }
        )
    return rows


def _rendered(world: World, resolution: int, cameras: Tensor) -> tuple[Tensor, Tensor]:
    """Return frames (T, 3, H, W) in [0, 1] and depth (T, H, W) of cameras (T, 16)."""
    rgb, depth = render(world, cameras, resolution=resolution, supersample=2)
    return rgb.permute(0, 3, 1, 2).float() / 255, depth


def _correlations(rows: list[dict[str, Any]], way: Way) -> dict[str, float | None]:
    own = [row for row in rows if row["way"] in ("true", way)]
    found = rank_correlations([row["displacement"] for row in own], [row["scores"] for row in own])
    return {name: None if value is None else digits(value) for name, value in found.items()}
