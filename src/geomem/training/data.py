"""Training windows in plan order.

Axes: T frames of a window, K memory frames, M channels of a memory's map or history, D width of
compressed features, S pixels along a side of a frame, h and w cells of the teacher's grid.
"""

from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import Dataset

from geomem.formats import ClipStore, FeatureCache, InputError, Plan, read_frames
from geomem.geometry.cameras import check_cameras
from geomem.memory.explicit import ExplicitMemory
from geomem.memory.implicit import encode_history


def to_model_range(rgb: Any) -> Tensor:
    """Return uint8 frames (T, H, W, 3) as float32 (T, 3, H, W) in [-1, 1]."""
    return rearrange(torch.as_tensor(rgb).float() / 127.5 - 1, "t h w c -> t c h w")


class WindowDataset(Dataset[dict[str, Tensor]]):
    """Windows of a plan as tensors, in plan order.

    Each item holds `frames` (T, 3, S, S) in [-1, 1] and `cameras` (T, 16); with a memory also
    `memory`: the memory's map in every target view (T, M, S, S), or where it is implicit the
    history that it compresses (K, M, h, w); with alignment also `tokens` (T, D, h, w), the
    teacher's dequantised features of the window.
    """

    def __init__(
        self,
        store: ClipStore,
        plan: Plan,
        *,
        memory: dict[str, Any] | None = None,
        memory_cache: FeatureCache | None = None,
        window_cache: FeatureCache | None = None,
    ) -> None:
        """Bind plan, clips and caches.

        Args:
            store: Clips of the plan's split.
            plan: The plan.
            memory: `frames`, `channels` (of the features), `voxel_size`, `budget`,
                `confidence_quantile`, `geometry` of the memory; or `frames`, `implicit` of an
                implicit one.
            memory_cache: Cached reconstructions of the memory frames.
            window_cache: Cached features of the windows themselves, for alignment.
        """
        self.store, self.plan = store, plan
        self.memory, self.memory_cache, self.window_cache = memory, memory_cache, window_cache
        if memory and memory["geometry"] == "truth" and not store.has_depth:
            raise InputError(f"{store.directory} has no true depth; use `geometry: teacher`")

    def __len__(self) -> int:
        return len(self.plan.windows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        window = self.plan.windows[index]
        frames = read_frames(self.store, window.clip, window.frames, flip=window.flip)
        try:
            check_cameras(torch.from_numpy(frames.cameras))
        except ValueError as error:
            clip = self.store.clips[window.clip].clip_id
            raise InputError(
                f"{self.store.directory}, clip {clip}: {error}; make it again"
            ) from None
        item = {
            "frames": to_model_range(frames.rgb),
            "cameras": torch.from_numpy(frames.cameras),
        }
        if self.memory:
            implicit = "implicit" in self.memory
            read = self._history if implicit else self._memory_map
            item["memory"] = read(index, item["cameras"])
        if self.window_cache:
            item["tokens"] = self.window_cache.row(index)["features"]
        return item

    def _history(self, index: int, cameras: Tensor) -> Tensor:
        assert self.memory and self.memory_cache
        window, cached = self.plan.windows[index], self.memory_cache.row(index)
        chosen = tuple(cached["frames"][cached["frames"] >= 0].tolist())
        seen = read_frames(self.store, window.clip, chosen, flip=window.flip)
        return encode_history(
            cached["features"][: len(chosen)],
            torch.from_numpy(seen.cameras),
            cameras[0],
            frames=self.memory["frames"],
        )

    def _memory_map(self, index: int, cameras: Tensor) -> Tensor:
        assert self.memory
        size = self.store.rgb(0, [0]).shape[1]
        if not self.memory["frames"]:
            return ExplicitMemory.empty(self.memory["channels"]).render(cameras, size)
        assert self.memory_cache
        window, cached = self.plan.windows[index], self.memory_cache.row(index)
        chosen = tuple(cached["frames"][cached["frames"] >= 0].tolist())
        truth = self.memory["geometry"] == "truth"
        seen = read_frames(self.store, window.clip, chosen, flip=window.flip, depth=truth)
        kept = len(chosen)
        depth = torch.from_numpy(seen.depth) if truth else cached["depth"][:kept]
        built = ExplicitMemory.build(
            (to_model_range(seen.rgb) + 1) / 2,
            torch.from_numpy(seen.cameras),
            depth,
            cached["confidence"][:kept],
            cached["features"][:kept],
            budget=self.memory["budget"],
            voxel_size=self.memory["voxel_size"],
            confidence_quantile=self.memory["confidence_quantile"],
        )
        return built.render(cameras, size)


def open_dataset(
    clips: Path,
    plan_path: Path,
    settings: dict[str, Any],
    *,
    memory_cache: Path | None = None,
    window_cache: Path | None = None,
) -> WindowDataset:
    """Open the files behind a run and check that they belong together.

    Args:
        clips: Directory of the plan's split.
        plan_path: The plan.
        settings: `Config.training_settings`.
        memory_cache: Folder of cached memory frames; none for a memory that is always empty.
        window_cache: Folder of cached features of the windows, for alignment.
    """
    store, plan = ClipStore(clips), Plan.read(plan_path)
    plan.check_against(store, plan_path)
    caches = [
        FeatureCache(path, plan_path=plan_path) if path else None
        for path in (memory_cache, window_cache)
    ]
    memory = None
    if chosen := settings["variant"]["memory"]:
        channels = settings["features"]["channels"]
        memory = {**settings["memory"], **chosen, "channels": channels}
    return WindowDataset(store, plan, memory=memory, memory_cache=caches[0], window_cache=caches[1])
