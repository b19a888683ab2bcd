"""Import RealEstate10K, as preprocessed for DFoT or as published, into the clip store.

The preprocessed tree, for `part` in (training, test):

    <part>_256/<id>.mp4     square frames, one a line of the trajectory
    <part>_poses/<id>.pt    float32 (T, 18): fx fy cx cy 0 0, then the 3x4 world-to-camera matrix

Poses may also be the published text files, `<part>_poses/<id>.txt`, and frames a folder of images
`<part>_256/<id>/`. Lengths are in the unit of the scene's structure from motion.
Shape suffixes: T frames, H rows, W columns.
"""

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geomem.errors import InputError
from geomem.geometry.cameras import check_cameras
from geomem.sources.chosen import ClipArrays, choose_by_hash, import_chosen, of_role
from geomem.sources.registry import ClipsOfSplit, Shard
from geomem.sources.videos import count_frames, read_frames, square

PART_OF_ROLE = {"train": "training", "validation": "training", "test": "test"}
SOURCE_ASPECT = (16, 9)  # of the videos that the preprocessed frames were cut from
POSE_SUFFIXES = (".pt", ".txt")


# --- cameras ----------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """A published text file.

    Attributes:
        url: Video the clip is cut from.
        timestamps: int64 (T,), microseconds.
        poses: float32 (T, 18).
    """

    url: str
    timestamps: np.ndarray
    poses: np.ndarray


def read_trajectory(path: Path) -> Trajectory:
    """Read a published text file: a URL, then 19 columns a frame.

    Raises:
        InputError: If it is not of that form.
    """
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines[1:] if line.strip()]
    wrong = [number for number, row in enumerate(rows, start=2) if len(row) != 19]
    if not rows or wrong:
        where = f"line {wrong[0]} has {len(rows[wrong[0] - 2])}" if wrong else "it has no"
        raise InputError(f"{path}: {where} columns, not the 19 of RealEstate10K; fetch it again")
    try:
        return Trajectory(
            url=lines[0].strip(),
            timestamps=np.array([int(row[0]) for row in rows], np.int64),
            poses=np.array([[float(x) for x in row[1:]] for row in rows], np.float32),
        )
    except ValueError as error:
        raise InputError(f"{path} holds no numbers ({error}); fetch it again") from None


def read_poses(path: Path) -> np.ndarray:
    """Return the poses float32 (T, 18) of a clip from its .pt or .txt file.

    Raises:
        InputError: If the file is damaged, holds anything but a tensor, or has another shape.
    """
    if path.suffix == ".txt":
        return read_trajectory(path).poses
    try:
        poses = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path} is no tensor file ({reason}); unpack the archive again") from None
    if not isinstance(poses, torch.Tensor) or poses.ndim != 2 or poses.shape[1] != 18:
        shape = tuple(getattr(poses, "shape", ()))
        raise InputError(f"{path} holds {type(poses).__name__} {shape}, expected (T, 18)")
    return poses.float().numpy()


def to_cameras(poses: np.ndarray) -> np.ndarray:
    """Return the cameras (T, 16) of poses (T, 18): columns 4 and 5 are always 0."""
    return np.concatenate([poses[:, :4], poses[:, 6:]], axis=1)


def crop_intrinsics(cameras: np.ndarray, *, width: int, height: int) -> np.ndarray:
    """Return the cameras (T, 16) of a square centre crop of images of the given size.

    Focal lengths and centre are normalised by the image's sides, so cutting a side scales them:
    fx by width / side, and cx about 0.5.
    """
    side = min(width, height)
    cropped = cameras.copy()
    for axis, length in enumerate((width, height)):
        cropped[:, axis] *= length / side
        cropped[:, 2 + axis] = (cropped[:, 2 + axis] - 0.5) * (length / side) + 0.5
    return cropped


# --- the tree ---------------------------------------------------------------------------------


def find_tree(folder: Path, part: str) -> Path:
    """Return the folder that holds `<part>_poses`: `folder` or one directly below it.

    Raises:
        InputError: If there is none.
    """
    for tree in (folder, *sorted(path for path in folder.glob("*") if path.is_dir())):
        if (tree / f"{part}_poses").is_dir():
            return tree
    raise InputError(
        f"{folder} holds no {part}_poses; unpack the whole RealEstate10K there (its small archives "
        "have test clips alone)"
    )


def video_of(tree: Path, part: str, clip: str) -> Path | None:
    """Return the video or folder of images of a clip, None where the archive has none."""
    folder = tree / f"{part}_256"
    return next((p for p in (folder / f"{clip}.mp4", folder / clip) if p.exists()), None)


def candidates(tree: Path, role: str) -> dict[str, Path]:
    """Return the pose file of every clip that a role may use, by id."""
    part = PART_OF_ROLE[role]
    paths = (tree / f"{part}_poses").iterdir()
    files = {path.stem: path for path in paths if path.suffix in POSE_SUFFIXES}
    if part == "test":
        return files
    return of_role(files, role)


def choose_clips(folder: Path, split: ClipsOfSplit) -> dict[str, Any]:
    """Choose clips and first frames of a split; the result is kept as a tracked file.

    Clips are taken in the order of a hash of seed and id: neither the order of the directory nor a
    clip that is missing elsewhere changes which others are chosen.

    Args:
        folder: The unpacked archive.
        split: What is asked for; its settings are of `RealEstate10KSettings`.

    Returns:
        `clips` (id and first frame, by id), `left_out` (count by reason), and what they were
        chosen for.

    Raises:
        InputError: If too few clips are long enough.
    """
    part = PART_OF_ROLE[split.role]
    tree = find_tree(folder, part)
    files = candidates(tree, split.role)

    def measure(clip: str) -> int | None:
        video = video_of(tree, part, clip)
        return None if video is None else min(len(read_poses(files[clip])), count_frames(video))

    return choose_by_hash(files, measure, split, place=tree / part, without="video")


# --- import -----------------------------------------------------------------------------------


def read_clip(
    folder: Path, role: str, clip: str, *, start: int, frames: int, resolution: int, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return frames uint8 (T, S, S, 3) and cameras float32 (T, 16) of a part of one clip.

    Args:
        folder: The unpacked archive.
        role: `train`, `validation` or `test`.
        clip: Its id.
        start: First frame.
        frames: Number of frames T.
        resolution: Side S in pixels.
        mode: `cropped` corrects the intrinsics for the square crop, `as_released` does not.

    Raises:
        InputError: If the clip is missing, too short, or its cameras are not rigid.
    """
    part = PART_OF_ROLE[role]
    tree = find_tree(folder, part)
    video = video_of(tree, part, clip)
    files = (tree / f"{part}_poses" / f"{clip}{suffix}" for suffix in POSE_SUFFIXES)
    path = next((file for file in files if file.is_file()), None)
    if video is None or path is None:
        raise InputError(f"{tree} has no video or poses of clip {clip}; unpack the archive again")
    rgb = read_frames(video, start=start, frames=frames)
    cameras = to_cameras(read_poses(path)[start : start + frames])
    if len(cameras) < frames:
        raise InputError(f"{path} has no {start + frames} frames; unpack the archive again")
    cameras = _for_square(cameras, rgb.shape[2], rgb.shape[1], mode)
    try:
        check_cameras(torch.from_numpy(cameras))
    except ValueError as error:
        raise InputError(f"{path}: {error}; take the clip out of the choice") from None
    return square(rgb, resolution=resolution), cameras


def _for_square(cameras: np.ndarray, width: int, height: int, mode: str) -> np.ndarray:
    if mode == "as_released":
        return cameras
    # square frames were cut before they were published
    width, height = SOURCE_ASPECT if width == height else (width, height)
    return crop_intrinsics(cameras, width=width, height=height)


def import_shard(split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]) -> None:
    """Convert one shard of a split.

    Args:
        split: What is asked for; its settings are of `RealEstate10KSettings`.
        shard: Where it goes, the unpacked archive, and the split's clips from `choose_clips`.
        progress: Wraps the iteration over clips.

    Raises:
        InputError: If the choice is for other settings, or a clip cannot be read.
    """
    mode = split.settings.intrinsics

    def read(archive: Path, clip: str, start: int) -> ClipArrays:
        rgb, cam = read_clip(
            archive,
            split.role,
            clip,
            start=start,
            frames=split.frames,
            resolution=split.resolution,
            mode=mode,
        )
        return ClipArrays(rgb=rgb, cam=cam)

    import_chosen(split, shard, read, progress=progress)
