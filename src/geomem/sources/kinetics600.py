"""Import Kinetics-600, or any folder of videos, into the clip store: clips without cameras.

The tree is the user's: MP4 files, and for each role a list of their paths below the root. Public
code on this set keeps `<root>/<part>/<youtube id>_<start>_<end>.mp4`, with six digits a second, and
drops videos that cannot be read (DFoT, datasets/video/kinetics_600.py); so does this.
"""

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.formats import ClipInfo, write_clip_shard
from geomem.geometry.cameras import identity_cameras
from geomem.sources.chosen import draw_by_hash
from geomem.sources.folders import (
    check_disjoint,
    chosen_clips,
    read_list,
    request_of,
    span_of,
)
from geomem.sources.registry import ClipsOfSplit, Shard
from geomem.sources.videos import count_frames, read_frames, square

_CUT = re.compile(r"_\d{6}_\d{6}$")  # seconds where a clip was cut from its video


def video_id(path: str) -> str:
    """Return the id of the video that a file is cut from; no video is in two roles."""
    return _CUT.sub("", PurePosixPath(path).stem)


def listed_videos(root: Path, split: ClipsOfSplit) -> list[str]:
    """Return the paths of a role's videos below the root.

    Raises:
        InputError: If there is no list for the role, a path leaves the root, or two lists share a
            video.
    """
    lists = {role: read_list(root, file) for role, file in split.settings.lists.items()}
    if split.role not in lists:
        raise InputError(f"`lists` of kinetics600 name none for the role {split.role}; add it")
    for path in lists[split.role]:
        if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
            raise InputError(
                f"the list of {split.role} names {path}, which is not below {root}; write paths "
                "relative to it"
            )
    check_disjoint({role: {*map(video_id, paths)} for role, paths in lists.items()}, "video")
    return lists[split.role]


def choose_clips(root: Path, split: ClipsOfSplit) -> dict[str, Any]:
    """Choose videos and first frames of a split; the result is kept as a tracked file.

    Videos are taken in the order of a hash of seed and path, whatever their order in the list. One
    is left out if it is gone, too short, or its frames cannot be decoded: of videos from the net
    some always are, and what a header promises is no frame.

    Args:
        root: Folder of the data set.
        split: What is asked for; its settings are of `Kinetics600Settings`.

    Returns:
        `clips` (path and first frame), `left_out` (count by reason), and what they were chosen for.

    Raises:
        InputError: If too few videos are left.
    """
    paths, span = listed_videos(root, split), span_of(split)
    seed = split.settings.choice_seed
    chosen: dict[str, int] = {}
    left_out = {"missing": 0, "too short": 0, "unreadable": 0}
    for path in sorted(paths, key=lambda name: (draw_by_hash(seed, name), name)):
        if len(chosen) == split.clips:
            break
        if not (root / path).is_file():
            left_out["missing"] += 1
            continue
        try:
            spare = count_frames(root / path) - span
            if spare < 0:
                left_out["too short"] += 1
                continue
            start = draw_by_hash(seed + 1, path) % (spare + 1)
            read_frames(root / path, start=start, frames=span)
        except InputError:
            left_out["unreadable"] += 1
            continue
        chosen[path] = start
    if len(chosen) < split.clips:
        told = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise InputError(
            f"{root}: {len(chosen)} of {len(paths)} listed videos have {span} frames ({told}), "
            f"{split.clips} are needed; lower `clips` or `frames` of the split, or list more"
        )
    clips = [{"id": path, "start": chosen[path]} for path in sorted(chosen)]
    return {"clips": clips, "left_out": left_out, "request": request_of(split)}


def import_shard(split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]) -> None:
    """Convert one shard of a split; the cameras are `identity_cameras`.

    Args:
        split: What is asked for; its settings are of `Kinetics600Settings`.
        shard: Where it goes, the data set's folder, and the split's clips from `choose_clips`.
        progress: Wraps the iteration over clips.

    Raises:
        InputError: If the choice is for other settings, or a video cannot be read.
    """
    root, clips = chosen_clips(split, shard)
    size, stride = split.resolution, split.settings.stride
    rgb = np.empty((len(clips), split.frames, size, size, 3), np.uint8)
    cam = np.repeat(identity_cameras(split.frames).numpy()[None], len(clips), axis=0)
    infos = []
    for row, clip in enumerate(progress(clips)):
        path, start = clip["id"], clip["start"]
        if not (root / path).is_file():
            raise InputError(f"{root / path} is gone; delete {shard.choice}, choose again")
        frames = read_frames(root / path, start=start, frames=span_of(split))
        rgb[row] = square(frames[::stride], resolution=size)
        name = f"kinetics600-{PurePosixPath(path).stem}-{start}"
        scene = f"kinetics600-{video_id(path)}"
        infos.append(ClipInfo(clip_id=name, scene=scene, trajectory="video"))
    write_clip_shard(
        shard.folder, rgb=rgb, cam=cam, depth=None, clips=infos, provenance=shard.record
    )
