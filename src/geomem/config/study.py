"""The whole configuration, and what follows from it by name."""

from typing import Annotated, Any

from pydantic import Field, field_validator

from geomem.config.cluster import Resources
from geomem.diffusion.rollout_plans import density_for
from geomem.formats.cache_kinds import CacheKind
from geomem.memory.registry import KINDS, Need
from geomem.methods.registry import METHODS
from geomem.metrics.registry import FAMILIES, family_of
from geomem.registry.fields import ByName
from geomem.registry.strict import Positive, Strict
from geomem.settings.analysis import Analysis, AnalysisFigure, AnalysisTable
from geomem.settings.data import Dataset, PlanSettings, Split
from geomem.settings.evaluation import (
    Consistency,
    ContentBias,
    CostsTable,
    Figure,
    ReliabilityFigure,
    Rollouts,
    Sanity,
    Scores,
    ScoresFigure,
    TableSettings,
    Video,
)
from geomem.settings.fidelity import CacheFidelity
from geomem.settings.memory import Features, ImageTeacher, Memory, Teacher
from geomem.settings.training import Alignment, Noise, Optimization, Variant, VariantMemory
from geomem.sources.registry import SOURCES, Condition, Source, SourceSettings

VGGT_SCORE = "vggt_score"  # the family of metrics that has a calibration


class Tracking(Strict):
    """Where MLflow keeps its mirror."""

    uri: str = Field(default="sqlite:///mlflow.db", description="store or server address")
    experiment: str = "geomem"


class Scale(Strict):
    """Everything that depends on the scale (`config/scales/<name>.yaml`)."""

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds) or min(seeds) < 0:
            raise ValueError("seeds are numbers from 0 on, none of them twice")
        return seeds

    resolution: Positive = Field(description="pixels of the square frames")
    supersample: Positive = 1
    seeds: tuple[int, ...] = Field(min_length=1)
    stands_in: str = Field(description="one sentence for captions: what stands in for what")
    splits: dict[str, Split]
    plans: dict[str, PlanSettings]
    teacher: Teacher
    image_teacher: ImageTeacher = ImageTeacher()
    features: Features
    memory: Memory
    methods: Annotated[dict[str, Any], ByName(METHODS, lambda method: method.Settings)] = Field(
        description="by method; one all of whose settings have defaults need not be named"
    )
    recipes: dict[str, Optimization]
    rollouts: Rollouts
    scores: Scores
    analysis: Analysis
    resources: dict[str, Resources] = Field(
        description="by stage, or by `stage.detail` where one kind of job differs"
    )
    leave_out: tuple[str, ...] = Field(
        default=(), description="variants that this scale does not train; their rows go too"
    )
    leave_out_protocols: tuple[str, ...] = Field(
        default=(),
        description="protocols that this scale does not generate: they need no split, and columns, "
        "figures and videos that show them go too, which tables say",
    )
    candidates: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="`best_of` variants that choose among fewer candidates at this scale",
    )
    consistency: Consistency | None = Field(
        default=None, description="at this scale in place of the study's, where that asks for one"
    )
    cache_fidelity: CacheFidelity | None = Field(
        default=None,
        description="settings of the feature cache that are weighed; made by name alone: "
        "`snakemake results/<scale>/tables/cache_fidelity.tex`",
    )


class Config(Strict):
    """The whole configuration; `load_config` checks that it fits together."""

    scale: str
    tracking: Tracking = Tracking()
    accepted_terms: tuple[str, ...] = Field(
        default=(),
        description="data sets whose terms of use (data/README.md) you have read and accept; no "
        "other is downloaded",
    )
    plugins: tuple[str, ...] = Field(
        default=(), description="modules that register methods, memories, metrics or sources"
    )
    settings: Scale
    datasets: dict[str, Dataset]
    variants: dict[str, Variant]
    tables: dict[str, TableSettings]
    figures: dict[str, Figure] = Field(default_factory=dict)
    analysis: AnalysisTable | None = Field(
        default=None, description="the table of what features know; not part of the main job"
    )
    costs: CostsTable | None = Field(
        default=None, description="what the rows of a table cost; not part of the main job"
    )
    content_bias: ContentBias | None = Field(
        default=None,
        description="which networks' distances of videos see time; not part of the main job",
    )
    consistency: Consistency | None = Field(
        default=None,
        description="how metrics of 3D consistency rank rooms spoiled by known amounts; not part "
        "of the main job",
    )
    sanity: Sanity | None = Field(
        default=None, description="what metrics have to tell apart before tables show them"
    )
    preference_votes: str | None = Field(
        default=None,
        description="votes of a preference study (`geomem study export`), which may not be there "
        "yet; made by name alone: `snakemake results/<scale>/tables/preference_table.tex`",
    )
    videos: dict[str, Video] = Field(default_factory=dict)
    main: tuple[str, ...] = Field(default=(), description="what the main job makes of them")

    @property
    def spoiled(self) -> Consistency | None:
        """Which rooms metrics of 3D consistency are tried on at this scale, if any."""
        return self.consistency and (self.settings.consistency or self.consistency)

    # --- variants -----------------------------------------------------------------------------

    @property
    def floors(self) -> list[str]:
        """The variants that need no model: they have no checkpoint, and one seed."""
        return [name for name, variant in self.variants.items() if variant.floor]

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """Return the seeds a variant has; a floor draws nothing."""
        return self.settings.seeds[:1] if self.variants[variant].floor else self.settings.seeds

    def candidates_of(self, variant: str) -> tuple[str, ...]:
        """Return among which variants a `best_of` variant is picked at this scale."""
        rule = self.variants[variant].best_of
        assert rule is not None
        chosen = self.settings.candidates.get(variant, rule.among)
        return tuple(name for name in chosen if name not in self.settings.leave_out)

    def starts_of(self, variant: str) -> tuple[str, ...]:
        """Return the variants whose checkpoints a variant is made from."""
        chosen = self.variants[variant]
        if chosen.best_of:
            return self.candidates_of(variant)
        start = chosen.initial or chosen.checkpoint_of
        return (start,) if start else ()

    def weights_of(self, variant: str) -> str:
        """Return the variant whose checkpoint a variant generates with."""
        return self.variants[variant].checkpoint_of or variant

    def backbone_of(self, variant: str) -> str:
        """Return the variant whose checkpoint holds the backbone."""
        weights = self.weights_of(variant)
        chosen = self.variants[weights]
        frozen = chosen.memory and chosen.memory.backbone == "frozen"
        return chosen.initial if frozen and chosen.initial else weights

    def method_of(self, variant: str) -> str:
        """Return the name of a variant's method: its own, or that of what it is made from."""
        chosen = self.variants[variant]
        if chosen.best_of or chosen.checkpoint_of:
            return self.method_of(self.starts_of(variant)[0])
        return chosen.method

    def noise_of(self, variant: str) -> Noise:
        """Return with which noise the network that a variant generates with was trained."""
        chosen = self.variants[variant]
        if chosen.best_of or chosen.checkpoint_of:
            return self.noise_of(self.starts_of(variant)[0])
        return chosen.noise

    def interpolates(self, variant: str) -> bool:
        """Return whether a variant can make frames between finished ones."""
        ordered = self.noise_of(variant) in ("per_clip", "prefix")
        return METHODS[self.method_of(variant)].interpolates and not ordered

    def source_of(self, split: str) -> Source:
        """Return the source of a split's clips."""
        return SOURCES[self.dataset_of(split).source]

    def dataset_of(self, split: str) -> SourceSettings:
        """Return the settings of a split's data set."""
        return self.datasets[self.settings.splits[split].dataset]

    def conditions_of(self, split: str) -> frozenset[Condition]:
        """Return what a split's clips come with beside their frames."""
        return self.source_of(split).gives(self.dataset_of(split))

    def recipe_of(self, variant: str) -> tuple[str, str]:
        """Return the names of a trained variant's recipe and plan."""
        chosen = self.variants[variant]
        assert chosen.recipe and chosen.plan
        return chosen.recipe, chosen.plan

    def window_of(self, variant: str) -> int:
        """Return how many frames a variant sees at once: those of its backbone's windows."""
        backbone = self.backbone_of(variant)
        chosen = self.variants[backbone]
        if chosen.best_of:
            return self.window_of(self.candidates_of(backbone)[0])
        if chosen.checkpoint:
            return chosen.checkpoint.window
        return self.settings.plans[self.recipe_of(backbone)[1]].frames

    # --- memory and alignment -------------------------------------------------------------------

    def method_settings(self, method: str) -> Any:
        """Return what this scale says of a method."""
        return self.settings.methods.get(method) or METHODS[method].Settings()

    def kind_settings(self, kind: str) -> Any:
        """Return what this scale says of a kind of memory."""
        return self.settings.memory.kinds.get(kind) or KINDS[kind].Settings()

    def needs_of(self, variant: str) -> frozenset[Need]:
        """Return what the teacher has to tell of the frames in a variant's memory."""
        memory = self.variants[variant].memory
        return KINDS[memory.kind].needs if memory and memory.most else frozenset()

    def caches_of(self, variant: str) -> dict[str, CacheKind]:
        """Return the feature caches that a trained variant reads, by purpose."""
        memory, caches = self.variants[variant].memory, {}
        if memory and self.needs_of(variant):
            caches["memory_features"] = CacheKind(
                fewest=memory.fewest, most=memory.most, selection=memory.selection
            )
        if self.compressed(variant) and not self.settings.features.online:
            caches["window_features"] = CacheKind()
        return caches

    def aligned_in_3d(self, variant: str) -> bool:
        """Return whether a variant is aligned with the 3D teacher."""
        alignment = self.variants[variant].alignment
        return alignment is not None and alignment.teacher == "3d"

    def compressed(self, variant: str) -> bool:
        """Return whether a variant is aligned with compressed features of the 3D teacher."""
        alignment = self.variants[variant].alignment
        return alignment is not None and alignment.teacher == "3d" and alignment.depth is None

    def layer_of(self, alignment: Alignment) -> int | None:
        """Return the teacher's layer whose raw tokens are compared; None for compressed ones."""
        layers = self.settings.teacher.depth
        return None if alignment.depth is None else max(1, round(alignment.depth * layers)) - 1

    def online_weights_of(self, variant: str) -> str:
        """Return the file of the teacher that runs while a variant is trained; empty for none."""
        scale, alignment = self.settings, self.variants[variant].alignment
        of_3d = scale.teacher.weights.format(scale=self.scale)
        if alignment and alignment.teacher == "2d":
            return scale.image_teacher.weights or of_3d
        online = alignment and (scale.features.online or alignment.depth is not None)
        return of_3d if online else ""

    def memory_dropout_of(self, memory: VariantMemory) -> float | None:
        """Return how often training drops a variant's memory; None where there is none to drop.

        Remembered frames that are shown are history, which has guidance of its own.
        """
        if KINDS[memory.kind].shows_frames:
            return None
        return self.settings.memory.dropout if memory.dropout is None else memory.dropout

    def memory_guidance_of(self, memory: VariantMemory) -> float:
        """Return the scale of the guidance on a variant's memory.

        Remembered frames that are shown are history, which has guidance of its own.
        """
        if KINDS[memory.kind].shows_frames:
            return 1.0
        own, common = memory.guidance, self.settings.rollouts.memory_guidance
        return common if own is None else own

    # --- protocols and what is shown --------------------------------------------------------------

    def frames_of(self, protocol: str) -> int:
        """Return the length of a protocol's videos."""
        chosen = self.settings.rollouts.protocols[protocol]
        return chosen.frames or self.settings.splits[chosen.split].frames

    def context_of(self, protocol: str) -> int:
        """Return how many frames of a protocol's videos are given."""
        share = self.settings.rollouts.protocols[protocol].replay
        if share is None:
            return self.settings.rollouts.context
        return max(1, round(share * self.frames_of(protocol)))

    def keyframe_density_of(self, variant: str, protocol: str) -> float:
        """Return the share of frames made first, at least two of them; 1 where one window makes
        all at once, or all are made in their order."""
        if not self.interpolates(variant):
            return 1.0
        frames, window = self.frames_of(protocol), self.window_of(variant)
        return density_for(frames, window=window, density=self.density_of(protocol))

    def density_of(self, protocol: str) -> float:
        """Return the share of frames that a protocol asks for first."""
        own = self.settings.rollouts.protocols[protocol].keyframe_density
        return self.settings.rollouts.keyframe_density if own is None else own

    def kept_of(self, variant: str, protocol: str) -> int | None:
        """Return how many frames a sliding window keeps; None for half of it."""
        share, window = self.settings.rollouts.protocols[protocol].kept, self.window_of(variant)
        return None if share is None else min(max(1, round(share * window)), window - 1)

    def windows_of(self, variant: str, protocol: str) -> dict[str, Any]:
        """Return how a variant's windows go over a protocol's videos, for `plan_rollout`."""
        return {
            "window": self.window_of(variant),
            "keyframe_density": self.keyframe_density_of(variant, protocol),
            "context": self.context_of(protocol),
            "kept": self.kept_of(variant, protocol),
        }

    def costing(self) -> list[str]:
        """Return the variants whose checkpoints the rows of the table of costs generate with."""
        assert self.costs is not None
        rows = self.tables[self.costs.rows_of].rows
        names = [row.variant for row in rows if row.variant not in self.floors]
        return list(dict.fromkeys(map(self.weights_of, names)))

    def analysed(self) -> list[str]:
        """Return the variants whose hidden states are analysed, for the table or a figure."""
        figures = [f for f in self.figures.values() if isinstance(f, AnalysisFigure)]
        table = self.analysis.rows if self.analysis else ()
        shown = [*table, *(row for figure in figures for row in figure.rows)]
        return list(dict.fromkeys(row.variant for row in shown))

    def runs(self) -> dict[str, list[str]]:
        """Return every variant that is needed, in order, with the protocols it generates."""
        wanted: dict[str, set[str]] = {name: set() for name in self.analysed()}
        for variant, protocol in self.scored():
            wanted.setdefault(variant, set()).add(protocol)
        for shown in (*self.figures.values(), *self.videos.values()):
            for row in shown.rows:
                wanted.setdefault(row.variant, set()).update(shown.shown_protocols)
        waiting = list(wanted)
        while waiting:
            starts = self.starts_of(waiting.pop())
            waiting += [start for start in starts if start not in wanted]
            wanted |= {start: set() for start in starts if start not in wanted}
        for name in [name for name in wanted if self.variants[name].best_of]:
            for candidate, protocol in self.deciding(name):
                wanted[candidate].add(protocol)
        order = self.settings.rollouts.protocols
        return {
            name: [protocol for protocol in order if protocol in wanted[name]]
            for name in self.variants
            if name in wanted
        }

    def deciding(self, picked: str) -> list[tuple[str, str]]:
        """Return which variants are scored on which protocol to make a pick; none where there is
        one candidate alone."""
        rule, among = self.variants[picked].best_of, self.candidates_of(picked)
        assert rule is not None
        return [(name, rule.protocol) for name in among] if len(among) > 1 else []

    def families_of(self, table: TableSettings, protocol: str) -> list[str]:
        """Return the families of metrics that a table shows of a protocol."""
        columns = [column for column in table.columns if column.protocol == protocol]
        return sorted({family_of(column.metric) for column in columns})

    def families_of_figure(self, figure: ScoresFigure) -> dict[tuple[str, str], list[str]]:
        """Return by variant and protocol the families of metrics that a figure shows."""
        return {
            (row.variant, protocol): sorted({family_of(m) for m in figure.metrics_of(row)})
            for row in figure.rows
            for protocol in figure.protocols
        }

    def calibrates(self, family: str) -> bool:
        """Return whether jobs of a family of metrics read the scale's own calibration."""
        return FAMILIES[family].calibrated_by_scale(self.family_settings(family))

    def family_settings(self, family: str) -> Any:
        """Return the settings of a family of metrics, given or by default."""
        return self.settings.scores.families.get(family) or FAMILIES[family].Settings()

    def asked_families(self) -> set[str]:
        """Return the families of metrics that videos are scored by, or whose calibration shows."""
        scored = {family for families in self.scores().values() for family in families}
        shown = any(isinstance(figure, ReliabilityFigure) for figure in self.figures.values())
        return scored | ({VGGT_SCORE} if shown else set())

    def scored(self) -> dict[tuple[str, str], list[str]]:
        """Return by variant and protocol the families of metrics that tables and figures show."""
        wanted: dict[tuple[str, str], set[str]] = {}

        for table in self.tables.values():
            for protocol in {column.protocol: None for column in table.columns}:
                families = self.families_of(table, protocol)
                for row in table.rows:
                    wanted.setdefault((row.variant, protocol), set()).update(families)
        for figure in self.figures.values():
            if isinstance(figure, ScoresFigure):
                for run, families in self.families_of_figure(figure).items():
                    wanted.setdefault(run, set()).update(families)
        return {run: sorted(families) for run, families in wanted.items()}

    def scores(self) -> dict[tuple[str, str], list[str]]:
        """Return by variant and protocol all families that are scored: those shown, and those that
        picks are made by."""
        wanted = {run: set(families) for run, families in self.scored().items()}
        for name in self.runs():
            rule = self.variants[name].best_of
            if rule:
                families = {family_of(criterion.metric) for criterion in rule.criteria}
                for run in self.deciding(name):
                    wanted.setdefault(run, set()).update(families)
        return {run: sorted(families) for run, families in wanted.items()}
