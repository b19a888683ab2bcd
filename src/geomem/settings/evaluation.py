"""Long generation, its scores, and the tables and figures that show them."""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from geomem.metrics.registry import FAMILIES, MetricName, metric_of
from geomem.registry.fields import ByName
from geomem.registry.strict import Positive, Share, Strict
from geomem.settings.analysis import AnalysisFigure

GuidanceScale = Annotated[
    float,
    Field(ge=0, allow_inf_nan=False, description="1: no more than conditional; above: stronger"),
]
StabilizationLevel = Annotated[
    Share, Field(description="noise put on generated history, as a share of all levels")
]
FreqScale = Annotated[
    Share, Field(description="noise of the partial history, as a share of all levels")
]


NEGLIGIBLE = 1e-9  # what rounding leaves of weights that should cancel


class Scheme(Strict):
    """A scheme of history guidance."""

    @property
    def branches(self) -> int:
        """Versions of a window that the network sees in a step."""
        return len([weight for weight in self._weights() if abs(weight) > NEGLIGIBLE])

    def _weights(self) -> tuple[float, ...]:
        """Return the weights of all versions of the history; they sum to 1."""
        return (1.0,)


class Conditional(Scheme):
    """The history as it is, no guidance."""

    scheme: Literal["conditional"]


class Replacement(Scheme):
    """The history at the noise of the frames to be generated."""

    scheme: Literal["replacement"]


class Vanilla(Scheme):
    """HG-v: away from the prediction without history."""

    scheme: Literal["vanilla"]
    guidance_scale: GuidanceScale

    def _weights(self) -> tuple[float, ...]:
        return (1 - self.guidance_scale, self.guidance_scale)


class StabilizedVanilla(Scheme):
    """HG-v that sees generated history at a little noise."""

    scheme: Literal["stabilized_vanilla"]
    guidance_scale: GuidanceScale
    stabilization_level: StabilizationLevel

    def _weights(self) -> tuple[float, ...]:
        return (1 - self.guidance_scale, self.guidance_scale)


class Fractional(Scheme):
    """HG-f: guidance by the low frequencies of the history."""

    scheme: Literal["fractional"]
    guidance_scale: GuidanceScale
    freq_scale: FreqScale

    def _weights(self) -> tuple[float, ...]:
        return (1 - self.guidance_scale, 1.0, self.guidance_scale - 1)


class StabilizedFractional(Scheme):
    """HG-f that sees generated history at a little noise."""

    scheme: Literal["stabilized_fractional"]
    guidance_scale: GuidanceScale
    freq_scale: FreqScale
    stabilization_level: StabilizationLevel

    def _weights(self) -> tuple[float, ...]:
        return (1 - self.guidance_scale, 1.0, self.guidance_scale - 1)


class Temporal(Scheme):
    """HG-t: guidance by parts of the history."""

    scheme: Literal["temporal"]
    hist_subsequences: tuple[Annotated[tuple[int, ...], Field(min_length=1)], ...] = Field(
        min_length=1,
        description="positions within the history, negative ones from its end; those that a short "
        "history lacks are left out, and a subsequence of which nothing is left adds nothing",
    )
    hist_weights: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(
        min_length=1,
        description="one a subsequence; the prediction without history takes what is left to 1",
    )

    def _weights(self) -> tuple[float, ...]:
        return (1 - sum(self.hist_weights), *self.hist_weights)

    @model_validator(mode="after")
    def _a_weight_each(self) -> Self:
        parts, weights = len(self.hist_subsequences), len(self.hist_weights)
        if parts != weights:
            raise ValueError(f"{parts} hist_subsequences need as many hist_weights, not {weights}")
        return self


Guidance = Annotated[
    Conditional
    | Replacement
    | Vanilla
    | StabilizedVanilla
    | Fractional
    | StabilizedFractional
    | Temporal,
    Field(discriminator="scheme"),
]


class Protocol(Strict):
    """What is generated: which clips, and how much of each."""

    split: str
    frames: Positive | None = Field(
        default=None, description="first frames of every clip that are generated; all if none"
    )
    replay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of the frames that are given instead of `rollouts.context`: what comes "
        "after is made of a true history (replay); none: on the model's own (closed loop)",
    )
    keyframe_density: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="overrides `rollouts.keyframe_density`; 1: no frames between keyframes",
    )
    kept: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of a sliding window that is kept as history: the more, the fewer frames "
        "a window makes and the more windows are chained; none: half, as published",
    )


class Rollouts(Strict):
    """Long generation; a variant sees as many frames at once as it was trained on."""

    protocols: dict[str, Protocol]
    context: Positive = Field(description="given frames")
    keyframe_density: float = Field(gt=0, le=1)
    sampling_steps: Positive
    level_power: float = Field(
        default=1.0,
        gt=0,
        description="spacing of the sampler's noise levels; 1: even, as published; below 1 they "
        "crowd at high noise, which leaves less noise in the frames of a small network",
    )
    keyframes: Guidance
    interpolation: Guidance
    memory_guidance: float = Field(
        default=1.0,
        ge=0,
        allow_inf_nan=False,
        description="scale of the guidance on the memory, on top of that on the history; 1: none; "
        "others need memory.dropout above 0 in training, and all but 0 evaluate twice as often",
    )
    batch: Positive = Field(exclude=True, description="clips generated together")
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="of the networks; the sampler's own arithmetic is fp32"
    )
    seed: int = 0


class Partial(Strict):
    """Which generated frames show places that the given frames show in part.

    There a method has something to keep and something to make. The set follows from true depth and
    the given frames alone, so that it is the same for every method; data without depth have none.
    """

    frames: Positive = Field(
        default=4, description="given frames that are looked at, spread over time"
    )
    fewest: Share = Field(default=0.3, description="smallest share of pixels seen before")
    most: Share = Field(default=0.95, description="largest share")


class Calibration(Strict):
    """Clips that the VGGT score of the scale's teacher is calibrated on, of rooms with depth."""

    fit_split: str = Field(default="train", description="clips that it is fitted on")
    test_split: str = Field(
        default="validation", description="clips of other scenes, that tell what it is worth"
    )
    clips: Annotated[int, Field(ge=2)] = Field(default=64, description="of each split, at most")
    seed: int = Field(default=0, description="of the mixtures")


class Scores(Strict):
    """Metrics."""

    revisit_gap: Positive = Field(
        default=8, description="frames between two visits of a place, at least"
    )
    partial: Partial = Partial()
    families: Annotated[dict[str, Any], ByName(FAMILIES, lambda family: family.Settings)] = Field(
        default_factory=dict,
        description="by family of metrics; one that is not named has its defaults",
    )
    calibration: Calibration = Calibration()
    bootstrap: Positive = Field(
        exclude=True, description="resamples per interval of a table or figure"
    )


class Published(Strict):
    """Which numbers of the literature stand beside a column (`config/published_numbers.csv`)."""

    metric: str
    dataset: str
    frames: str


class TableColumn(Strict):
    """A column of a table; what the metric is, its registry says."""

    metric: MetricName
    protocol: str
    precision: int | None = Field(default=None, ge=0, description="overrides the metric's own")
    published: Published | None = Field(
        default=None, description="adds a column with what the literature reports"
    )
    title: str | None = Field(
        default=None,
        exclude_if=lambda title: title is None,
        description="heading of the protocol's columns in place of its name; {frames}, {given}, "
        "{density}, {keyframes} and {depth} (windows chained) are filled in",
    )


class TableRow(Strict):
    """A row of a table."""

    variant: str
    label: str = Field(
        description="{window}, {steps} and {batch} of the variant's training are filled in; of "
        "its alignment {level}, {layer}, {target}, {aligned} (frames) and {seen} (by the teacher)"
    )
    bound: bool = Field(default=False, description="an upper bound: shown, not ranked")
    rule_above: bool = Field(default=False, description="a thin line above")
    published: str = Field(default="", description="the method's name in the literature's numbers")


class CostsTable(Strict):
    """What the rows of a table cost."""

    rows_of: str = Field(description="table whose rows these are")
    protocols: tuple[str, ...] = Field(
        min_length=1, description="whose videos are counted, the shorter ones first"
    )


class ContentBias(Strict):
    """The content-bias test: which networks' distances between sets of videos see time."""

    split: str = Field(description="whose true clips are damaged")
    clips: Annotated[int, Field(ge=4)] = Field(description="how many of them, at most")
    frames: Annotated[int, Field(ge=2)] = Field(description="frames of a clip, from its first")
    strengths: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        min_length=1,
        description="root-mean-square displacements of the warps, in heights of a frame; rising",
    )
    seed: int = Field(default=0, description="of the warps")


class Consistency(Strict):
    """Rooms spoiled by known amounts, which metrics of 3D consistency have to rank."""

    clips: Positive = Field(description="how many; walks and orbits in turn")
    frames: Annotated[int, Field(ge=3, le=32)] = Field(description="of a clip, from its first")
    strengths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        min_length=1, description="of each way of spoiling, as shares of its full size; rising"
    )
    resolution: Annotated[int, Field(ge=32, multiple_of=8)] = Field(
        default=64, description="pixels of the square frames"
    )
    gap: Positive = Field(default=2, description="frames between two that are matched")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if list(self.strengths) != sorted(set(self.strengths)):
            raise ValueError(f"strengths {list(self.strengths)} do not rise")
        if self.gap >= self.frames:
            raise ValueError(f"gap {self.gap} is not below frames {self.frames}")
        return self


class Sanity(Strict):
    """What every metric has to tell apart before a table may show it."""

    protocol: str = Field(description="whose clips are taken for generated ones, as they are")
    clips: Annotated[int, Field(ge=2)] = Field(default=40, description="how many, at most")


NO_CONTEST: Final = "no contest"  # where one of the rows is a perfect copy
Verdict = Literal["better", "not distinguishable", "worse", "no contest"]


class Statement(Strict):
    """A comparison of two rows that the paper's text makes; its outcome comes from the scores."""

    row: str = Field(description="variant of a row: better, worse or not distinguishable")
    against: str = Field(description="variant of the row that it is compared with")
    metrics: tuple[MetricName, ...] = Field(default=(), description="columns; empty: all")
    protocols: tuple[str, ...] = Field(default=(), description="columns; empty: all")
    claim: str = Field(
        default="", exclude=True, description="what `geomem check` holds a run to, in a sentence"
    )
    expect: Verdict = Field(
        default="better", exclude=True, description="what it has to be in every column for that"
    )

    def holds(self, verdicts: Iterable[str]) -> bool | None:
        """Return whether the claim holds, by its verdict in each column; None without a contest."""
        contests = [verdict for verdict in verdicts if verdict != NO_CONTEST]
        return all(verdict == self.expect for verdict in contests) if contests else None


class TableSettings(Strict):
    """A table of the paper."""

    caption: str
    reference: str = Field(description="variant that the paired tests compare with")
    rows: tuple[TableRow, ...] = Field(min_length=1)
    more_rows: tuple[TableRow, ...] = Field(
        default=(), exclude=True, description="below those, where they are another table's"
    )
    columns: tuple[TableColumn, ...] = Field(min_length=1)
    statements: dict[str, Statement] = Field(
        default={},
        exclude_if=lambda said: not said,
        description="what the paper's text says of it, by names that no other table has",
    )
    left_out: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda names: not names,
        description="protocols whose columns the scale leaves out; filled in where it does",
    )

    @model_validator(mode="before")
    @classmethod
    def _with_more_rows(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(given.get("more_rows"), list):
            rest = {key: value for key, value in given.items() if key != "more_rows"}
            return {**rest, "rows": [*given.get("rows", []), *given["more_rows"]]}
        return given

    @model_validator(mode="after")
    def _rows_differ(self) -> Self:
        # those that are filled in are compared then
        labels = [row.label for row in self.rows if "{" not in row.label]
        if len(set(labels)) < len(labels):
            raise ValueError(f"row labels repeat in {labels}")
        return self

    @model_validator(mode="after")
    def _statements_are_about_it(self) -> Self:
        variants = {row.variant for row in self.rows}
        for name, said in self.statements.items():
            if unknown := sorted({said.row, said.against} - variants):
                raise ValueError(f"statements.{name}: no row is of {unknown[0]}")
        return self


class FigureRow(Strict):
    """A variant in a figure."""

    variant: str
    label: str


class MedianGain(Strict):
    """The clip in which one row's gain in PSNR over another is the median over all clips (of two
    equally near the first), so that nobody picks it."""

    gain_of: str = Field(description="variant of a row")
    over: str = Field(description="variant of another")


class VideoFigure(Strict):
    """Frames of one clip: the truth above, then a row for each variant (first seed)."""

    protocol: str
    clip: Annotated[int, Field(ge=0)] | MedianGain = Field(
        description="index in the protocol's split, or a rule"
    )
    rows: tuple[FigureRow, ...] = Field(min_length=1)

    @property
    def shown_protocols(self) -> tuple[str, ...]:
        """The protocols whose videos or scores are shown."""
        return (self.protocol,)

    @model_validator(mode="after")
    def _rule_is_of_rows(self) -> Self:
        if isinstance(self.clip, MedianGain):
            missing = {self.clip.gain_of, self.clip.over} - {row.variant for row in self.rows}
            if missing:
                raise ValueError(f"clip: {sorted(missing)} is none of the rows")
        return self


class Video(Strict):
    """An MP4 file for people: clips below each other, each with the truth and the variants (first
    seed) side by side. Nothing is scored on it."""

    protocol: str
    clips: Positive = Field(description="how many; the first of the protocol's split")
    rate: Positive = Field(default=8, description="frames per second")
    rows: tuple[FigureRow, ...] = Field(min_length=1)

    @property
    def shown_protocols(self) -> tuple[str, ...]:
        """The protocol whose videos are shown."""
        return (self.protocol,)


class StripFigure(VideoFigure):
    """Frames spread over the clip."""

    kind: Literal["strip"]
    frames: Positive = Field(description="number of frames shown, spread over the clip")
    given: Positive | None = Field(
        default=None,
        description="so many of them are given ones, spread over those, and all others over the "
        "generated; else the spread does not tell them apart",
    )

    @model_validator(mode="after")
    def _shows_generated_frames(self) -> Self:
        if self.given is not None and self.given >= self.frames:
            raise ValueError(f"given: {self.given} leave none of {self.frames} frames to show")
        return self


class RevisitFigure(VideoFigure):
    """First visits beside revisits and their difference."""

    kind: Literal["revisits"]
    visits: tuple[Share, ...] = Field(
        min_length=1, description="when places are first seen, as shares of the clip"
    )


class CurvesFigure(Strict):
    """Quality of every frame: a column of panels for each protocol, a row for each metric."""

    kind: Literal["curves"]
    protocols: tuple[str, ...] = Field(min_length=1)
    metrics: tuple[MetricName, ...] = Field(min_length=1)
    rows: tuple[FigureRow, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _metrics_have_curves(self) -> Self:
        for name in self.metrics:
            if metric_of(name).level != "frame":
                raise ValueError(f"metrics: {name} is not known of every frame")
        return self

    @property
    def shown_protocols(self) -> tuple[str, ...]:
        """The protocols whose videos or scores are shown."""
        return self.protocols

    def metrics_of(self, row: FigureRow) -> tuple[str, ...]:
        """Return the metrics that are shown of a row: all."""
        return self.metrics


class GainFigure(Strict):
    """By how much one variant is better than another, clip by clip, against what clips are like."""

    kind: Literal["gain"]
    protocols: tuple[str, ...] = Field(min_length=1)
    metric: MetricName = Field(description="in which the gain is measured")
    against: MetricName = Field(description="of the first row's clips, as `overlap`")
    bins: Positive = Field(default=5, description="of equally many clips; fewer of few clips")
    rows: tuple[FigureRow, ...] = Field(
        min_length=2, max_length=2, description="the variant that gains, then what it is held to"
    )

    @model_validator(mode="after")
    def _clips_have_gains(self) -> Self:
        for key, name in (("metric", self.metric), ("against", self.against)):
            if metric_of(name).level == "set":
                raise ValueError(f"{key}: {name} is not known of every clip")
        if metric_of(self.metric).better == "neither":
            raise ValueError(f"metric: of {self.metric} neither way is better")
        variants = {row.variant for row in self.rows}
        if len(variants) < len(self.rows):
            raise ValueError(f"rows: {variants.pop()} cannot gain over itself")
        return self

    @property
    def shown_protocols(self) -> tuple[str, ...]:
        """The protocols whose scores are shown."""
        return self.protocols

    def metrics_of(self, row: FigureRow) -> tuple[str, ...]:
        """Return the metrics that are shown of a row: clips are described once."""
        return (self.metric, self.against) if row == self.rows[0] else (self.metric,)


ScoresFigure = CurvesFigure | GainFigure


class ReliabilityFigure(Strict):
    """What the VGGT score's probabilities are worth, on held-out scenes of its calibration."""

    kind: Literal["reliability"]

    @property
    def rows(self) -> tuple[FigureRow, ...]:
        """None: it shows no variant."""
        return ()

    @property
    def shown_protocols(self) -> tuple[str, ...]:
        """None: nothing is generated for it."""
        return ()


class TrainingFigure(Strict):
    """The loss of trainings by step, and their alignment terms; trained variants alone."""

    kind: Literal["training"]
    rows: tuple[FigureRow, ...] = Field(min_length=1)

    @property
    def shown_protocols(self) -> tuple[str, ...]:
        """None: nothing is generated for it."""
        return ()


Figure = Annotated[
    StripFigure
    | RevisitFigure
    | CurvesFigure
    | GainFigure
    | AnalysisFigure
    | ReliabilityFigure
    | TrainingFigure,
    Field(discriminator="kind"),
]
