"""Read the tables of nuScenes: the frames of one camera, scene by scene, with their cameras.

The tree is that of the published schema (nuscenes-devkit, docs/schema_nuscenes.md):

    <root>/<version>/{scene,sample,sample_data,ego_pose,calibrated_sensor,sensor,log}.json
    <root>/samples/CAM_FRONT/*.jpg   keyframes, 2 a second
    <root>/sweeps/CAM_FRONT/*.jpg    what lies between them, about 12 a second together

Rows refer to each other by tokens. `ego_pose` leads from the car to the map, `calibrated_sensor`
from the camera (OpenCV axes) to the car; rotations are quaternions w x y z, lengths metres,
timestamps microseconds. `sample_data` and `ego_pose` have millions of rows, so tables are read row
by row and only what is wanted is kept.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geomem.errors import InputError

Row = dict[str, Any]
# What is read of each table, beside the token.
COLUMNS = {
    "log": {"logfile"},
    "scene": {"name", "log_token"},
    "sensor": {"channel"},
    "calibrated_sensor": {"sensor_token", "translation", "rotation", "camera_intrinsic"},
    "sample": {"scene_token"},
    "sample_data": {
        *("sample_token", "ego_pose_token", "calibrated_sensor_token", "filename", "timestamp"),
        *("width", "height", "prev", "next"),
    },
    "ego_pose": {"translation", "rotation"},
}
_CHUNK = 1 << 20  # characters read at once


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One image.

    Attributes:
        filename: Below the root.
        timestamp: Microseconds.
        size: Width and height in pixels.
        intrinsics: (3, 3) in pixels, whole numbers at the middles of pixels.
        pose: (4, 4) camera to map, metres, float64.
    """

    filename: str
    timestamp: int
    size: tuple[int, int]
    intrinsics: np.ndarray
    pose: np.ndarray


def rows_of(path: Path) -> Iterator[Row]:
    """Yield the rows of a table one by one, without holding the file.

    Raises:
        InputError: If it is missing, truncated, or no list of rows.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing; unpack the metadata of nuScenes there")
    decode, text = json.JSONDecoder().raw_decode, ""
    begun = False
    with path.open(encoding="utf-8") as file:
        while True:
            chunk = file.read(_CHUNK)
            text = (text + chunk).lstrip(" \n\r\t," if begun else " \n\r\t")
            if not begun and text:
                if not text.startswith("["):
                    break
                text, begun = text[1:].lstrip(), True
            while text and text[0] != "]":
                try:
                    row, end = decode(text)
                except json.JSONDecodeError:
                    break  # the row goes on in the next chunk
                if not isinstance(row, dict) or "token" not in row:
                    raise InputError(f"{path} holds {str(row)[:40]!r}, no row with a token")
                yield row
                text = text[end:].lstrip(" \n\r\t,")
            if begun and text.startswith("]"):
                return
            if not chunk:
                break
    raise InputError(f"{path} is truncated or no table of nuScenes; unpack the metadata again")


class Tables:
    """The tables of one version, for one camera."""

    def __init__(self, root: Path, version: str, channel: str) -> None:
        """Read scenes, drives and the camera's calibrations.

        Raises:
            InputError: If there is no such version, table or camera.
        """
        self.folder, self.channel = root / version, channel
        if not self.folder.is_dir():
            found = sorted(path.name for path in root.glob("v1.0-*"))
            raise InputError(
                f"{self.folder} is missing; name as `version` one of those in {root}: "
                f"{', '.join(found) or 'there is none, unpack the metadata of nuScenes there'}"
            )
        logs = self._read("log")
        rows = self._read("scene").values()
        self.scenes = {row["name"]: row for row in rows}
        self.drive_of = {
            row["name"]: self._of(logs, row, "log_token", "scene")["logfile"] for row in rows
        }
        channels = {row["channel"]: token for token, row in self._read("sensor").items()}
        if channel not in channels:
            raise InputError(
                f"{self.folder / 'sensor.json'} has no {channel}; it has {[*channels]}"
            )
        sensor = channels[channel]
        self._calibrations = self._read(
            "calibrated_sensor", lambda row: bool(row["sensor_token"] == sensor)
        )

    def frames(self, scenes: set[str]) -> dict[str, list[Frame]]:
        """Return the camera's frames of scenes (by name) in order of time, all about 12 Hz.

        Raises:
            InputError: If a chain of frames is broken, or a row that one refers to is missing.
        """
        names = {self.scenes[name]["token"]: name for name in scenes}
        samples = self._read("sample", lambda row: row["scene_token"] in names)
        images = self._read(
            "sample_data",
            lambda row: (
                row["calibrated_sensor_token"] in self._calibrations
                and row["sample_token"] in samples
            ),
        )
        wanted = {row["ego_pose_token"] for row in images.values()}
        poses = self._read("ego_pose", lambda row: row["token"] in wanted)
        by_scene: dict[str, dict[str, Row]] = {name: {} for name in scenes}
        for token, row in images.items():
            by_scene[names[samples[row["sample_token"]]["scene_token"]]][token] = row
        return {
            name: [self._frame(row, poses) for row in self._chain(name, rows)]
            for name, rows in by_scene.items()
        }

    def _read(self, name: str, keep: Callable[[Row], bool] = lambda row: True) -> dict[str, Row]:
        """Return the wanted rows of a table by their tokens."""
        path, kept = self.folder / f"{name}.json", dict[str, Row]()
        for row in rows_of(path):
            if lacking := COLUMNS[name] - row.keys():
                raise InputError(
                    f"{path}: row {row['token']} has no {min(lacking)}; unpack the metadata again"
                )
            if keep(row):
                kept[row["token"]] = row
        return kept

    def _of(self, rows: dict[str, Row], row: Row, key: str, table: str) -> Row:
        """Return the row that `row` of a table refers to."""
        if row[key] not in rows:
            raise InputError(
                f"{self.folder / table}.json: {key} {row[key]!r} of row {row['token']} is in no "
                "table; unpack the metadata again"
            )
        return rows[row[key]]

    def _chain(self, scene: str, rows: dict[str, Row]) -> list[Row]:
        """Return the rows of a scene from the first to the last, each the `next` of the one before.

        A chain that leaves out a row, branches, or goes back in time would be a clip that jumps.
        """
        where = f"{self.folder / 'sample_data.json'}: {self.channel} of {scene}"
        remedy = "unpack the metadata again"
        first = [row for row in rows.values() if row["prev"] not in rows]
        if len(first) != 1:
            raise InputError(f"{where} begins {len(first)} times; {remedy}")
        chain = first
        while (token := chain[-1]["next"]) in rows:
            row = rows[token]
            if row["prev"] != chain[-1]["token"] or row["timestamp"] <= chain[-1]["timestamp"]:
                raise InputError(f"{where}: {token} is not after {chain[-1]['token']}; {remedy}")
            chain.append(row)
        if len(chain) < len(rows):
            raise InputError(
                f"{where} breaks off at {chain[-1]['token']}, after {len(chain)} of {len(rows)} "
                f"frames; {remedy}"
            )
        return chain

    def _frame(self, row: Row, poses: dict[str, Row]) -> Frame:
        camera = self._calibrations[row["calibrated_sensor_token"]]
        car = self._of(poses, row, "ego_pose_token", "sample_data")
        intrinsics = np.array(camera["camera_intrinsic"], np.float64)
        if intrinsics.shape != (3, 3):
            raise InputError(
                f"{self.folder / 'calibrated_sensor.json'}: {camera['token']} has no 3x3 "
                "camera_intrinsic; unpack the metadata again"
            )
        return Frame(
            filename=row["filename"],
            timestamp=row["timestamp"],
            size=(row["width"], row["height"]),
            intrinsics=intrinsics,
            pose=rigid(car) @ rigid(camera),
        )


def rigid(row: Row) -> np.ndarray:
    """Return the (4, 4) transform of a row with `rotation` (w x y z) and `translation`.

    Raises:
        InputError: If the quaternion is not one of a rotation.
    """
    w, x, y, z = (float(v) for v in row["rotation"])
    length = np.sqrt(w * w + x * x + y * y + z * z)
    if not abs(length - 1) < 1e-3:
        raise InputError(f"rotation {row['rotation']} of {row['token']} is no unit quaternion")
    w, x, y, z = (v / length for v in (w, x, y, z))
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = row["translation"]
    return pose
