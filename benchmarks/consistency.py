"""Does a metric of 3D consistency rank clips by how far their content is from its place?

    python benchmarks/consistency.py OUTPUT.json [--clips 3] [--resolution 64]

Rooms of exact geometry are spoiled by known amounts (`geomem.metrics.consistency`) and scored by
the families `reprojection` and, where its extra is installed, `matches`; the record has every
score, and Spearman's rank correlation of each with the mean displacement, by way of spoiling.
"""

import argparse
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.formats.files import write_json
from geomem.metrics.consistency import WAYS, rank_correlations, spoiled
from geomem.metrics.families.matches import Matches, MatchSettings
from geomem.metrics.families.reprojection import (
    ReprojectionErrors,
    ReprojectionScorer,
    ReprojectionSettings,
)
from geomem.metrics.registry import ClipVideos
from geomem.scenes.render import render
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import World, make_world

FIRST_SCENE = 20_000_000  # of the test role: no teacher was trained on them
KINDS: tuple[TrajectoryKind, ...] = ("walk", "orbit")


def rendered(world: World, resolution: int, cameras: Tensor) -> tuple[Tensor, Tensor]:
    """Return frames (T, 3, H, W) in [0, 1] and depth (T, H, W) of cameras (T, 16)."""
    rgb, depth = render(world, cameras, resolution=resolution, supersample=2)
    return rgb.permute(0, 3, 1, 2).float() / 255, depth


def main() -> None:
    """Score and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--strengths", type=float, nargs="+", default=[0.2, 0.5, 1.0])
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    scorer = ReprojectionErrors().open(ReprojectionSettings(frames=args.frames), device)
    assert isinstance(scorer, ReprojectionScorer)
    try:
        matches = Matches().open(MatchSettings(gap=2), device)
    except InputError as error:
        print(f"left out: {error}")
        matches = None
    rows = []
    for clip in range(args.clips):
        world, kind = make_world("rooms", FIRST_SCENE + clip), KINDS[clip % len(KINDS)]
        cameras = make_trajectory(world, kind, frames=32, seed=clip)[: args.frames]
        shown = partial(rendered, world, args.resolution)
        truth, depth = shown(cameras)
        videos = ClipVideos(
            generated=truth,
            truth=truth,
            cameras=cameras,
            context=1,
            revisits=torch.zeros(0, 2, dtype=torch.long),
            coverage=[],
            partial=[],
            depth=depth,
        )
        cases = [("true", 0.0), *((way, s) for way in WAYS for s in args.strengths)]
        for way, strength in cases:
            made = spoiled(shown, cameras, way if strength else WAYS[0], strength, seed=clip)
            begun = time.process_time()
            scores = dict(scorer.scores(made.images, cameras))
            took = time.process_time() - begun
            if matches:
                found = matches.clip(replace(videos, generated=made.images)).values
                names = ("depth_match_share", "match_error")
                scores |= {name: found.get(name) for name in names}
            row = {"clip": clip, "kind": kind, "way": way, "strength": strength, "seconds": took}
            rows.append({**row, "displacement": made.displacement, "scores": scores})
            print(row | {"displacement": made.displacement}, scores, flush=True)
    correlations = {}
    for way in WAYS:
        own = [row for row in rows if row["way"] in ("true", way)]
        correlations[way] = rank_correlations(
            [row["displacement"] for row in own], [row["scores"] for row in own]
        )
    write_json(args.output, {"rows": rows, "correlations": correlations})
    print(correlations)


if __name__ == "__main__":
    main()
