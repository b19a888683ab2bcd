"""Training windows in plan order.

Axes: T frames of a window, K memory frames, M channels of a memory, D width of compressed
features, S pixels along a side of a frame, h and w cells of the teacher's grid.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from geomem.errors import InputError
from geomem.formats import ClipStore, FeatureCache, Plan, read_frames
from geomem.geometry.cameras import check_cameras
from geomem.memory.bank import elapsed, pad_bank
from geomem.memory.corruption import corrupt
from geomem.memory.registry import Memory, Seen
from geomem.memory.selection import choose_frames
from geomem.methods.training import MEMORY
from geomem.settings.jobs import MemoryJob, TrainingJob
from geomem.settings.memory import Corruption

TOLD = ("depth", "confidence", "features")  # by the teacher, of each memory frame


def to_model_range(rgb: Any) -> Tensor:
    """Return uint8 frames (T, H, W, 3) as float32 (T, 3, H, W) in [-1, 1]."""
    return rearrange(torch.as_tensor(rgb).float() / 127.5 - 1, "t h w c -> t c h w")


class WindowDataset(Dataset[dict[str, Tensor]]):
    """Windows of a plan as tensors, in plan order.

    Each item holds `frames` (T, 3, S, S) in [-1, 1] and `cameras` (T, 16), and `actions` (T,) where
    the clips have them; with a memory also what it reads by name, `memory.<name>`: maps (T, M, S,
    S) in every target view; tokens (K, M, h, w), padded with zeros to the largest number of frames;
    or frames and cameras, K of each, of which the newest is repeated where the history is shorter,
    and is not `present` if the network reads it from a bank; with alignment also `tokens` (T, D, h,
    w), the teacher's dequantised features of the window.
    """

    def __init__(
        self,
        store: ClipStore,
        plan: Plan,
        *,
        memory: MemoryJob | None = None,
        corruption: Corruption | None = None,
        memory_cache: FeatureCache | None = None,
        window_cache: FeatureCache | None = None,
    ) -> None:
        """Bind plan, clips and caches.

        Args:
            store: Clips of the plan's split.
            plan: The plan.
            memory: The variant's memory, or None.
            corruption: Errors of the memory frames; they are a function of the window's number.
            memory_cache: Cached reconstructions of the memory frames.
            window_cache: Cached features of the windows themselves, for alignment.
        """
        self.store, self.plan, self.corruption = store, plan, corruption
        self.memory, self.memory_cache, self.window_cache = memory, memory_cache, window_cache
        if memory and memory.geometry == "truth" and not store.has_depth:
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
        if frames.actions is not None:
            item["actions"] = torch.from_numpy(frames.actions.astype(np.int64))
        if self.memory:
            item |= self._remembered(self.memory, index, item["cameras"])
        if self.window_cache:
            item["tokens"] = self.window_cache.row(index)["features"]
        return item

    def _remembered(self, memory: MemoryJob, index: int, cameras: Tensor) -> dict[str, Tensor]:
        """Return what the window's memory reads of it."""
        size = self.store.rgb(0, [0]).shape[1]
        read = self._build(memory, index).read(cameras, size)
        if memory.spec.form == "maps":
            return {MEMORY + name: tensor for name, tensor in read.items()}
        missing = memory.most - len(next(iter(read.values())))
        if memory.spec.form == "tokens":
            read = {name: pad(tokens, (*(0, 0) * 3, 0, missing)) for name, tokens in read.items()}
        elif memory.spec.form == "bank":
            read = pad_bank(read, memory.most)
        else:  # a short history repeats its newest frame
            read = {name: torch.cat([x, *[x[-1:]] * missing]) for name, x in read.items()}
        return {MEMORY + name: tensor for name, tensor in read.items()}

    def _build(self, memory: MemoryJob, index: int) -> Memory:
        """Build the memory of a window from the frames that its cache names."""
        kind = memory.spec
        if not memory.most:
            return kind.empty(memory.channels)
        window = self.plan.windows[index]
        truth = memory.geometry == "truth"
        cached = self._cached(memory, index)
        chosen = tuple(cached["frames"][cached["frames"] >= 0].tolist())
        frames = read_frames(self.store, window.clip, chosen, flip=window.flip, depth=truth)
        if self.memory_cache is not None and len(chosen) > memory.most:
            raise InputError(
                f"{self.memory_cache.directory} has {len(chosen)} frames of window {index}, the "
                f"memory {memory.most} at most; give the cache of this variant"
            )
        told = {name: tensor[: len(chosen)] for name, tensor in cached.items() if name in TOLD}
        if truth:
            told["depth"] = torch.from_numpy(frames.depth)
        seen = Seen(
            frames=(to_model_range(frames.rgb) + 1) / 2,
            cameras=torch.from_numpy(frames.cameras),
            elapsed=elapsed([*chosen], [*window.frames], torch.empty(0)),
            **told,
        )
        if self.corruption is not None:
            generator = torch.Generator().manual_seed(index)
            seen = corrupt(seen, generator, **self.corruption.model_dump())
        return kind.build(seen, memory.settings)

    def _cached(self, memory: MemoryJob, index: int) -> dict[str, Tensor]:
        """Return which frames a window's memory holds, and what the teacher says of them."""
        if self.memory_cache is not None:
            row: dict[str, Tensor] = self.memory_cache.row(index)
            return row
        if memory.spec.needs:
            raise InputError(f"memory {memory.kind} needs --memory-features")
        window = self.plan.windows[index]
        chosen = choose_frames(
            range(window.history),
            window.frames,
            torch.from_numpy(self.store.cameras(window.clip).copy()),
            memory.cache.number(index),
            selection=memory.selection,
            near=memory.overlap.near,
            far=memory.overlap.far,
            number=index,
        )
        return {"frames": torch.tensor(chosen)}


def open_dataset(
    clips: Path,
    plan_path: Path,
    settings: TrainingJob,
    *,
    memory_cache: Path | None = None,
    window_cache: Path | None = None,
) -> WindowDataset:
    """Open the files behind a run and check that they belong together.

    Args:
        clips: Directory of the plan's split.
        plan_path: The plan.
        settings: Of the job.
        memory_cache: Folder of cached memory frames; none for a memory that is always empty.
        window_cache: Folder of cached features of the windows, for alignment.
    """
    store, plan = ClipStore(clips), Plan.read(plan_path)
    plan.check_against(store, plan_path)
    caches = [
        FeatureCache(path, plan_path=plan_path) if path else None
        for path in (memory_cache, window_cache)
    ]
    return WindowDataset(
        store,
        plan,
        memory=settings.memory,
        corruption=settings.corruption,
        memory_cache=caches[0],
        window_cache=caches[1],
    )
