"""What the paper says of a scale: facts for its text, and the table of its setup."""

from typing import Any, Literal

from geomem.registry.strict import Positive, Strict
from geomem.settings.data import Split
from geomem.settings.evaluation import Guidance
from geomem.settings.jobs import MemoryJob, MethodJob
from geomem.settings.memory import Features
from geomem.settings.training import Optimization


class SetupRow(Strict):
    """What a recipe trains.

    Attributes:
        recipe: Its name.
        variants: That it trains.
        method: Of the first of them.
        memory: Of the first of them, if any.
        frames: Of a training window.
        windows: That its plan draws.
        optimization: The recipe itself.
    """

    recipe: str
    variants: tuple[str, ...]
    method: MethodJob
    memory: MemoryJob | None
    frames: Positive
    windows: Positive
    optimization: Optimization


class FactsJob(Strict):
    """States what the paper's text says of a scale.

    Attributes:
        scale: Its name.
        resolution: Side of a frame, pixels.
        seeds: How many trainings of each variant.
        context: Given frames of a video.
        sampling_steps: Of every generated frame.
        keyframe_density: Share of frames that are generated before those between them.
        keyframes: Guidance of those.
        interpolation: Guidance of the frames between them.
        scale_from: How the scale of the memory's geometry is found.
        embedded: Whether all videos are of worlds that the project makes itself.
        rows: Of the table of the setup.
        methods: What the scale says of methods, by name: of those that others start from.
        features: How the teacher's features are kept, or that they are not.
        teacher: Its name.
        architecture: Its sizes; none for VGGT-1B.
        splits: Which clips there are.
    """

    scale: str
    resolution: Positive
    seeds: Positive
    context: Positive
    sampling_steps: Positive
    keyframe_density: float
    keyframes: Guidance
    interpolation: Guidance
    scale_from: Literal["cameras", "colours"]
    embedded: bool
    rows: tuple[SetupRow, ...]
    methods: dict[str, Any]
    features: Features
    teacher: str
    architecture: dict[str, Any]
    splits: dict[str, Split]
