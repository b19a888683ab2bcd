"""The whole configuration, and what each job may read of it."""

from collections.abc import Collection
from typing import Any, Self

from pydantic import Field, model_validator

from geomem.config.analysis import Analysis, AnalysisFigure, AnalysisTable
from geomem.config.basics import Positive, Strict
from geomem.config.cluster import Resources
from geomem.config.data import EMBEDDED, Dataset, PlanSettings, Split
from geomem.config.evaluation import Figure, Rollouts, Scores, Table, Video
from geomem.config.memory import Features, ImageTeacher, Memory, Teacher
from geomem.config.training import (
    EXECUTION,
    BestOf,
    Model,
    Optimization,
    Variant,
    VariantMemory,
)
from geomem.diffusion.plans import plan_rollout

# Fields of a variant that its training does not read.
NOT_OF_TRAINING: Any = {
    "best_of": True,
    "floor": True,
    "memory": {"kind", "guidance"},
    "alignment": {"teacher"},
}


class Tracking(Strict):
    """Where MLflow keeps its mirror."""

    uri: str = Field(default="sqlite:///mlflow.db", description="store or server address")
    experiment: str = "geomem"


class Scale(Strict):
    """Everything that depends on the scale (`config/scales/<name>.yaml`)."""

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
    model: Model
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
    candidates: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="`best_of` variants that choose among fewer candidates at this scale",
    )


class Config(Strict):
    """The whole configuration, checked."""

    scale: str
    tracking: Tracking = Tracking()
    settings: Scale
    datasets: dict[str, Dataset]
    variants: dict[str, Variant]
    tables: dict[str, Table]
    figures: dict[str, Figure] = Field(default_factory=dict)
    analysis: AnalysisTable | None = Field(
        default=None, description="the table of what features know; not part of the main job"
    )
    videos: dict[str, Video] = Field(default_factory=dict)
    main: tuple[str, ...] = Field(default=(), description="what the main job makes of them")

    @model_validator(mode="after")
    def _names_resolve(self) -> Self:
        scale = self.settings
        for name, split in scale.splits.items():
            _known("splits", name, "dataset", split.dataset, self.datasets)
        for name, plan in scale.plans.items():
            _known("plans", name, "split", plan.split, scale.splits)
            longest = 1 + (plan.frames - 1) * max(plan.strides)
            available = scale.splits[plan.split].frames
            if longest > available:
                raise ValueError(
                    f"plans.{name}: {plan.frames} frames at stride {max(plan.strides)} span "
                    f"{longest} frames, clips of {plan.split} have {available}"
                )
        for name, protocol in scale.rollouts.protocols.items():
            _known("rollouts.protocols", name, "split", protocol.split, scale.splits)
            available = scale.splits[protocol.split].frames
            if (protocol.frames or 0) > available:
                raise ValueError(
                    f"rollouts.protocols.{name}: {protocol.frames} frames, clips of "
                    f"{protocol.split} have {available}"
                )
        teacher, features = scale.teacher, scale.features
        _known("settings", "teacher", "train_split", teacher.train_split, scale.splits)
        _known("settings", "teacher", "validation_split", teacher.validation_split, scale.splits)
        _known("settings", "features", "basis_plan", features.basis_plan, scale.plans)
        picked = [name for name, variant in self.variants.items() if variant.best_of]
        for name in scale.candidates:
            _known("settings", "candidates", "variant", name, picked)
        for name, variant in self.variants.items():
            if variant.best_of:
                self._check_best_of(name, variant.best_of)
            elif variant.trained:
                self._check_trained(name, variant)
        self._check_floors()
        self._check_left_out()
        for name, table in self.tables.items():
            shown = [row.variant for row in table.rows]
            _known("tables", name, "reference", table.reference, shown)
            if table.reference in self.floors:
                raise ValueError(f"tables.{name}.reference: {table.reference} is a floor")
            for row in table.rows:
                _known("tables", name, "rows.variant", row.variant, self.variants)
            for column in table.columns:
                _known(
                    "tables", name, "columns.protocol", column.protocol, scale.rollouts.protocols
                )
        for name, figure in self.figures.items():
            self._check_figure(name, figure)
        self._check_analysis()
        for name, video in self.videos.items():
            self._check_video(name, video)
        for name in self.main:
            _known("experiments", "main", "name", name, {*self.tables, *self.figures, *self.videos})
        for variant_name, scored in self.runs().items():
            for protocol_name in scored:
                self._check_rollout(variant_name, protocol_name)
        return self

    def _check_video(self, name: str, video: Video) -> None:
        scale = self.settings
        for row in video.rows:
            _known("videos", name, "rows.variant", row.variant, self.variants)
        protocols = scale.rollouts.protocols
        _known("videos", name, "protocol", video.protocol, protocols)
        available = scale.splits[protocols[video.protocol].split].clips
        if video.clips > available:
            raise ValueError(
                f"videos.{name}: {video.clips} clips, {video.protocol} has {available}"
            )

    def _check_figure(self, name: str, figure: Figure) -> None:
        scale = self.settings
        for row in figure.rows:
            _known("figures", name, "rows.variant", row.variant, self.variants)
        for protocol in figure.shown_protocols:
            _known("figures", name, "protocol", protocol, scale.rollouts.protocols)
        if isinstance(figure, AnalysisFigure) or figure.kind == "curves":
            return
        clips = scale.splits[scale.rollouts.protocols[figure.protocol].split].clips
        frames = self.frames_of(figure.protocol)
        shown = figure.frames if figure.kind == "strip" else 1
        if figure.clip >= clips or shown > frames:
            raise ValueError(
                f"figures.{name}: clip {figure.clip} with {shown} frames is not among the "
                f"{clips} clips of {frames} frames"
            )

    def _check_analysis(self) -> None:
        chosen, scale = self.settings.analysis, self.settings
        for key, name, trained in (
            ("fit_split", chosen.fit_split, True),
            ("test_split", chosen.test_split, False),
        ):
            _known("settings", "analysis", key, name, scale.splits)
            split = scale.splits[name]
            if self.datasets[split.dataset].source not in EMBEDDED:
                raise ValueError(f"analysis.{key}: clips of {name} have no true depth")
            if (split.role == "train") != trained:
                raise ValueError(f"analysis.{key}: {name} has role {split.role}")
            if 1 + (chosen.frames - 1) * chosen.stride > split.frames:
                raise ValueError(f"analysis.{key}: windows exceed the clips of {name}")
        if chosen.fit_windows > scale.splits[chosen.fit_split].clips:
            raise ValueError("analysis.fit_windows: more than the clips of the split")
        if chosen.shown_clip >= scale.splits[chosen.test_split].clips:
            raise ValueError("analysis.shown_clip: not among the clips of the split")
        if chosen.level > 2 * len(scale.model.channels) - 2:
            raise ValueError(f"analysis.level: the backbone has no state {chosen.level}")
        for name in self.analysed():
            _known("analysis", "rows", "variant", name, self.variants)
            if self.variants[name].memory or chosen.frames > self.window_of(name):
                raise ValueError(
                    f"analysis.rows: {name} is no backbone that sees {chosen.frames} frames"
                )

    def analysed(self) -> list[str]:
        """Return the variants whose hidden states are analysed, for the table or a figure."""
        figures = [f for f in self.figures.values() if isinstance(f, AnalysisFigure)]
        table = self.analysis.rows if self.analysis else ()
        shown = [*table, *(row for figure in figures for row in figure.rows)]
        return list(dict.fromkeys(row.variant for row in shown))

    def _check_best_of(self, name: str, rule: BestOf) -> None:
        _known("variants", name, "protocol", rule.protocol, self.settings.rollouts.protocols)
        for candidate in (*rule.among, *self.candidates_of(name)):
            _known("variants", name, "among", candidate, self.variants)
            if self.variants[candidate].best_of or self.variants[candidate].memory:
                raise ValueError(f"variants.{name}.among: {candidate} is not a trained backbone")
        windows = {candidate: self.window_of(candidate) for candidate in self.candidates_of(name)}
        if len(set(windows.values())) > 1:
            raise ValueError(f"variants.{name}.among: windows of different lengths {windows}")

    def _check_trained(self, name: str, variant: Variant) -> None:
        recipe_name, plan_name = self.recipe_of(name)
        _known("variants", name, "plan", plan_name, self.settings.plans)
        _known("variants", name, "recipe", recipe_name, self.settings.recipes)
        if variant.initial is not None:
            _known("variants", name, "initial", variant.initial, self.variants)
            if self.variants[variant.initial].memory:
                raise ValueError(f"variants.{name}.initial: {variant.initial} has a memory branch")
        plan, recipe = self.settings.plans[plan_name], self.settings.recipes[recipe_name]
        if recipe.steps * recipe.batch > plan.windows:
            raise ValueError(
                f"variants.{name}: {recipe.steps} steps of {recipe.batch} windows exceed the "
                f"{plan.windows} windows of plan {plan_name}"
            )
        if variant.memory and not plan.memory:
            raise ValueError(f"variants.{name}: plan {plan_name} has no memory")
        scale = self.memory_guidance_of(variant.memory) if variant.memory else 1.0
        if scale != 1 and self.settings.memory.dropout == 0:
            raise ValueError(
                f"variants.{name}: guidance {scale} on the memory needs memory.dropout above 0"
            )
        if variant.alignment and (variant.alignment.frames or 0) > plan.frames:
            raise ValueError(
                f"variants.{name}.alignment.frames: {variant.alignment.frames} exceed the "
                f"{plan.frames} frames of plan {plan_name}"
            )
        source = self.datasets[self.settings.splits[plan.split].dataset].source
        truth = variant.memory is not None and variant.memory.geometry == "truth"
        if truth and source not in EMBEDDED and name not in self.settings.leave_out:
            raise ValueError(
                f"variants.{name}: {source} has no true depth for `geometry: truth`; "
                "name the variant in `leave_out`"
            )

    def _check_floors(self) -> None:
        protocols, splits = self.settings.rollouts.protocols, self.settings.splits
        for variant, scored in self.runs().items():
            memory = self.variants[variant].memory
            if variant not in self.floors or memory is None or memory.geometry != "truth":
                continue
            for protocol in scored:
                source = self.datasets[splits[protocols[protocol].split].dataset].source
                if source not in EMBEDDED:
                    raise ValueError(
                        f"variants.{variant}: {source} has no true depth for `geometry: truth`; "
                        "name the variant in `leave_out`"
                    )

    def _check_rollout(self, variant: str, protocol: str) -> None:
        if variant in self.floors:
            return
        rollouts = self.settings.rollouts
        try:
            plan_rollout(
                self.frames_of(protocol),
                window=self.window_of(variant),
                keyframe_density=self.keyframe_density_of(variant, protocol),
                context=rollouts.context,
            )
        except ValueError as error:
            raise ValueError(f"rollouts.protocols.{protocol}: {variant}: {error}") from None

    def _check_left_out(self) -> None:
        gone = set(self.settings.leave_out)
        for name in sorted(gone):
            _known("settings", "leave_out", "variant", name, self.variants)
        started = {start for name in self.variants.keys() - gone for start in self.starts_of(name)}
        needed = gone & (started | {table.reference for table in self.tables.values()})
        if needed:
            raise ValueError(f"leave_out: other variants or tables need {sorted(needed)}")

    @property
    def floors(self) -> list[str]:
        """The variants that need no model: they have no checkpoint, and one seed."""
        return [name for name, variant in self.variants.items() if variant.floor]

    def seeds_of(self, variant: str) -> tuple[int, ...]:
        """Return the seeds a variant has; a floor draws nothing."""
        return self.settings.seeds[:1] if variant in self.floors else self.settings.seeds

    def candidates_of(self, variant: str) -> tuple[str, ...]:
        """Return among which variants a `best_of` variant is picked at this scale."""
        rule = self.variants[variant].best_of
        assert rule is not None
        return self.settings.candidates.get(variant, rule.among)

    def starts_of(self, variant: str) -> tuple[str, ...]:
        """Return the variants whose checkpoints a variant is made from."""
        chosen = self.variants[variant]
        if chosen.best_of:
            return self.candidates_of(variant)
        return (chosen.initial,) if chosen.initial else ()

    def backbone_of(self, variant: str) -> str:
        """Return the variant whose checkpoint holds the backbone."""
        chosen = self.variants[variant]
        return chosen.initial if chosen.memory and chosen.initial else variant

    def caches_of(self, variant: str) -> dict[str, str]:
        """Return the feature caches that a trained variant reads: purpose -> kind."""
        chosen, caches = self.variants[variant], {}
        if chosen.memory and chosen.memory.frames:
            by_time = chosen.memory.selection == "time"
            suffix = "" if by_time else f"_{chosen.memory.selection}"
            caches["memory_features"] = f"memory{chosen.memory.frames}{suffix}"
        if self._aligned_in_3d(variant) and not self.settings.features.online:
            caches["window_features"] = "window"
        return caches

    def _aligned_in_3d(self, variant: str) -> bool:
        alignment = self.variants[variant].alignment
        return alignment is not None and alignment.teacher == "3d"

    def online_weights_of(self, variant: str) -> str:
        """Return the file of the teacher that runs while a variant is trained; empty for none."""
        scale, alignment = self.settings, self.variants[variant].alignment
        of_3d = scale.teacher.weights.format(scale=self.scale)
        if alignment and alignment.teacher == "2d":
            return scale.image_teacher.weights or of_3d
        return of_3d if alignment and scale.features.online else ""

    def memory_guidance_of(self, memory: VariantMemory) -> float:
        """Return the scale of the guidance on a variant's memory."""
        own, common = memory.guidance, self.settings.rollouts.memory_guidance
        return common if own is None else own

    def window_of(self, variant: str) -> int:
        """Return how many frames a variant sees at once: those of its backbone's windows."""
        backbone = self.backbone_of(variant)
        if self.variants[backbone].best_of:
            backbone = self.candidates_of(backbone)[0]
        return self.settings.plans[self.recipe_of(backbone)[1]].frames

    def recipe_of(self, variant: str) -> tuple[str, str]:
        """Return the names of a trained variant's recipe and plan."""
        chosen = self.variants[variant]
        assert chosen.recipe and chosen.plan
        return chosen.recipe, chosen.plan

    def frames_of(self, protocol: str) -> int:
        """Return the length of a protocol's videos."""
        chosen = self.settings.rollouts.protocols[protocol]
        return chosen.frames or self.settings.splits[chosen.split].frames

    def keyframe_density_of(self, variant: str, protocol: str) -> float:
        """Return the share of frames made first; 1 where one window makes them all at once."""
        at_once = self.frames_of(protocol) <= self.window_of(variant)
        return 1.0 if at_once else self.settings.rollouts.keyframe_density

    def runs(self) -> dict[str, list[str]]:
        """Return every variant that is needed, in order, with the protocols it is scored on."""
        wanted: dict[str, set[str]] = {}
        for table in self.tables.values():
            for row in table.rows:
                wanted.setdefault(row.variant, set()).update(c.protocol for c in table.columns)
        for figure in self.figures.values():
            for shown in figure.rows:
                wanted.setdefault(shown.variant, set()).update(figure.shown_protocols)
        for name in self.analysed():
            wanted.setdefault(name, set())
        for video in self.videos.values():
            for shown in video.rows:
                wanted.setdefault(shown.variant, set()).add(video.protocol)
        waiting = list(wanted)
        while waiting:
            name = waiting.pop()
            rule, starts = self.variants[name].best_of, self.starts_of(name)
            waiting += [start for start in starts if start not in wanted]
            for start in starts:
                scored = wanted.setdefault(start, set())
                if rule and len(starts) > 1:
                    scored.add(rule.protocol)
        order = self.settings.rollouts.protocols
        return {
            name: [protocol for protocol in order if protocol in wanted[name]]
            for name in self.variants
            if name in wanted
        }

    # What each job may read: plain JSON values, whose digest is a workflow parameter.

    def clips_settings(self, split: str) -> dict[str, Any]:
        """Settings of the job that makes a split."""
        chosen = self.settings.splits[split]
        return {
            "split": chosen.model_dump(mode="json"),
            "dataset": self.datasets[chosen.dataset].model_dump(mode="json"),
            "resolution": self.settings.resolution,
            "supersample": self.settings.supersample,
        }

    def plan_settings(self, plan: str) -> dict[str, Any]:
        """Settings of the job that draws a plan."""
        return self.settings.plans[plan].model_dump(mode="json")

    def teacher_settings(self) -> dict[str, Any]:
        """Settings of the jobs that train and measure the teacher."""
        return {
            "teacher": self.settings.teacher.model_dump(
                mode="json", exclude={"sha256", "weights", "revision"}
            ),
            "resolution": self.settings.resolution,
        }

    def features_settings(self, plan: str) -> dict[str, Any]:
        """Settings of the jobs that cache features of a plan."""
        return {
            "plan": self.plan_settings(plan),
            "teacher": self.settings.teacher.architecture,
            "sha256": self.settings.teacher.sha256,
            "features": self.settings.features.model_dump(mode="json"),
            "scale_from": self.settings.memory.scale_from,
            "scale_prior_weight": self.settings.memory.scale_prior_weight,
            "overlap_near": self.settings.memory.overlap_near,
            "overlap_far": self.settings.memory.overlap_far,
            "resolution": self.settings.resolution,
        }

    def choice_settings(self, variant: str) -> dict[str, Any]:
        """Settings of the jobs that pick a variant and adopt its checkpoint."""
        rule = self.variants[variant].best_of
        assert rule is not None
        among = self.candidates_of(variant)
        return {"best_of": {**rule.model_dump(mode="json"), "among": list(among)}}

    def training_settings(self, variant: str, seed: int) -> dict[str, Any]:
        """Settings of the job that trains a variant."""
        chosen = self.variants[variant]
        recipe_name, plan_name = self.recipe_of(variant)
        recipe = self.settings.recipes[recipe_name]
        settings: dict[str, Any] = {
            "variant": chosen.model_dump(mode="json", exclude=NOT_OF_TRAINING),
            "seed": seed,
            "resolution": self.settings.resolution,
            "model": self.settings.model.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json", exclude=set(EXECUTION)),
            "plan": self.plan_settings(plan_name),
        }
        if chosen.memory:
            settings["memory"] = self._memory_settings(variant)
        if chosen.memory or self._aligned_in_3d(variant):
            settings["features"] = self.settings.features.model_dump(mode="json")
        if chosen.alignment and not self._aligned_in_3d(variant):
            settings["image_teacher"] = self._image_teacher_settings()
        elif chosen.alignment and self.settings.features.online:
            settings["teacher"] = self.settings.teacher.architecture
            settings["sha256"] = self.settings.teacher.sha256
        return settings

    def rollout_settings(self, variant: str, protocol: str) -> dict[str, Any]:
        """Settings of the job that generates the videos of a variant."""
        chosen = self.variants[variant]
        rollouts = self.settings.rollouts
        settings: dict[str, Any] = {
            "split": self.clips_settings(rollouts.protocols[protocol].split),
            "frames": self.frames_of(protocol),
            "floor": chosen.floor,
            "memory": None,
        }
        if chosen.memory:
            settings["memory"] = {
                **chosen.memory.model_dump(mode="json", exclude={"kind"}),
                **self._memory_settings(variant),
                "features": self.settings.features.model_dump(mode="json"),
                "guidance": self.memory_guidance_of(chosen.memory),
            }
            del settings["memory"]["dropout"]
        if chosen.floor:
            if chosen.memory:
                del settings["memory"]["guidance"]
            return {**settings, "rollouts": {"context": rollouts.context}}
        return {
            **settings,
            "rollouts": rollouts.model_dump(
                mode="json", exclude={"protocols", "batch", "keyframe_density", "memory_guidance"}
            ),
            "keyframe_density": self.keyframe_density_of(variant, protocol),
            "window": self.window_of(variant),
        }

    def _image_teacher_settings(self) -> dict[str, Any]:
        """Settings of the 2D teacher: DINOv2's, or those of the model whose encoder stands in."""
        chosen, teacher = self.settings.image_teacher, self.settings.teacher
        if chosen.weights:
            return {"dinov2": chosen.model_dump(mode="json", exclude={"weights"})}
        return {"encoder_of": {"teacher": teacher.architecture, "sha256": teacher.sha256}}

    def _memory_settings(self, variant: str) -> dict[str, Any]:
        """Settings of a variant's kind of memory; `implicit` is there for that kind alone."""
        chosen = self.variants[variant].memory
        assert chosen is not None
        of_points = {"voxel_size", "budget", "confidence_quantile", "scale_from"}
        of_points |= {"scale_prior_weight"}
        unread = of_points if chosen.kind == "implicit" else {"implicit"}
        return self.settings.memory.model_dump(mode="json", exclude=unread)

    def scores_settings(self, protocol: str) -> dict[str, Any]:
        """Settings of the job that scores a protocol."""
        return {
            "scores": self.settings.scores.model_dump(mode="json", exclude={"bootstrap"}),
            "context": self.settings.rollouts.context,
            "protocol": protocol,
            "frames": self.frames_of(protocol),
        }

    def table_settings(self, table: str) -> dict[str, Any]:
        """Settings of the job that renders a table."""
        shown = {row.variant for row in self.tables[table].rows}
        return {
            "table": self.tables[table].model_dump(mode="json"),
            "floors": sorted(name for name in self.floors if name in shown),
            "scale": self.scale,
            "seeds": list(self.settings.seeds),
            "stands_in": self._stands_in(table),
            "teacher": self.settings.teacher.name,
            "bootstrap": self.settings.scores.bootstrap,
        }

    def _stands_in(self, table: str) -> str:
        """Say what stands in for what in a table; the 2D teacher where it is one of them."""
        scale, sentence = self.settings, self.settings.stands_in
        shown = (self.variants[row.variant].alignment for row in self.tables[table].rows)
        if scale.image_teacher.weights or all(a is None or a.teacher == "3d" for a in shown):
            return sentence
        return f"{sentence}; the image encoder of {scale.teacher.name} for DINOv2, the 2D teacher"

    def facts_settings(self) -> dict[str, Any]:
        """Settings of the job that states what the paper's text says of this scale."""
        scale = self.settings
        splits = [scale.splits[protocol.split] for protocol in scale.rollouts.protocols.values()]
        return {
            "scale": self.scale,
            "resolution": scale.resolution,
            "seeds": len(scale.seeds),
            "context": scale.rollouts.context,
            "sampling_steps": scale.rollouts.sampling_steps,
            "scale_from": scale.memory.scale_from,
            "embedded": all(self.datasets[s.dataset].source in EMBEDDED for s in splits),
        }

    def teacher_table_settings(self) -> dict[str, Any]:
        """Settings of the job that renders the table of the teacher's errors."""
        return {
            "scale": self.scale,
            "stands_in": self.settings.stands_in,
            "teacher": self.settings.teacher.name,
        }

    def figure_settings(self, figure: str) -> dict[str, Any]:
        """Settings of the job that draws a figure."""
        chosen = self.figures[figure]
        settings: dict[str, Any] = {
            "figure": chosen.model_dump(mode="json"),
            "seeds": list(self.settings.seeds),
            "context": self.settings.rollouts.context,
        }
        if chosen.kind in ("curves", "probes"):
            settings["bootstrap"] = self.settings.scores.bootstrap
        if chosen.kind in ("probes", "clouds"):
            settings["analysis"] = self.settings.analysis.model_dump(mode="json")
        return settings

    def analysis_settings(self, variant: str | None) -> dict[str, Any]:
        """Settings of the job that analyses a variant's features, or with None the teacher's."""
        scale, chosen = self.settings, self.settings.analysis
        settings: dict[str, Any] = {
            "analysis": chosen.model_dump(mode="json"),
            "fit": self.clips_settings(chosen.fit_split),
            "test": self.clips_settings(chosen.test_split),
            "resolution": scale.resolution,
            "teacher": scale.teacher.architecture,
            "image_size": scale.teacher.architecture.get("image_size", 518),
            "patch_size": scale.teacher.architecture.get("patch_size", 14),
            "sha256": scale.teacher.sha256,
            "features": scale.features.model_dump(
                mode="json", include={"layer", "channels", "precision"}
            ),
            "side": self._side_of_level(chosen.level),
        }
        if variant is not None:
            alignment = self.variants[variant].alignment
            settings["alignment"] = alignment and alignment.model_dump(mode="json")
        return settings

    def _side_of_level(self, level: int) -> int:
        """Return the cells along a side of a backbone's state."""
        model = self.settings.model
        down = len(model.channels) - 1
        halved = [*range(down), down, *reversed(range(down))][level]
        return self.settings.resolution // (model.patch_size << halved)

    def analysis_table_settings(self) -> dict[str, Any]:
        """Settings of the job that renders the tables of the analysis."""
        assert self.analysis is not None
        return {
            "rows": self.analysis.model_dump(mode="json")["rows"],
            "analysis": self.settings.analysis.model_dump(mode="json"),
            "scale": self.scale,
            "seeds": list(self.settings.seeds),
            "stands_in": self.settings.stands_in,
            "teacher": self.settings.teacher.name,
            "bootstrap": self.settings.scores.bootstrap,
        }

    def video_settings(self, video: str) -> dict[str, Any]:
        """Settings of the job that writes a video for people."""
        return {
            "figure": self.videos[video].model_dump(mode="json"),
            "seeds": list(self.settings.seeds),
            "context": self.settings.rollouts.context,
        }


def _known(group: str, name: str, key: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"{group}.{name}.{key}: {value!r} is none of {sorted(choices)}")
