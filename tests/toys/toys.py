"""A toy of everything that can be added: a source, a method, a memory, a family of metrics.

The tests put this folder into PYTHONPATH and name the module under `plugins` in config/config.yaml;
docs/extend.md explains it part by part.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from geomem.memory.registry import KINDS, Memory, MemoryKind, Seen
from geomem.methods.registry import METHODS, Generator, MemoryFace, Method, Weights
from geomem.metrics.registry import (
    FAMILIES,
    ClipScores,
    ClipVideos,
    Metric,
    MetricFamily,
    Scorer,
)
from geomem.registry.strict import Strict
from geomem.sources.registry import SOURCES, ClipsOfSplit, Shard, Source, SourceSettings

if TYPE_CHECKING:
    from torch import Tensor, device

    from geomem.methods.clips import Clips, Sampling
    from geomem.methods.training import TrainedMethod

# --- source ---


class StripesSettings(SourceSettings):
    """A data set of stripes (`config/datasets/stripes.yaml`)."""

    width: int = Field(default=4, gt=0, description="pixels of a stripe")


class Stripes(Source):
    """Stripes that pass before a camera on its way sideways."""

    name = "stripes"
    summary = "toy: coloured stripes"
    terms = "none"
    Settings = StripesSettings

    def make_shard(
        self, split: ClipsOfSplit, shard: Shard, *, progress: Callable[..., Any]
    ) -> None:
        """Paint one shard."""
        import numpy as np

        from geomem.formats import ClipInfo, write_clip_shard

        rows, size = split.rows(shard.number), split.resolution
        column = np.arange(size)
        rgb = np.empty((len(rows), split.frames, size, size, 3), np.uint8)
        cam = np.zeros((len(rows), split.frames, 16), np.float32)
        cam[..., :4] = [0.6, 0.6, 0.5, 0.5]
        cam[..., [4, 9, 14]] = 1
        cam[..., 7] = -0.1 * np.arange(split.frames)
        for row, clip in enumerate(progress(rows)):
            for frame in range(split.frames):
                stripe = (column + frame) // split.settings.width % 2
                rgb[row, frame] = (60 * (clip + 1) * stripe + 20)[None, :, None]
        names = [f"stripes-{split.role}-{clip}" for clip in rows]
        clips = [ClipInfo(clip_id=name, scene=name, trajectory="walk") for name in names]
        write_clip_shard(
            shard.folder, rgb=rgb, cam=cam, depth=None, clips=clips, provenance=shard.record
        )


SOURCES.add(Stripes())

# --- method ---


class FadingSettings(Strict):
    """What a scale may say of it (`methods.fading`)."""

    start: float = Field(default=0.5, description="brightness before training")


class FadingGenerator(Generator):
    """The trained method at work."""

    def __init__(self, brightness: float) -> None:
        self.brightness = brightness

    def generate(self, clips: Clips, sampling: Sampling, *, progress: Callable[..., Any]) -> None:
        """Repeat the last given frame at the learned brightness."""
        last = clips.video[:, sampling.context - 1 : sampling.context]
        clips.video[:, sampling.context :] = self.brightness * last


class Fading(Method):
    """Repeats its context; its only parameter is the brightness of the copy."""

    name = "fading"
    summary = "toy: the context repeated, as bright as training found best"
    conditions = frozenset()
    Settings = FadingSettings

    def build(
        self, settings: FadingSettings, *, memory: MemoryFace | None, initial: Path | None
    ) -> TrainedMethod:
        """Return its network."""
        from fading import Copier, FadingMethod

        return FadingMethod(Copier(settings.start))

    def load(
        self,
        settings: FadingSettings,
        weights: Weights | None,
        *,
        memory: MemoryFace | None,
        device: device,
    ) -> Generator:
        """Return it with its trained brightness."""
        from fading import Copier

        from geomem.formats import load_module

        assert weights is not None
        copier = load_module(Copier, weights.checkpoint, "copier")
        return FadingGenerator(float(copier.brightness))


METHODS.add(Fading())

# --- memory ---


class OneColour(Memory):
    """The mean colour of finished frames."""

    def __init__(self, frames: Tensor) -> None:
        self.colour = 2 * frames.mean((0, 2, 3)) - 1

    def read(self, cameras: Tensor, size: int) -> dict[str, Tensor]:
        """Return the same colour for every target view."""
        shown = self.colour[None, :, None, None].expand(len(cameras), 3, size, size)
        return {"colour": shown.contiguous()}


class ColourMemory(MemoryKind):
    """A memory that remembers one colour; it asks nothing of the teacher."""

    name = "one_colour"
    summary = "toy: the mean colour of the history"
    form = "maps"

    def channels(self, features: int) -> dict[str, int]:
        """Return what it reads."""
        return {"colour": 3}

    def build(self, seen: Seen, settings: Strict) -> Memory:
        """Remember the frames' mean colour."""
        return OneColour(seen.frames)


KINDS.add(ColourMemory())

# --- metrics ---


class ColourScorer(Scorer):
    """Compares mean colours."""

    def clip(self, videos: ClipVideos) -> ClipScores:
        """Score one clip."""
        made, true = (v[videos.context :] for v in (videos.generated, videos.truth))
        error = (made.mean((1, 2, 3)) - true.mean((1, 2, 3))).abs().double()
        return ClipScores(
            values={"brightness_error": float(error.mean())}, curves={"brightness_error": error}
        )


class ColourErrors(MetricFamily):
    """A family of one metric."""

    name = "brightness"
    summary = "toy: how far brightness is off"
    metrics = (
        Metric(
            name="brightness_error", level="frame", label="brightness", better="lower", precision=4
        ),
    )

    def open(self, settings: Strict, device: device) -> Scorer:
        """Return the scorer; it has no network."""
        return ColourScorer()


FAMILIES.add(ColourErrors())
