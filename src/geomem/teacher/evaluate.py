"""Measure the teacher."""

from dataclasses import asdict
from typing import Any

import torch

from geomem.formats import ClipStore
from geomem.formats.clip_sets import read_sets
from geomem.geometry.cameras import split_cameras
from geomem.networks.vggt.evaluation import (
    depth_metrics,
    identity_poses,
    mean_depth,
    pose_metrics,
)
from geomem.networks.vggt.losses import normalise_scene
from geomem.networks.vggt.model import VGGT, pose_encoding_to_cameras


@torch.no_grad()
def evaluate_teacher(
    teacher: VGGT, store: ClipStore, *, frames: int = 4, stride: int = 5
) -> dict[str, Any]:
    """Measure depth and pose errors on held-out clips beside predictions that know nothing.

    Every clip gives one set of `frames` frames, `stride` apart.

    Returns:
        `depth` and `pose`, each with the teacher's numbers and the baseline's.
    """
    sets = [(clip, list(range(0, frames * stride, stride))) for clip in range(len(store))]
    images, cameras, depth = read_sets(store, sets)
    assert depth is not None
    device = next(teacher.parameters()).device
    images, cameras, depth = (x.to(device) for x in (images, cameras, depth))
    targets = normalise_scene(depth, cameras)
    output = teacher(images)
    side = teacher.config.image_size
    predicted = pose_encoding_to_cameras(output.pose_enc[-1], height=side, width=side)
    poses, truth = split_cameras(predicted)[1], split_cameras(cameras)[1]
    valid = targets.valid
    return {
        "clips": len(store),
        "frames": frames,
        "stride": stride,
        "depth": {
            "teacher": asdict(depth_metrics(output.depth, depth, valid)),
            "mean_depth": asdict(depth_metrics(mean_depth(depth, valid), depth, valid)),
        },
        "pose": {
            "teacher": asdict(pose_metrics(poses, truth)),
            "identity": asdict(pose_metrics(identity_poses(truth), truth)),
        },
    }
