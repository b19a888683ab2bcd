"""The settings of every job, made of the configuration: what the job may read, and no more."""

from dataclasses import dataclass
from typing import Any

from geomem.config.checks import check_cache_fidelity
from geomem.config.study import VGGT_SCORE, Config
from geomem.errors import InputError
from geomem.memory.registry import KINDS
from geomem.methods.registry import METHODS
from geomem.metrics.registry import FAMILIES, metric_of
from geomem.settings.evaluation import Conditional, Guidance, Replacement, ScoresFigure, Vanilla
from geomem.settings.fidelity import CacheFidelity
from geomem.settings.jobs import (
    AlignmentJob,
    AnalysisJob,
    AnalysisTableJob,
    CacheFidelityJob,
    CacheFidelityTableJob,
    CalibrationJob,
    ConsistencyJob,
    ConsistencyTableJob,
    ContentBiasJob,
    ContentBiasTableJob,
    CostsJob,
    CostsRow,
    DinoV2Model,
    FeaturesJob,
    FigureJob,
    ImageTeacherModel,
    ImportJob,
    MeasuredJob,
    MemoryJob,
    MethodJob,
    PaperJob,
    PickCriterion,
    PickJob,
    PlanJob,
    PreferenceTableJob,
    RolloutJob,
    SamplingJob,
    SanityJob,
    ScoresJob,
    TableJob,
    TeacherJob,
    TeacherModel,
    TeacherTableJob,
    TrainingJob,
    VideoJob,
)
from geomem.settings.setup import FactsJob, SetupRow
from geomem.settings.training import Alignment, Noise
from geomem.sources.registry import ClipsOfSplit


@dataclass(frozen=True)
class JobSettings:
    """Settings of jobs by stage."""

    config: Config

    def clips(self, split: str) -> ClipsOfSplit:
        """Of the jobs that make a split."""
        scale, chosen = self.config.settings, self.config.settings.splits[split]
        source = self.config.source_of(split)
        return ClipsOfSplit(
            name=split,
            role=chosen.role,
            clips=chosen.clips,
            frames=chosen.frames,
            shards=chosen.shards,
            resolution=scale.resolution,
            supersample=scale.supersample,
            settings=self.config.datasets[chosen.dataset],
            options=source.Options.model_validate(chosen.options),
            version=source.version,
        )

    def plan(self, plan: str) -> PlanJob:
        """Of the job that draws a plan."""
        return PlanJob(plan=self.config.settings.plans[plan])

    def teacher(self) -> TeacherJob:
        """Of the jobs that train and measure the teacher."""
        teacher = self.config.settings.teacher
        return TeacherJob(
            architecture=teacher.architecture,
            training=teacher.training,
            resolution=self.config.settings.resolution,
        )

    def teacher_model(self) -> TeacherModel:
        """Of the frozen teacher that jobs load."""
        scale = self.config.settings
        return TeacherModel(
            architecture=scale.teacher.architecture,
            sha256=scale.teacher.sha256,
            precision=scale.features.precision,
        )

    def features(self, plan: str) -> FeaturesJob:
        """Of the jobs that fit the basis and cache features of a plan.

        Raises:
            InputError: If the scale has no such plan.
        """
        scale = self.config.settings
        if plan not in scale.plans:
            raise InputError(f"scale {self.config.scale} has no plan {plan}")
        return FeaturesJob(
            plan=scale.plans[plan],
            teacher=self.teacher_model(),
            features=scale.features,
            geometry=scale.memory.geometry,
            overlap=scale.memory.overlap,
            resolution=scale.resolution,
        )

    def method(self, variant: str) -> MethodJob:
        """Of a variant's method."""
        name = self.config.method_of(variant)
        settings = self.config.method_settings(name)
        return MethodJob(name=name, version=METHODS[name].version, settings=settings)

    def memory(self, variant: str) -> MemoryJob | None:
        """Of a variant's memory; None without one."""
        memory = self.config.variants[variant].memory
        if memory is None:
            return None
        scale, kind = self.config.settings, KINDS[memory.kind]
        trained = self.config.variants[self.config.weights_of(variant)].memory or memory
        return MemoryJob(
            kind=kind.name,
            version=kind.version,
            settings=self.config.kind_settings(kind.name),
            fewest=memory.fewest,
            most=memory.most,
            geometry=memory.geometry,
            selection=memory.selection,
            overlap=scale.memory.overlap,
            channels=scale.features.channels,
            backbone=trained.backbone,
            gate=trained.gate,
            new_branch=trained.new_branch,
        )

    def _alignment(self, alignment: Alignment) -> AlignmentJob:
        layer = self.config.layer_of(alignment)
        online = self.config.settings.features.online or layer is not None
        return AlignmentJob(
            objective=alignment.objective,
            level=alignment.level,
            frames=alignment.frames,
            weight=alignment.weight,
            scale_weight=alignment.scale_weight,
            image_teacher=self._image_teacher() if alignment.teacher == "2d" else None,
            online=self.teacher_model() if online and alignment.teacher == "3d" else None,
            layer=layer,
            teacher_sees=alignment.teacher_sees,
        )

    def _image_teacher(self) -> ImageTeacherModel:
        """Of the 2D teacher: DINOv2, or the model whose encoder stands in."""
        chosen = self.config.settings.image_teacher
        if not chosen.weights:
            return ImageTeacherModel(encoder_of=self.teacher_model())
        sizes = chosen.model_dump(exclude={"weights"})
        return ImageTeacherModel(dinov2=DinoV2Model.model_validate(sizes))

    def training(self, variant: str, seed: int) -> TrainingJob:
        """Of the job that trains a variant."""
        config, scale = self.config, self.config.settings
        chosen = config.variants[variant]
        recipe, plan = config.recipe_of(variant)
        reads_features = chosen.memory or config.compressed(variant)
        return TrainingJob(
            method=self.method(variant),
            seed=seed,
            resolution=scale.resolution,
            recipe=scale.recipes[recipe],
            plan=scale.plans[plan],
            noise=chosen.noise,
            initial=chosen.initial,
            features=scale.features if reads_features else None,
            memory=self.memory(variant),
            memory_dropout=config.memory_dropout_of(chosen.memory) if chosen.memory else None,
            corruption=scale.memory.corruption if chosen.memory else None,
            alignment=self._alignment(chosen.alignment) if chosen.alignment else None,
        )

    def imported(self, variant: str) -> ImportJob:
        """Of the job that brings weights that are there already into a checkpoint."""
        checkpoint = self.config.variants[variant].checkpoint
        assert checkpoint is not None
        return ImportJob(method=self.method(variant), sha256=checkpoint.sha256)

    def pick(self, variant: str) -> PickJob:
        """Of the jobs that pick a variant and adopt its checkpoint."""
        rule = self.config.variants[variant].best_of
        assert rule is not None
        criteria = []
        for criterion in rule.criteria:
            better = metric_of(criterion.metric).better
            assert better != "neither"
            criteria.append(PickCriterion(metric=criterion.metric, better=better))
        return PickJob(
            among=self.config.candidates_of(variant),
            protocol=rule.protocol,
            criteria=tuple(criteria),
        )

    def rollout(self, variant: str, protocol: str) -> RolloutJob:
        """Of the job that generates the videos of a variant."""
        config, rollouts = self.config, self.config.settings.rollouts
        chosen = config.variants[variant]
        needs = config.needs_of(variant)
        return RolloutJob(
            clips=self.clips(rollouts.protocols[protocol].split),
            frames=config.frames_of(protocol),
            context=config.context_of(protocol),
            method=self.method(variant),
            memory=self.memory(variant),
            geometry=config.settings.memory.geometry if "geometry" in needs else None,
            teacher=self.teacher_model() if needs else None,
            sampling=None if chosen.floor else self._sampling(variant, protocol),
        )

    def _sampling(self, variant: str, protocol: str) -> SamplingJob:
        config, rollouts = self.config, self.config.settings.rollouts
        memory, noise = config.variants[variant].memory, config.noise_of(variant)
        return SamplingJob(
            window=config.window_of(variant),
            keyframe_density=config.keyframe_density_of(variant, protocol),
            kept=config.kept_of(variant, protocol),
            steps=rollouts.sampling_steps,
            level_power=rollouts.level_power,
            keyframes=_known_to(noise, rollouts.keyframes),
            interpolation=_known_to(noise, rollouts.interpolation),
            memory_guidance=config.memory_guidance_of(memory) if memory else None,
            precision=rollouts.precision,
            seed=rollouts.seed,
        )

    def scores(self, protocol: str, family: str) -> ScoresJob:
        """Of the job that scores a protocol by a family of metrics."""
        scores, known = self.config.settings.scores, FAMILIES[family]
        return ScoresJob(
            family=family,
            version=known.version,
            settings=self.config.family_settings(family),
            revisit_gap=scores.revisit_gap,
            partial=scores.partial,
            protocol=protocol,
            frames=self.config.frames_of(protocol),
            context=self.config.context_of(protocol),
        )

    def sanity(self, family: str) -> SanityJob:
        """Of the job that asks whether a family's metrics tell truth from noise."""
        chosen = self.config.sanity
        assert chosen is not None
        return SanityJob(scores=self.scores(chosen.protocol, family), clips=chosen.clips)

    def analysis(self, variant: str | None) -> AnalysisJob:
        """Of the job that analyses a variant's features, or with None the teacher's."""
        config, scale = self.config, self.config.settings
        chosen, sizes = scale.analysis, scale.teacher.architecture
        # the cells of the states that every analysed backbone shows
        method = METHODS[config.method_of(config.analysed()[0])]
        states = method.hidden_states(config.method_settings(method.name), scale.resolution)
        alignment = config.variants[variant].alignment if variant is not None else None
        return AnalysisJob(
            analysis=chosen,
            fit=self.clips(chosen.fit_split),
            test=self.clips(chosen.test_split),
            resolution=scale.resolution,
            teacher=self.teacher_model(),
            image_size=sizes.get("image_size", 518),
            patch_size=sizes.get("patch_size", 14),
            layer=scale.features.layer,
            channels=scale.features.channels,
            side=states[chosen.level].side,
            method=self.method(variant) if variant is not None else None,
            alignment=self._alignment(alignment) if alignment else None,
        )

    def content_bias(self) -> ContentBiasJob:
        """Of the job that tests which video features see time."""
        scores, chosen = self.config.settings.scores, self.config.content_bias
        assert chosen is not None
        named: Any = scores.families.get("jedi")
        videomae: Any = scores.families.get("videomae")
        sets = self.config.family_settings("sets")
        return ContentBiasJob(
            content_bias=chosen,
            clips=self.clips(chosen.split),
            i3d_weights=sets.i3d_weights,
            videomae_weights=videomae.weights.path if videomae else None,
            vjepa_weights=(named.encoder.path, named.probe.path) if named else None,
            bootstrap=scores.bootstrap,
        )

    def content_bias_table(self) -> ContentBiasTableJob:
        """Of the job that renders the table of that test."""
        assert self.config.content_bias is not None
        return ContentBiasTableJob(content_bias=self.config.content_bias, scale=self.config.scale)

    def consistency(self) -> ConsistencyJob:
        """Of the job that scores rooms spoiled by known amounts."""
        chosen, families = self.config.spoiled, self.config.settings.scores.families
        assert chosen is not None
        found: dict[str, Any] = {
            name: families.get(name) or FAMILIES[name].Settings()
            for name in ("reprojection", "matches")
        }
        # DROID-SLAM has no part in it
        frames = {"frames": chosen.frames, "droid": None}
        return ConsistencyJob(
            consistency=chosen,
            reprojection=found["reprojection"].model_copy(update=frames),
            matches=found["matches"].model_copy(update={"gap": chosen.gap}),
            versions={name: FAMILIES[name].version for name in found},
        )

    def consistency_table(self) -> ConsistencyTableJob:
        """Of the job that renders what that has found."""
        assert self.config.spoiled is not None
        return ConsistencyTableJob(consistency=self.config.spoiled, scale=self.config.scale)

    def cache_fidelity(self) -> CacheFidelityJob:
        """Of the job that weighs settings of the feature cache.

        Raises:
            InputError: If the scale names none, or what is not there.
        """
        scale, chosen = self.config.settings, self._weighed()
        variant = self.config.variants[chosen.variant]
        assert variant.alignment is not None
        return CacheFidelityJob(
            cache_fidelity=chosen,
            teacher=self.teacher_model(),
            method=self.method(chosen.variant),
            alignment=self._alignment(variant.alignment),
            noise=variant.noise,
            fit=self.clips(chosen.fit_split),
            test=self.clips(chosen.test_split),
            resolution=scale.resolution,
        )

    def cache_fidelity_table(self) -> CacheFidelityTableJob:
        """Of the job that renders what that has found.

        Raises:
            InputError: If the scale names none.
        """
        scale = self.config.settings
        return CacheFidelityTableJob(
            cache_fidelity=self._weighed(),
            scale=self.config.scale,
            teacher=scale.teacher.name,
            bootstrap=scale.scores.bootstrap,
        )

    def preference_table(self) -> PreferenceTableJob:
        """Of the job that renders what raters prefer.

        Raises:
            InputError: If the study names no votes.
        """
        if self.config.preference_votes is None:
            raise InputError("config/experiments.yaml has no `preference_votes`")
        bootstrap = self.config.settings.scores.bootstrap
        return PreferenceTableJob(scale=self.config.scale, bootstrap=bootstrap)

    def _weighed(self) -> CacheFidelity:
        chosen, place = self.config.settings.cache_fidelity, f"config/scales/{self.config.scale}"
        if chosen is None:
            raise InputError(f"{place}.yaml has no `cache_fidelity`")
        try:
            check_cache_fidelity(self.config, chosen)
        except ValueError as error:
            raise InputError(f"{place}.yaml: {error}") from None
        return chosen

    def calibration(self) -> CalibrationJob:
        """Of the job that calibrates the VGGT score of the scale's teacher."""
        scores, chosen = self.config.settings.scores, self.config.family_settings(VGGT_SCORE)
        calibration = scores.calibration
        return CalibrationJob(
            teacher=self.teacher_model(),
            scene=chosen.scene,
            fit=self.clips(calibration.fit_split),
            test=self.clips(calibration.test_split),
            clips=calibration.clips,
            seed=calibration.seed,
            bootstrap=scores.bootstrap,
        )

    def table(self, table: str) -> TableJob:
        """Of the job that renders a table."""
        config, shown = self.config, self.config.tables[table]
        variants = {row.variant for row in shown.rows}
        return TableJob(
            table=shown,
            floors=tuple(sorted(name for name in config.floors if name in variants)),
            scale=config.scale,
            seeds=config.settings.seeds,
            stands_in=self._stands_in(table),
            teacher=config.settings.teacher.name,
            bootstrap=config.settings.scores.bootstrap,
        )

    def _stands_in(self, table: str) -> str:
        """Say what stands in for what in a table; the 2D teacher where it is one of them."""
        config, scale = self.config, self.config.settings
        shown = (config.variants[row.variant].alignment for row in config.tables[table].rows)
        if scale.image_teacher.weights or all(a is None or a.teacher == "3d" for a in shown):
            return scale.stands_in
        name = scale.teacher.name
        return f"{scale.stands_in}; the image encoder of {name} for DINOv2, the 2D teacher"

    def facts(self) -> FactsJob:
        """Of the job that states what the paper's text says of this scale."""
        scale, rollouts = self.config.settings, self.config.settings.rollouts
        splits = {protocol.split for protocol in rollouts.protocols.values()}
        return FactsJob(
            scale=self.config.scale,
            resolution=scale.resolution,
            seeds=len(scale.seeds),
            context=rollouts.context,
            sampling_steps=rollouts.sampling_steps,
            keyframe_density=rollouts.keyframe_density,
            keyframes=rollouts.keyframes,
            interpolation=rollouts.interpolation,
            scale_from=scale.memory.geometry.scale_from,
            embedded=not any(self.config.source_of(split).imports for split in splits),
            rows=self._setup_rows(),
            methods=scale.methods,
            features=scale.features,
            teacher=scale.teacher.name,
            architecture=scale.teacher.architecture,
            splits=scale.splits,
        )

    def _setup_rows(self) -> tuple[SetupRow, ...]:
        """Return what each recipe trains at this scale, in the order of the variants."""
        config, trains = self.config, dict[str, list[str]]()
        for name, variant in config.variants.items():
            if variant.trained:
                trains.setdefault(config.recipe_of(name)[0], []).append(name)
        rows = []
        for recipe, variants in trains.items():
            plan = config.settings.plans[config.recipe_of(variants[0])[1]]
            rows.append(
                SetupRow(
                    recipe=recipe,
                    variants=tuple(variants),
                    method=self.method(variants[0]),
                    memory=self.memory(variants[0]),
                    frames=plan.frames,
                    windows=plan.windows,
                    optimization=config.settings.recipes[recipe],
                )
            )
        return tuple(rows)

    def paper(self) -> PaperJob:
        """Of the job that compiles the paper."""
        return PaperJob(scale=self.config.scale)

    def teacher_table(self) -> TeacherTableJob:
        """Of the job that renders the table of the teacher's errors."""
        scale = self.config.settings
        return TeacherTableJob(
            scale=self.config.scale, stands_in=scale.stands_in, teacher=scale.teacher.name
        )

    def measured(self) -> MeasuredJob:
        """Of the job that collects what training took."""
        return MeasuredJob(variants=tuple(self.config.costing()), scale=self.config.scale)

    def costs(self) -> CostsJob:
        """Of the job that renders what the rows of a table cost."""
        config, chosen = self.config, self.config.costs
        assert chosen is not None
        rows = []
        for row in config.tables[chosen.rows_of].rows:
            weights = config.weights_of(row.variant)
            own = config.variants[weights]
            recipe = config.settings.recipes[own.recipe] if own.trained and own.recipe else None
            detail = f"training.{own.recipe}"
            asks = config.settings.resources.get(detail) or config.settings.resources["training"]
            generated = {} if row.variant in config.floors else chosen.protocols
            rows.append(
                CostsRow(
                    variant=row.variant,
                    weights=weights,
                    label=row.label,
                    rule_above=row.rule_above,
                    method=self.method(row.variant),
                    steps=recipe.steps if recipe else None,
                    batch=recipe.batch if recipe else None,
                    gpus=asks.gpu * asks.nodes,
                    rollouts={name: self.rollout(row.variant, name) for name in generated},
                )
            )
        return CostsJob(
            rows=tuple(rows),
            protocols={name: config.frames_of(name) for name in chosen.protocols},
            scale=config.scale,
            teacher=config.settings.teacher.name,
        )

    def analysis_table(self) -> AnalysisTableJob:
        """Of the job that renders the tables of the analysis."""
        config, scale = self.config, self.config.settings
        assert config.analysis is not None
        return AnalysisTableJob(
            rows=config.analysis.rows,
            analysis=scale.analysis,
            scale=config.scale,
            seeds=scale.seeds,
            stands_in=scale.stands_in,
            teacher=scale.teacher.name,
            bootstrap=scale.scores.bootstrap,
        )

    def figure(self, figure: str) -> FigureJob:
        """Of the job that draws a figure."""
        config, scale, chosen = self.config, self.config.settings, self.config.figures[figure]
        probed = chosen.kind in ("probes", "clouds")
        intervals = isinstance(chosen, ScoresFigure) or chosen.kind == "probes"
        shown = {row.variant for row in chosen.rows}
        return FigureJob(
            figure=chosen,
            seeds=scale.seeds,
            floors=tuple(sorted(name for name in config.floors if name in shown)),
            contexts={name: config.context_of(name) for name in chosen.shown_protocols},
            bootstrap=scale.scores.bootstrap if intervals else None,
            analysis=scale.analysis if probed else None,
        )

    def video(self, video: str) -> VideoJob:
        """Of the job that writes a video for people."""
        chosen = self.config.videos[video]
        context = self.config.context_of(chosen.protocol)
        return VideoJob(video=chosen, seeds=self.config.settings.seeds, context=context)


def _known_to(noise: Noise, guidance: Guidance) -> Guidance:
    """Return the guidance that a model trained with such noise can follow.

    With one level for all frames the history is put in by replacement. Conditions that were clean
    or gone in training are shown so, never with a little noise.
    """
    if noise == "per_clip":
        return Replacement(scheme="replacement")
    scale = getattr(guidance, "guidance_scale", None)
    if noise == "per_frame" or guidance.scheme == "vanilla":
        return guidance
    if scale is None:
        return Conditional(scheme="conditional")
    return Vanilla(scheme="vanilla", guidance_scale=scale)
