"""Clip plans, and the one way in which a window is read from a store."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from geomem.canonical import canonical_json
from geomem.errors import InputError
from geomem.formats.clips import ACTIONS, ClipStore
from geomem.formats.files import atomic_path, read_json


@dataclass(frozen=True, kw_only=True)
class Window:
    """One training window of a clip.

    Attributes:
        clip: Index of the clip in its store.
        frames: Frame numbers in the order the model sees them (stride, reversal resolved).
        history: The memory may choose from the clip's frames `0 .. history - 1`; 0 without memory.
        flip: Whether all frames and cameras are mirrored left-right.
    """

    clip: int
    frames: tuple[int, ...]
    history: int = 0
    flip: bool = False


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every window of a run in order, drawn from a seed; a tracked file."""

    split: str
    clip_ids: tuple[str, ...]
    windows: tuple[Window, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def write(self, path: Path | str) -> None:
        """Write the plan atomically; one window a line keeps differences readable."""
        content = self.content() | {"provenance": dict(self.provenance)}
        windows = content.pop("windows")
        head = canonical_json(content).rstrip("}\n")
        rows = ",\n".join(json.dumps(window, separators=(",", ":")) for window in windows)
        with atomic_path(path) as temporary:
            temporary.write_text(f'{head},\n "windows": [\n{rows}\n ]\n}}\n', encoding="utf-8")

    def content(self) -> dict[str, Any]:
        """Return what its file says, without its provenance."""
        return {
            "split": self.split,
            "clip_ids": list(self.clip_ids),
            "columns": ["clip", "frames", "history", "flip"],
            "windows": [[w.clip, list(w.frames), w.history, int(w.flip)] for w in self.windows],
        }

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Read a plan; InputError if the file is missing or damaged."""
        content = read_json(path)
        try:
            windows = tuple(
                Window(clip=c, frames=tuple(f), history=h, flip=bool(x))
                for c, f, h, x in content["windows"]
            )
            return cls(
                split=content["split"],
                clip_ids=tuple(content["clip_ids"]),
                windows=windows,
                provenance=content["provenance"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{path} is no clip plan ({error!r}); delete it and run again"
            ) from None

    def check_against(self, store: ClipStore, path: Path | str) -> None:
        """Raise InputError unless the plan was drawn for exactly the clips of `store`."""
        present = tuple(clip.clip_id for clip in store.clips)
        if present != self.clip_ids:
            raise InputError(
                f"{path} was drawn for other clips than {store.directory} holds "
                f"({len(self.clip_ids)} against {len(present)}); delete the plan and run again"
            )
        length = store.frames_per_clip
        for number, window in enumerate(self.windows):
            inside = 0 <= window.clip < len(present) and window.history <= length
            if not (inside and min(window.frames) >= 0 and max(window.frames) < length):
                raise InputError(
                    f"{path}: window {number} asks for frames that {store.directory} does not "
                    f"hold ({len(present)} clips of {length}); delete the plan and run again"
                )


class Frames(NamedTuple):
    """Frames as read through a plan: rgb uint8 (T, H, W, 3), cameras (T, 16), depth (T, H, W) and
    actions uint8 (T,) or None."""

    rgb: np.ndarray
    cameras: np.ndarray
    depth: np.ndarray | None
    actions: np.ndarray | None = None


def read_frames(
    store: ClipStore, clip: int, frames: tuple[int, ...], *, flip: bool, depth: bool = False
) -> Frames:
    """Read frames of a clip in the given order, mirrored left-right where `flip`."""
    rgb, cameras = store.rgb(clip, frames), store.cameras(clip, frames)
    distances = store.depth(clip, frames) if depth else None
    actions = store.actions(clip, frames) if store.has_actions else None
    if not flip:
        return Frames(rgb, cameras, distances, actions)
    mirrored = None if distances is None else np.ascontiguousarray(distances[:, :, ::-1])
    turned = None if actions is None else mirror_actions(actions)
    return Frames(np.ascontiguousarray(rgb[:, :, ::-1]), mirror_cameras(cameras), mirrored, turned)


def mirror_actions(actions: np.ndarray) -> np.ndarray:
    """Return the actions (T,) of the mirrored world: what led left leads right."""
    swapped = np.arange(len(ACTIONS), dtype=actions.dtype)
    left, right = ACTIONS.index("left"), ACTIONS.index("right")
    swapped[[left, right]] = right, left
    return swapped[actions]


def mirror_cameras(cameras: np.ndarray) -> np.ndarray:
    """Return the cameras (T, 16) of the left-right mirrored images of the mirrored world."""
    mirrored = cameras.copy()
    # M w2c M with M = diag(-1, 1, 1) changes the sign of r12, r13, t1, r21, r31
    mirrored[:, [5, 6, 7, 8, 12]] *= -1
    mirrored[:, 2] = 1 - mirrored[:, 2]
    return mirrored
