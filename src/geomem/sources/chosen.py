"""Clips of a downloaded archive: which a split has, and their import into the clip store.

Shape suffixes: T frames, S pixels.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from geomem.errors import InputError
from geomem.formats import ClipInfo, read_json, write_clip_shard
from geomem.sources.registry import ClipsOfSplit, Shard

VALIDATION_SHARE = 20  # one in so many clips of the training part validates
T = TypeVar("T")


class ClipArrays(NamedTuple):
    """A clip: rgb uint8 (T, S, S, 3), cam float32 (T, 16), actions uint8 (T,) or None."""

    rgb: np.ndarray
    cam: np.ndarray
    actions: np.ndarray | None = None


def draw_by_hash(seed: int, clip: str) -> int:
    """Return a number of 64 bits by which clips are ordered at random, the same everywhere."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{clip}".encode()).digest()[:8], "big")


def is_validation(clip: str) -> bool:
    """Whether a clip of the training part is kept for validation; the same on every machine."""
    return draw_by_hash(-1, clip) % VALIDATION_SHARE == 0


def of_role(clips: Mapping[str, T], role: str) -> dict[str, T]:
    """Return the clips of the training part, by id, that are for `train` or for `validation`."""
    wanted = role == "validation"
    return {clip: value for clip, value in clips.items() if is_validation(clip) == wanted}


def choose_by_hash(
    clips: Collection[str],
    measure: Callable[[str], int | None],
    split: ClipsOfSplit,
    *,
    place: Path,
    without: str,
) -> dict[str, Any]:
    """Choose clips and first frames of a split; the result is kept as a tracked file.

    Clips are taken in the order of a hash of seed and id: neither the order of the directory nor a
    clip that is missing elsewhere changes which others are chosen.

    Args:
        clips: Ids to choose from.
        measure: Tells the frames of a clip, None where a file of it is missing.
        split: What is asked for; its settings have a `choice_seed`.
        place: Where the clips lie, for the error.
        without: What clips lack whose length is None.

    Returns:
        `clips` (id and first frame, by id), `left_out` (count by reason), and what they were
        chosen for.

    Raises:
        InputError: If too few clips are long enough.
    """
    seed, frames, lacking = split.settings.choice_seed, split.frames, f"without {without}"
    chosen: dict[str, int] = {}
    left_out = {lacking: 0, "too short": 0}
    for clip in sorted(clips, key=lambda name: (draw_by_hash(seed, name), name)):
        if len(chosen) == split.clips:
            break
        length = measure(clip)
        if length is None:
            left_out[lacking] += 1
        elif length < frames:
            left_out["too short"] += 1
        else:
            chosen[clip] = draw_by_hash(seed + 1, clip) % (length - frames + 1)
    if len(chosen) < split.clips:
        raise InputError(
            f"{place}: {len(chosen)} of {len(clips)} clips have {frames} frames "
            f"({left_out['too short']} are too short, {left_out[lacking]} {lacking}), "
            f"{split.clips} are needed; lower `clips` or `frames` of the split"
        )
    listed = [{"id": clip, "start": chosen[clip]} for clip in sorted(chosen)]
    request = {"role": split.role, "frames": frames, "seed": seed}
    return {"clips": listed, "left_out": left_out, "request": request}


def import_chosen(
    split: ClipsOfSplit,
    shard: Shard,
    read: Callable[[Path, str, int], ClipArrays],
    *,
    progress: Callable[..., Any],
) -> None:
    """Convert one shard of a split.

    Args:
        split: What is asked for.
        shard: Where it goes, the unpacked archive, and the split's clips from `choose_by_hash`.
        read: Returns a clip by archive, id and first frame.
        progress: Wraps the iteration over clips.

    Raises:
        InputError: If the choice is for other settings, or a clip cannot be read.
    """
    if shard.archive is None or shard.choice is None:
        raise InputError("clips of an archive need --archive and --choice")
    size, content = split.resolution, read_json(shard.choice)
    request, clips = content["request"], content["clips"]
    wanted = (split.role, split.frames, split.clips)
    if (request["role"], request["frames"], len(clips)) != wanted:
        raise InputError(
            f"{shard.choice} holds {len(clips)} {request['role']} clips of {request['frames']} "
            f"frames, the split asks for {split.clips} of {split.frames}; delete it, choose again"
        )
    rows = split.rows(shard.number)
    rgb = np.empty((len(rows), split.frames, size, size, 3), np.uint8)
    cam = np.empty((len(rows), split.frames, 16), np.float32)
    infos, actions = [], []
    for row, position in enumerate(progress(rows)):
        clip, start = clips[position]["id"], clips[position]["start"]
        made = read(shard.archive, clip, start)
        rgb[row], cam[row] = made.rgb, made.cam
        if made.actions is not None:
            actions.append(made.actions)
        scene = f"{split.settings.source}-{clip}"
        infos.append(ClipInfo(clip_id=f"{scene}-{start}", scene=scene, trajectory="walk"))
    write_clip_shard(
        shard.folder,
        rgb=rgb,
        cam=cam,
        depth=None,
        actions=np.stack(actions) if actions else None,
        clips=infos,
        provenance=shard.record,
    )
