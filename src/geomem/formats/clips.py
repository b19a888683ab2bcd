"""The clip store: what every data set is brought to, embedded or real.

Shape suffixes: N clips, T frames, H rows, W columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from geomem.canonical import canonical_json
from geomem.errors import InputError
from geomem.formats.files import atomic_directory, check_sha256, read_json, sha256_file

CLIP_ARRAYS = {"rgb": "uint8", "cam": "float32", "depth": "float16", "actions": "uint8"}
SUMS = "crc32.npy"
ACTIONS = ("none", "forward", "left", "right")  # by their codes


@dataclass(frozen=True, kw_only=True)
class ClipInfo:
    """What the index keeps of one clip."""

    clip_id: str
    scene: str
    trajectory: str


class ClipStore:
    """Clips of one split: `shard-*/rgb.npy, cam.npy[, depth.npy][, actions.npy], crc32.npy,
    index.json`, memory-mapped. What is read is compared with its checksum, frame by frame.

    Frames are uint8 (T, H, W, 3), cameras float32 (T, 16) (normalised fx fy cx cy, then the 3x4
    world-to-camera matrix, OpenCV axes, row-major), depth float16 (T, H, W) planar z in metres,
    infinite where there is no surface, actions uint8 (T,), codes of `ACTIONS`, each of what
    led to its frame.
    """

    def __init__(self, directory: Path | str) -> None:
        """Open a split.

        Raises:
            InputError: If a shard is missing, truncated or of the wrong type.
        """
        self.directory = Path(directory)
        shards = sorted(self.directory.glob("shard-*"))
        if not shards:
            raise InputError(f"{self.directory} holds no clip shards; run the clips stage first")
        self._arrays: list[dict[str, np.ndarray]] = []
        self._place: list[tuple[int, int]] = []
        self.clips: list[ClipInfo] = []
        for number, shard in enumerate(shards):
            expected = self.directory / f"shard-{number:03d}"
            if shard != expected:
                raise InputError(f"{expected} is missing; run the clips stage for it")
            index = read_json(shard / "index.json")
            try:
                self._arrays.append(_open_shard(shard, index))
                self.clips += [ClipInfo(**clip) for clip in index["clips"]]
            except (KeyError, TypeError) as error:
                raise InputError(
                    f"{shard / 'index.json'} is no index of clips ({error!r}); {_remedy(shard)}"
                ) from None
            self._place += [(number, row) for row in range(len(index["clips"]))]

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def frames_per_clip(self) -> int:
        """Number of frames T of every clip."""
        return int(self._arrays[0]["rgb"].shape[1])

    @property
    def has_depth(self) -> bool:
        """Whether every shard stores true depth."""
        return all("depth" in arrays for arrays in self._arrays)

    @property
    def has_actions(self) -> bool:
        """Whether every shard stores actions."""
        return all("actions" in arrays for arrays in self._arrays)

    def _rows(self, name: str, clip: int, frames: Sequence[int] | slice) -> np.ndarray:
        shard, row = self._place[clip]
        if name not in self._arrays[shard]:
            raise InputError(f"{self.directory} stores no {name}; this data set has none")
        numbers = range(self.frames_per_clip)[frames] if isinstance(frames, slice) else list(frames)
        chosen = np.ascontiguousarray(self._arrays[shard][name][row][numbers])
        sums = self._arrays[shard]["crc32"][list(CLIP_ARRAYS).index(name), row]
        for number, frame in zip(numbers, chosen, strict=True):
            if crc32(frame.data) != sums[number]:
                place = self.directory / f"shard-{shard:03d}"
                raise InputError(
                    f"{place / f'{name}.npy'}, clip {self.clips[clip].clip_id}, frame {number} "
                    f"fails its checksum; {_remedy(place)}"
                )
        return chosen

    def rgb(self, clip: int, frames: Sequence[int] | slice = slice(None)) -> np.ndarray:
        """Return uint8 (T, H, W, 3)."""
        return self._rows("rgb", clip, frames)

    def cameras(self, clip: int, frames: Sequence[int] | slice = slice(None)) -> np.ndarray:
        """Return float32 (T, 16)."""
        return self._rows("cam", clip, frames)

    def depth(self, clip: int, frames: Sequence[int] | slice = slice(None)) -> np.ndarray:
        """Return float32 (T, H, W), metres."""
        return self._rows("depth", clip, frames).astype(np.float32)

    def actions(self, clip: int, frames: Sequence[int] | slice = slice(None)) -> np.ndarray:
        """Return uint8 (T,), codes of `ACTIONS`."""
        return self._rows("actions", clip, frames)


def _remedy(shard: Path) -> str:
    return f"delete the folder {shard} and run the workflow again"


def _open_shard(shard: Path, index: dict[str, Any]) -> dict[str, np.ndarray]:
    arrays, remedy = {}, _remedy(shard)
    for name, expected in index["arrays"].items():
        path = shard / f"{name}.npy"
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise InputError(f"{path} is missing; {remedy}") from None
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{path} is truncated or no array ({error}); {remedy}") from None
        if list(array.shape) != expected["shape"] or str(array.dtype) != expected["dtype"]:
            raise InputError(
                f"{path} is {array.dtype} {array.shape}, its index says {expected['dtype']} "
                f"{tuple(expected['shape'])}; {remedy}"
            )
        arrays[name] = array
    check_sha256(shard / SUMS, index["arrays"]["crc32"]["sha256"], remedy)
    return arrays


def write_clip_shard(
    shard: Path | str,
    *,
    rgb: np.ndarray,
    cam: np.ndarray,
    depth: np.ndarray | None,
    actions: np.ndarray | None = None,
    clips: Sequence[ClipInfo],
    provenance: Mapping[str, Any],
) -> None:
    """Write one shard directory atomically.

    Args:
        shard: `.../shard-000`.
        rgb: uint8 (N, T, H, W, 3).
        cam: float32 (N, T, 16).
        depth: float16 (N, T, H, W) or None.
        actions: uint8 (N, T) or None.
        clips: What each row is.
        provenance: Settings and version that made it.

    Raises:
        ValueError: If shapes or types disagree.
    """
    optional = {"depth": depth, "actions": actions}
    arrays = {"rgb": rgb, "cam": cam} | {k: v for k, v in optional.items() if v is not None}
    for name, array in arrays.items():
        if str(array.dtype) != CLIP_ARRAYS[name] or array.shape[:2] != (len(clips), rgb.shape[1]):
            raise ValueError(f"{name} is {array.dtype} {array.shape} for {len(clips)} clips")
    # Shards without actions have no row for them, as those had that were made before.
    summed = [name for name in CLIP_ARRAYS if name in arrays or name != "actions"]
    sums = np.zeros((len(summed), *rgb.shape[:2]), dtype=np.uint32)
    for number, name in enumerate(summed):
        for place in np.ndindex(*rgb.shape[:2]) if name in arrays else ():
            sums[number][place] = crc32(np.ascontiguousarray(arrays[name][place]).data)
    with atomic_directory(shard) as temporary:
        entries = {}
        for name, array in (arrays | {"crc32": sums}).items():
            np.save(temporary / f"{name}.npy", array, allow_pickle=False)
            entries[name] = {
                "shape": list(array.shape),
                "dtype": str(array.dtype),
                "sha256": sha256_file(temporary / f"{name}.npy"),
            }
        index = {
            "arrays": entries,
            "clips": [asdict(clip) for clip in clips],
            "provenance": dict(provenance),
        }
        (temporary / "index.json").write_text(canonical_json(index), encoding="utf-8")
