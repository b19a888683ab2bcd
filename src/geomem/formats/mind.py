"""Files of the MIND benchmark (arXiv 2602.08025): actions of true clips, poses, scores.

Truth lies in `MIND-Data/{1st_data,3rd_data}/test/{mem_test,action_space_test}/NAME`, as
`action.json`, `images.txt` and `video.mp4`. The videos of a model lie in `MODEL` in the same way
without `test`: `NAME/video.mp4` begins with the truth's frame `mark_time`. A mirrored return is
`mirror_test/ANY/path-1.mp4` to `path-10.mp4`, 2N frames of which i shows the place of 2N - 1 - i.
Of third-person data the poses of the cameras are left out.

Legend: T frames.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from geomem.errors import InputError
from geomem.formats.files import atomic_path, write_json
from geomem.formats.mind_results import Count, Finite, Results

TRUTH = "MIND-Data"
PERSPECTIVES = ("1st_data", "3rd_data")
TRUE_TESTS = ("mem_test", "action_space_test")
PATHS = 10  # videos in a folder of a mirror test
RATE = 24  # frames a second
BATCH = 100  # frames that its code compares at once
WIDTH, HEIGHT = 1280, 720  # pixels that it compares

Key = Literal[0, 1, 2]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Vector:
    """Three numbers: a position in Unreal's centimetres, or roll, pitch and yaw in degrees."""

    x: Finite
    y: Finite
    z: Finite


@dataclass(frozen=True, kw_only=True)
class Moment:
    """A frame of an action file: its keys (0 none), and where the actor stands.

    Attributes:
        time: Number of the frame.
        ws: 1 forward, 2 backward.
        ad: 1 left, 2 right.
        ud: 1 look up, 2 look down.
        lr: 1 look left, 2 look right.
        actor_pos: Position.
        actor_rpy: Angles.
    """

    time: Count
    ws: Key
    ad: Key
    ud: Key
    lr: Key
    actor_pos: Vector
    actor_rpy: Vector


@dataclass(frozen=True, kw_only=True)
class Action:
    """`action.json` of a true clip; `mark_time` is the first frame to be generated."""

    mark_time: Count
    total_time: Count
    data: tuple[Moment, ...]
    caption: str = ""  # the description has it, and some of the data do not

    def __post_init__(self) -> None:
        times = [moment.time for moment in self.data]
        if times != sorted(set(times)):
            raise ValueError("the times of data do not rise")
        if not self.mark_time < min(self.total_time, len(times)):
            raise ValueError(f"no frame follows mark_time {self.mark_time}")


def _read(path: Path, kind: type[T], what: str) -> T:
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        raise InputError(f"{path} is missing") from None
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        told = fault["msg"].removeprefix("Value error, ")
        raise InputError(f"{path} is no {what} of MIND: {place and place + ': '}{told}") from None


def read_action(path: Path) -> Action:
    """Return the content of an `action.json`; what it has beyond `Action` is left out.

    Raises:
        InputError: If it is missing, or something in it is missing or malformed.
    """
    return _read(path, Action, "action.json")


def write_action(path: Path, action: Action) -> None:
    """Write an `action.json`, atomically."""
    write_json(path, asdict(action))


def write_images(path: Path, poses: np.ndarray, *, first: int) -> None:
    """Write an `images.txt`, COLMAP's list of poses, which spares MIND estimating the true ones.

    Args:
        path: File to write.
        poses: (T, 7) quaternion w, x, y, z and translation of world-to-camera poses, OpenCV axes.
        first: Number of the first frame.
    """
    lines = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME; below it no points"]
    for number, pose in enumerate(poses, first):
        # sorted by name, so the digits are filled up
        lines += [f"{number + 1} {' '.join(f'{x:.9g}' for x in pose)} 1 {number:06d}.png", ""]
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_results(path: Path) -> Results:
    """Return the content of a result file.

    Raises:
        InputError: If it is missing, or something in it is missing or malformed.
    """
    return _read(path, Results, "result file")
