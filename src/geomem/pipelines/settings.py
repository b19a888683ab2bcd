"""What a pipeline's folder says of it, in its `model_index.json`."""

from typing import Any, Self

from pydantic import field_validator, model_validator

from geomem.memory.registry import KINDS
from geomem.registry.strict import Positive, Strict
from geomem.settings.jobs import MemoryJob, RolloutJob, SamplingJob
from geomem.settings.memory import Geometry


class PipelineSettings(Strict):
    """A variant without its weights and without clips.

    Attributes:
        resolution: Side of the frames, pixels.
        sampling: How the network generates, where a call says nothing else.
        memory: The variant's memory, or None.
        geometry: How the teacher's depth comes to metres; None where nobody asks for depth.
    """

    resolution: Positive
    sampling: SamplingJob
    memory: MemoryJob | None = None
    geometry: Geometry | None = None

    @field_validator("memory")
    @classmethod
    def _of_the_kind(cls, memory: MemoryJob | None) -> MemoryJob | None:
        """Read the settings of the memory's kind by its own model."""
        if memory is None:
            return None
        known: Any = memory.settings
        if isinstance(known, dict):
            known = KINDS[memory.kind].Settings.model_validate(known)
        return memory.model_copy(update={"settings": known})

    @model_validator(mode="after")
    def _truth_is_not_at_hand(self) -> Self:
        if self.memory and self.memory.geometry == "truth":
            raise ValueError("a memory of true depth is a ceiling of the study: no pipeline has it")
        return self

    @classmethod
    def of(cls, job: RolloutJob, *, keyframe_density: float) -> Self:
        """Return the settings of a variant.

        Args:
            job: Of any of its rollouts.
            keyframe_density: Share of frames that are made first, in clips longer than a window.
        """
        assert job.sampling is not None
        asked = {"keyframe_density": keyframe_density, "kept": None}
        return cls(
            resolution=job.clips.resolution,
            sampling=job.sampling.model_copy(update=asked),
            memory=job.memory,
            geometry=job.geometry,
        )
