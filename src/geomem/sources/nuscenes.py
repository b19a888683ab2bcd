"""Import one camera of nuScenes into the clip store.

Clips are cut from scenes of about 20 s, none from two. Their poses are relative to their first
camera: on the map they lie hundreds of metres from its origin, where float32 rounds to a tenth of
a millimetre and more. Lengths are metres.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomem.errors import InputError
from geomem.formats import ClipInfo, write_clip_shard
from geomem.geometry.cameras import check_cameras
from geomem.sources.chosen import draw_by_hash
from geomem.sources.folders import (
    check_disjoint,
    chosen_clips,
    read_list,
    request_of,
    span_of,
)
from geomem.sources.nuscenes_tables import Frame, Tables
from geomem.sources.realestate10k import crop_intrinsics
from geomem.sources.registry import ClipsOfSplit, Shard
from geomem.sources.videos import square

# In ten drives one validates and two test, where the user has no lists of scenes.
VALIDATION, TEST, OF = 1, 2, 10


def scenes_of(tables: Tables, root: Path, split: ClipsOfSplit) -> list[str]:
    """Return the names of the scenes of a role, sorted.

    With `lists` these are the listed ones that the version has; without, a hash of the drive (the
    log that scenes are cut from) says the role, so that no drive is in two roles.

    Raises:
        InputError: If the role has no list where others have, or two lists share a scene.
    """
    lists, role = split.settings.lists, split.role
    if lists:
        listed = {name: set(read_list(root, file)) for name, file in lists.items()}
        check_disjoint(listed, "scene")
        if role not in listed:
            raise InputError(f"`lists` of nuscenes name none for the role {role}; add it")
        return sorted(listed[role] & tables.scenes.keys())
    return sorted(name for name, drive in tables.drive_of.items() if role_of(drive) == role)


def role_of(drive: str) -> str:
    """Return the role of a drive's scenes; the same on every machine."""
    share = draw_by_hash(-1, drive) % OF
    return "validation" if share < VALIDATION else "test" if share < VALIDATION + TEST else "train"


def choose_clips(root: Path, split: ClipsOfSplit) -> dict[str, Any]:
    """Choose scenes and first frames of a split; the result is kept as a tracked file.

    A scene is cut into as many clips as fit, none over another; they are taken in the order of a
    hash of seed, scene and number.

    Args:
        root: Folder of the data set.
        split: What is asked for; its settings are of `NuScenesSettings`.

    Returns:
        `clips` (scene and first frame), `left_out` (count by reason), and what they were chosen
        for.

    Raises:
        InputError: If the tables are damaged, or too few clips are to be had.
    """
    tables = Tables(root, split.settings.version, split.settings.channel)
    names = scenes_of(tables, root, split)
    scenes, span, seed = tables.frames(set(names)), span_of(split), split.settings.choice_seed
    found: list[tuple[int, str, int]] = []
    left_out = {"scenes too short": 0, "clips without images": 0}
    for name in names:
        count, spare = divmod(len(scenes[name]), span)
        left_out["scenes too short"] += not count
        begin = draw_by_hash(seed + 1, name) % (spare + 1)
        for number in range(count):
            start = begin + number * span
            found.append((draw_by_hash(seed, f"{name}/{number}"), name, start))
    chosen: list[dict[str, Any]] = []
    for _, name, start in sorted(found):
        if len(chosen) == split.clips:
            break
        frames = scenes[name][start : start + span : split.settings.stride]
        if all((root / frame.filename).is_file() for frame in frames):
            chosen.append({"id": name, "start": start})
        else:
            left_out["clips without images"] += 1
    if len(chosen) < split.clips:
        raise InputError(
            f"{tables.folder}: {len(chosen)} clips of {span} frames in {len(names)} {split.role} "
            f"scenes ({left_out['scenes too short']} scenes are too short, "
            f"{left_out['clips without images']} clips lack images), {split.clips} are needed; "
            "unpack more of nuScenes, or lower `clips` or `frames` of the split"
        )
    clips = sorted(chosen, key=lambda clip: (clip["id"], clip["start"]))
    return {"clips": clips, "left_out": left_out, "request": request_of(split)}


def cameras_of(frames: list[Frame]) -> np.ndarray:
    """Return the cameras float32 (T, 16) of square centre crops, relative to the first camera."""
    rows = []
    for frame in frames:
        width, height = frame.size
        pose = np.linalg.inv(frame.pose) @ frames[0].pose
        k = frame.intrinsics
        # the store counts pixels from their corners, the matrix from their middles
        centre = ((k[0, 2] + 0.5) / width, (k[1, 2] + 0.5) / height)
        lens = np.array([[k[0, 0] / width, k[1, 1] / height, *centre]])
        rows.append([*crop_intrinsics(lens, width=width, height=height)[0], *pose[:3].reshape(-1)])
    return np.array(rows, np.float32)


def read_image(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Return an image uint8 (H, W, 3).

    Raises:
        InputError: If it is missing or damaged, or not of the size (width, height) of its row.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
    except FileNotFoundError:
        raise InputError(f"{path} is missing; unpack that part of nuScenes") from None
    except (OSError, SyntaxError) as error:  # Pillow's words for a damaged file
        raise InputError(f"{path} is damaged ({error}); unpack it again") from None
    if pixels.shape[1::-1] != size:
        raise InputError(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]}, its row says {size[0]}x{size[1]}; "
            "unpack images and metadata of one version"
        )
    return pixels


def import_shard(split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]) -> None:
    """Convert one shard of a split.

    Args:
        split: What is asked for; its settings are of `NuScenesSettings`.
        shard: Where it goes, the data set's folder, and the split's clips from `choose_clips`.
        progress: Wraps the iteration over clips.

    Raises:
        InputError: If the choice is for other settings, or a clip cannot be read.
    """
    root, clips = chosen_clips(split, shard)
    settings, size = split.settings, split.resolution
    tables = Tables(root, settings.version, settings.channel)
    scenes = tables.frames({clip["id"] for clip in clips} & tables.scenes.keys())
    rgb = np.empty((len(clips), split.frames, size, size, 3), np.uint8)
    cam = np.empty((len(clips), split.frames, 16), np.float32)
    infos = []
    for row, clip in enumerate(progress(clips)):
        name, start = clip["id"], clip["start"]
        frames = scenes.get(name, [])[start : start + span_of(split) : settings.stride]
        if len(frames) < split.frames:
            raise InputError(
                f"{tables.folder} has no {split.frames} frames of {name} from {start}; delete "
                f"{shard.choice}, choose again"
            )
        cam[row] = cameras_of(frames)
        try:
            check_cameras(torch.from_numpy(cam[row]))
        except ValueError as error:
            raise InputError(f"{tables.folder}, {name}: {error}; unpack it again") from None
        for t, frame in enumerate(frames):
            image = read_image(root / frame.filename, frame.size)
            rgb[row, t] = square(image[None], resolution=size)[0]
        clip_id = f"nuscenes-{name}-{settings.channel}-{start}"
        infos.append(ClipInfo(clip_id=clip_id, scene=f"nuscenes-{name}", trajectory="drive"))
    write_clip_shard(
        shard.folder, rgb=rgb, cam=cam, depth=None, clips=infos, provenance=shard.record
    )
