"""Import TECO's Minecraft videos (Yan et al. 2022, arXiv 2210.02396) into the clip store.

The tree, for `part` in (train, test), as TECO's loader reads it (wilson1yan/teco, teco/data.py and
scripts/download/minecraft.sh):

    minecraft/<part>/<worker>/<number>.mp4     square frames, 128 pixels, 20 a second
    minecraft/<part>/<worker>/<number>.npz     `actions` (T,) integers, one a frame

An action leads to its frame: 0 none (the first frame), 1 forward, 2 left by `turn` degrees, 3
right. Codes, 20 degrees and the time of an action, one tick of the game (1/20 s), are those of
wilson1yan/collect-minecraft, collect.py; DFoT (datasets/video/minecraft_video_dataset.py) has the
same four codes. The archive itself was not seen when this was written. Neither is in it what the
player really did: `forward` jumps as well, is stopped by blocks, and gathers speed over some ticks.
So cameras made of actions have true directions, but distances that are estimates, and a height that
is constant where the player's is not; 4.317 m/s (Minecraft Wiki, walking) and the game's default
field of view of 70 degrees are settings.

Shape suffixes: T frames, S pixels.
"""

import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from geomem.errors import InputError
from geomem.formats.clips import ACTIONS
from geomem.scenes.trajectories import look
from geomem.sources.chosen import ClipArrays, choose_by_hash, import_chosen, of_role
from geomem.sources.embedded import pinhole
from geomem.sources.kinds.minecraft import MinecraftSettings
from geomem.sources.registry import ClipsOfSplit, Shard
from geomem.sources.videos import count_frames, read_frames, square

PART_OF_ROLE = {"train": "train", "validation": "train", "test": "test"}
NONE, FORWARD, LEFT, RIGHT = range(len(ACTIONS))


def read_actions(path: Path) -> np.ndarray:
    """Return the actions uint8 (T,) of a clip from its .npz file.

    Raises:
        InputError: If the file is missing or damaged, or holds anything but such actions.
    """
    if not path.is_file():
        raise InputError(f"{path}, the clip's actions, is missing; unpack the archive again")
    try:
        with np.load(path, allow_pickle=False) as content:
            actions = content["actions"]
    except KeyError:
        raise InputError(f"{path} holds no `actions`; unpack the archive again") from None
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz file ({error}); unpack the archive again") from None
    if actions.ndim != 1 or actions.dtype.kind not in "iu":
        raise InputError(
            f"{path} holds actions {actions.dtype} {actions.shape}, expected integers (T,); "
            "unpack the archive again"
        )
    wrong = np.flatnonzero((actions < NONE) | (actions > RIGHT))
    if len(wrong):
        raise InputError(
            f"{path}: action {actions[wrong[0]]} of frame {wrong[0]} is none of 0 to 3 (none, "
            "forward, left, right); take the clip out of the archive"
        )
    return actions.astype(np.uint8)


def integrate(actions: np.ndarray, *, turn: float, step: float, fov: float) -> np.ndarray:
    """Return the cameras float32 (T, 16) of actions (T,), of which the first is not used.

    The first camera stands at the origin and looks along +z (OpenCV axes); the others move on the
    plane y = 0. A turn is on the spot, and what follows goes along it.

    Args:
        actions: Codes, each leading to its frame.
        turn: Degrees of a turn.
        step: Metres of an action forward.
        fov: Field of view of the square frames, degrees.
    """
    taken = actions[1:].astype(int)
    turns = np.select([taken == LEFT, taken == RIGHT], [-1, 1], 0)
    # whole turns are counted first, so that a full circle is one
    yaw = np.radians(turn * np.r_[0, np.cumsum(turns)])
    steps = np.where(taken == FORWARD, step, 0.0)[:, None]
    heading = np.stack([np.sin(yaw), np.zeros_like(yaw), np.cos(yaw)], axis=1)
    positions = np.concatenate([np.zeros((1, 3)), np.cumsum(steps * heading[1:], axis=0)])
    poses = look(positions, yaw).reshape(len(yaw), 12)
    return np.concatenate([np.tile(pinhole(fov), (len(yaw), 1)), poses], axis=1).astype(np.float32)


def find_part(folder: Path, part: str) -> Path:
    """Return the folder of a part: in `folder`, or in the one that the archive has around it.

    Raises:
        InputError: If there is none.
    """
    for tree in (folder / "minecraft" / part, folder / part):
        if tree.is_dir():
            return tree
    raise InputError(f"{folder} holds no minecraft/{part}; unpack the Minecraft archive there")


def candidates(part: Path, role: str) -> dict[str, Path]:
    """Return the video of every clip that a role may use, by id (`<worker>_<number>`)."""
    paths = {"_".join(p.relative_to(part).with_suffix("").parts): p for p in part.rglob("*.mp4")}
    return paths if role == "test" else of_role(paths, role)


def measure(video: Path) -> int | None:
    """Return the frames of a clip, None where it has no file of actions.

    Raises:
        InputError: If a file is damaged, or they disagree about the clip's length.
    """
    if not video.with_suffix(".npz").is_file():
        return None
    frames, actions = count_frames(video), len(read_actions(video.with_suffix(".npz")))
    if frames != actions:
        raise InputError(
            f"{video} has {frames} frames and {actions} actions; unpack the archive again, or take "
            "the clip out"
        )
    return frames


def choose_clips(folder: Path, split: ClipsOfSplit) -> dict[str, Any]:
    """Choose clips and first frames of a split, as `chosen.choose_by_hash`.

    Args:
        folder: The unpacked archive.
        split: What is asked for; its settings are of `MinecraftSettings`.
    """
    part = find_part(folder, PART_OF_ROLE[split.role])
    files = candidates(part, split.role)
    return choose_by_hash(
        files, lambda clip: measure(files[clip]), split, place=part, without="actions"
    )


def read_clip(
    video: Path, settings: MinecraftSettings, *, start: int, frames: int, resolution: int
) -> ClipArrays:
    """Return a part of one clip, with its actions where the data set is conditioned on them.

    Cameras are always there, since memories and metrics read them.

    Args:
        video: The clip's video; its actions lie beside it.
        settings: The data set's.
        start: First frame.
        frames: Number of frames T.
        resolution: Side S in pixels.

    Raises:
        InputError: If a file is missing, damaged or too short, or they disagree.
    """
    actions = read_actions(video.with_suffix(".npz"))
    measure(video)
    rgb = read_frames(video, start=start, frames=frames)
    shown = actions[start : start + frames]
    cam = integrate(shown, turn=settings.turn, step=settings.step, fov=settings.fov)
    told = shown if settings.conditioning == "actions" else None
    return ClipArrays(rgb=square(rgb, resolution=resolution), cam=cam, actions=told)


def import_shard(split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]) -> None:
    """Convert one shard of a split, as `chosen.import_chosen`.

    Args:
        split: What is asked for; its settings are of `MinecraftSettings`.
        shard: Where it goes, the unpacked archive, and the split's clips from `choose_clips`.
        progress: Wraps the iteration over clips.
    """

    @cache
    def files(archive: Path) -> dict[str, Path]:
        return candidates(find_part(archive, PART_OF_ROLE[split.role]), split.role)

    def read(archive: Path, clip: str, start: int) -> ClipArrays:
        if clip not in files(archive):
            raise InputError(f"{archive} has no video of clip {clip}; unpack the archive again")
        return read_clip(
            files(archive)[clip],
            split.settings,
            start=start,
            frames=split.frames,
            resolution=split.resolution,
        )

    import_chosen(split, shard, read, progress=progress)
