"""What each job may read: its settings, whose digest is the job's parameter in the workflow.

`geomem.config.jobs` makes them of the configuration. Records keep them as plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from geomem.formats.cache_kinds import CacheKind
from geomem.memory.registry import KINDS, MemoryKind
from geomem.methods.registry import METHODS, HiddenState, MemoryFace, Method
from geomem.metrics.registry import FAMILIES, MetricFamily
from geomem.metrics.scene_calibration import SceneSettings
from geomem.registry.strict import Positive, Share, Strict
from geomem.settings.analysis import Analysis, AnalysisFigure, AnalysisRow
from geomem.settings.data import PlanSettings
from geomem.settings.evaluation import (
    Consistency,
    ContentBias,
    Figure,
    Guidance,
    Partial,
    TableSettings,
    Video,
)
from geomem.settings.fidelity import CacheFidelity
from geomem.settings.memory import Corruption, Features, Geometry, Overlap, TeacherTraining
from geomem.settings.training import Noise, Objective, Optimization
from geomem.sources.registry import ClipsOfSplit

if TYPE_CHECKING:
    from geomem.methods.training import TrainedMethod

Precision = Literal["fp32", "bf16"]


class MethodJob(Strict):
    """A method with its settings at a scale."""

    name: str
    version: int
    settings: Any

    @property
    def spec(self) -> Method:
        """What the registry has under its name."""
        return METHODS[self.name]

    def shell(self, memory: MemoryJob | None, others: Mapping[str, Any]) -> TrainedMethod:
        """Return the method with random weights of its true sizes, to be counted.

        Args:
            memory: What it reads, or None.
            others: What the scale says of methods, by name: of those that it starts from.
        """
        start = None
        if self.spec.starts_from:
            name = min(self.spec.starts_from)
            start = METHODS[name].build(others[name], memory=None, initial=None)
        face = memory.face if memory else None
        return self.spec.shell(self.settings, memory=face, start=start)


class MemoryJob(Strict):
    """A variant's memory.

    Attributes:
        kind: Its name.
        version: Of the kind.
        settings: Of the kind.
        fewest: Smallest number of memory frames; 0 where the memory is always empty.
        most: Largest number.
        geometry: Whether depth is the teacher's or the truth.
        selection: How frames are chosen.
        overlap: Depths between which views overlap.
        channels: Of the compressed features.
        backbone: Whether the backbone was frozen or trained with the branch.
        gate: Whether the branch has a copy gate.
        new_branch: Whether its branch was trained from nothing though its start had one; not among
            the settings of all others, which stay as they were.
    """

    kind: str
    version: int
    settings: Any
    fewest: int
    most: int
    geometry: Literal["teacher", "truth"]
    selection: Literal["time", "overlap", "worldmem"]
    overlap: Overlap
    channels: int
    backbone: Literal["frozen", "trained"] = "frozen"
    gate: bool = False
    new_branch: bool = Field(default=False, exclude_if=lambda chosen: not chosen)

    @property
    def spec(self) -> MemoryKind:
        """What the registry has under its kind."""
        return KINDS[self.kind]

    @property
    def cache(self) -> CacheKind:
        """The kind of cache that holds its frames, where they are cached."""
        return CacheKind(fewest=self.fewest, most=self.most, selection=self.selection)

    @property
    def face(self) -> MemoryFace:
        """What a network has to know of it."""
        channels = self.spec.channels(self.channels)
        return MemoryFace(
            form=self.spec.form,
            channels=channels,
            settings=self.settings,
            trains_backbone=self.backbone == "trained",
            gate=self.gate,
            new_branch=self.new_branch,
        )


class TeacherModel(Strict):
    """A frozen 3D teacher that a job loads: sizes (none for VGGT-1B), checksum, precision."""

    architecture: dict[str, Any]
    sha256: str
    precision: Precision = "fp32"


class DinoV2Model(Strict):
    """A frozen DINOv2 that a job loads."""

    sha256: str
    embed_dim: Positive
    depth: Positive
    num_heads: Positive
    image_size: Positive
    patch_size: Positive


class ImageTeacherModel(Strict):
    """The frozen 2D teacher: DINOv2, or the image encoder of a VGGT that stands in for it."""

    dinov2: DinoV2Model | None = None
    encoder_of: TeacherModel | None = None


class AlignmentJob(Strict):
    """3D-REPA of a variant.

    Attributes:
        objective: Which loss.
        level: Index of the aligned hidden state.
        frames: Aligned frames of a window; None for all.
        weight: Of the alignment's term.
        scale_weight: Of the scale's term.
        image_teacher: The 2D teacher, where it is one.
        online: The 3D teacher, where it runs while training.
        layer: Of its raw tokens, where these are compared and not compressed ones.
        teacher_sees: Whether it sees whole windows or the aligned frames alone.
    """

    objective: Objective
    level: int
    frames: Positive | None
    weight: float
    scale_weight: float
    image_teacher: ImageTeacherModel | None = None
    online: TeacherModel | None = None
    layer: int | None = Field(default=None, exclude_if=lambda layer: layer is None)
    teacher_sees: Literal["window", "aligned"] = Field(
        default="window", exclude_if=lambda seen: seen == "window"
    )


class PlanJob(Strict):
    """Draws a plan of windows."""

    plan: PlanSettings


class TeacherJob(Strict):
    """Trains and measures the small teacher."""

    architecture: dict[str, Any]
    training: TeacherTraining | None
    resolution: Positive


class FeaturesJob(Strict):
    """Fits the basis of the teacher's features and caches them for a plan."""

    plan: PlanSettings
    teacher: TeacherModel
    features: Features
    geometry: Geometry
    overlap: Overlap
    resolution: Positive


class TrainingJob(Strict):
    """Trains a variant with a seed."""

    method: MethodJob
    seed: int
    resolution: Positive
    recipe: Optimization
    plan: PlanSettings
    noise: Noise
    initial: str | None
    features: Features | None = None
    memory: MemoryJob | None = None
    memory_dropout: Share | None = None
    corruption: Corruption | None = None
    alignment: AlignmentJob | None = None

    @property
    def hidden_states(self) -> tuple[HiddenState, ...]:
        """The states that the method shows."""
        return self.method.spec.hidden_states(self.method.settings, self.resolution)


class ImportJob(Strict):
    """Brings weights that are there already into a checkpoint."""

    method: MethodJob
    sha256: str


class PickCriterion(Strict):
    """A metric that decides, and which way."""

    metric: str
    better: Literal["higher", "lower"]


class PickJob(Strict):
    """Picks a variant and adopts its checkpoint."""

    among: tuple[str, ...]
    protocol: str
    criteria: tuple[PickCriterion, ...]


class SamplingJob(Strict):
    """How a network generates."""

    window: Positive
    keyframe_density: float
    kept: Positive | None = Field(default=None, exclude_if=lambda kept: kept is None)
    steps: Positive
    level_power: float
    keyframes: Guidance
    interpolation: Guidance
    memory_guidance: float | None
    precision: Precision
    seed: int


class RolloutJob(Strict):
    """Generates the videos of a variant on a protocol; a floor has no `sampling`."""

    clips: ClipsOfSplit
    frames: Positive
    context: Positive
    method: MethodJob
    memory: MemoryJob | None = None
    geometry: Geometry | None = None
    teacher: TeacherModel | None = None
    sampling: SamplingJob | None = None


class ScoresJob(Strict):
    """Scores the videos of a variant on a protocol by one family of metrics."""

    family: str
    version: int
    settings: Any
    revisit_gap: Positive
    partial: Partial
    protocol: str
    frames: Positive
    context: Positive

    @property
    def spec(self) -> MetricFamily:
        """What the registry has under the family's name."""
        return FAMILIES[self.family]


class SanityJob(Strict):
    """Scores truth, shuffled truth and noise by one family of metrics, as if they were generated.

    Attributes:
        scores: As for videos of the same protocol.
        clips: How many clips are taken, at most.
    """

    scores: ScoresJob
    clips: Positive


class AnalysisJob(Strict):
    """Analyses the features of the teacher, or of a variant's hidden states.

    Attributes:
        analysis: Windows and probes.
        fit: Clips that probes are fitted on.
        test: Held-out clips.
        resolution: Side of the frames, pixels.
        teacher: Whose heads decode.
        image_size: Side of the teacher's images, pixels.
        patch_size: Side of their patches, pixels.
        layer: Of the teacher's tokens that alignment teaches.
        channels: Of their basis.
        side: Cells along a side of the decoded hidden state.
        method: Of the variant; None for the teacher.
        alignment: Of the variant, or None.
    """

    analysis: Analysis
    fit: ClipsOfSplit
    test: ClipsOfSplit
    resolution: Positive
    teacher: TeacherModel
    image_size: Positive
    patch_size: Positive
    layer: int
    channels: Positive
    side: Positive
    method: MethodJob | None = None
    alignment: AlignmentJob | None = None


class ContentBiasJob(Strict):
    """Tests which video features see time.

    Attributes:
        i3d_weights: Where I3D lies, if it is there.
        videomae_weights: Where VideoMAE lies, if the scale names it.
        vjepa_weights: Where V-JEPA's encoder and probe lie, if the scale names them.
    """

    content_bias: ContentBias
    clips: ClipsOfSplit
    i3d_weights: str
    videomae_weights: str | None = Field(default=None, exclude_if=lambda x: x is None)
    vjepa_weights: tuple[str, str] | None = Field(default=None, exclude_if=lambda x: x is None)
    bootstrap: Positive


class ConsistencyJob(Strict):
    """Scores rooms that are spoiled by known amounts.

    Attributes:
        reprojection: Settings of that family.
        matches: Likewise.
        versions: Of both.
    """

    consistency: Consistency
    reprojection: Any
    matches: Any
    versions: dict[str, int]


class CacheFidelityJob(Strict):
    """Weighs settings of the feature cache.

    Attributes:
        cache_fidelity: The settings, and the windows that they are weighed on.
        teacher: Whose features they keep.
        method: Of the small alignment runs.
        alignment: Likewise.
        noise: Likewise.
        fit: Clips that bases are fitted on and runs are trained on.
        test: Held-out clips.
        resolution: Side of the frames, pixels.
    """

    cache_fidelity: CacheFidelity
    teacher: TeacherModel
    method: MethodJob
    alignment: AlignmentJob
    noise: Noise
    fit: ClipsOfSplit
    test: ClipsOfSplit
    resolution: Positive


class CalibrationJob(Strict):
    """Calibrates the VGGT score of a teacher.

    Attributes:
        teacher: The frozen teacher.
        scene: How frames are looked at.
        fit: Clips that it is fitted on.
        test: Held-out clips.
        clips: How many of each are taken, at most.
        seed: Of the mixtures.
        bootstrap: Resamples of clips for the interval of its error.
    """

    teacher: TeacherModel
    scene: SceneSettings
    fit: ClipsOfSplit
    test: ClipsOfSplit
    clips: Positive
    seed: int
    bootstrap: Positive


class TableJob(Strict):
    """Renders a table of scores."""

    table: TableSettings
    floors: tuple[str, ...]
    scale: str
    seeds: tuple[int, ...]
    stands_in: str
    teacher: str
    bootstrap: Positive


class CostsRow(Strict):
    """A row of the table of costs.

    Attributes:
        variant: Whose it is.
        weights: The variant whose weights it generates with.
        label: As in the table whose rows these are.
        rule_above: Likewise.
        method: Of the variant.
        steps: Of its training; None where it has none of its own.
        batch: Windows a step.
        gpus: That its training asks for, over all nodes.
        rollouts: By protocol, how its videos are made; none of a floor.
    """

    variant: str
    weights: str
    label: str
    rule_above: bool
    method: MethodJob
    steps: Positive | None = None
    batch: Positive | None = None
    gpus: int = 0
    rollouts: dict[str, RolloutJob]


class MeasuredJob(Strict):
    """Collects what training took; the variants by name."""

    variants: tuple[str, ...]
    scale: str


class CostsJob(Strict):
    """Renders the table of what the rows of another cost."""

    rows: tuple[CostsRow, ...]
    protocols: dict[str, Positive]
    scale: str
    teacher: str


class ContentBiasTableJob(Strict):
    """Renders the table of the content-bias test."""

    content_bias: ContentBias
    scale: str


class ConsistencyTableJob(Strict):
    """Renders the table and the figure of rooms that are spoiled by known amounts."""

    consistency: Consistency
    scale: str


class CacheFidelityTableJob(Strict):
    """Renders the table of settings of the feature cache."""

    cache_fidelity: CacheFidelity
    scale: str
    teacher: str
    bootstrap: Positive


class PreferenceTableJob(Strict):
    """Renders the table of a preference study."""

    scale: str
    bootstrap: Positive


class TeacherTableJob(Strict):
    """Renders the table of the teacher's errors."""

    scale: str
    stands_in: str
    teacher: str


class AnalysisTableJob(Strict):
    """Renders the tables of what features know."""

    rows: tuple[AnalysisRow, ...]
    analysis: Analysis
    scale: str
    seeds: tuple[int, ...]
    stands_in: str
    teacher: str
    bootstrap: Positive


class FigureJob(Strict):
    """Draws a figure."""

    figure: Figure
    seeds: tuple[int, ...]
    floors: tuple[str, ...]
    contexts: dict[str, Positive]
    bootstrap: Positive | None = None
    analysis: Analysis | None = None

    @property
    def of_analysis(self) -> AnalysisFigure:
        """The figure, of the analysis."""
        assert isinstance(self.figure, AnalysisFigure)
        return self.figure


class VideoJob(Strict):
    """Writes a video for people."""

    video: Video
    seeds: tuple[int, ...]
    context: Positive


class PaperJob(Strict):
    """Compiles the paper from what a scale has made."""

    scale: str
