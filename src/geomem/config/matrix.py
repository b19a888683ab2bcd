"""The whole configuration, and what each job may read of it."""

from collections.abc import Collection
from typing import Any, Self

from pydantic import Field, model_validator

from geomem.config.basics import Positive, Strict
from geomem.config.data import EMBEDDED, Dataset, PlanSettings, Split
from geomem.config.evaluation import Figure, Rollouts, Scores, Table
from geomem.config.memory import Features, Memory, Teacher
from geomem.config.training import Model, Optimization, Variant
from geomem.diffusion.plans import plan_rollout


class Resources(Strict):
    """What one job of a stage asks for."""

    threads: Positive = 1
    mem_mb: Positive = 2000
    runtime: Positive = Field(default=60, description="minutes")
    gpu: int = Field(default=0, ge=0)


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
    features: Features
    memory: Memory
    model: Model
    recipes: dict[str, Optimization]
    rollouts: Rollouts
    scores: Scores
    resources: dict[str, Resources] = Field(
        description="by stage, or by `stage.detail` where one kind of job differs"
    )
    leave_out: tuple[str, ...] = Field(
        default=(), description="variants that this scale's data cannot train; rows go too"
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
        for name, target in scale.rollouts.protocols.items():
            _known("rollouts.protocols", name, "split", target, scale.splits)
            self._check_protocol(name)
        teacher, features = scale.teacher, scale.features
        _known("settings", "teacher", "train_split", teacher.train_split, scale.splits)
        _known("settings", "teacher", "validation_split", teacher.validation_split, scale.splits)
        _known("settings", "features", "basis_plan", features.basis_plan, scale.plans)
        for name, variant in self.variants.items():
            _known("variants", name, "plan", variant.plan, scale.plans)
            _known("variants", name, "recipe", variant.recipe, scale.recipes)
            self._check_variant(name, variant)
        self._check_left_out()
        for name, table in self.tables.items():
            shown = [row.variant for row in table.rows if not row.repeat_context]
            _known("tables", name, "reference", table.reference, shown)
            for row in table.rows:
                _known("tables", name, "rows.variant", row.variant, self.variants)
            for column in table.columns:
                _known(
                    "tables", name, "columns.protocol", column.protocol, scale.rollouts.protocols
                )
        for name, figure in self.figures.items():
            self._check_figure(name, figure)
        return self

    def _check_figure(self, name: str, figure: Figure) -> None:
        scale = self.settings
        for row in figure.rows:
            _known("figures", name, "rows.variant", row.variant, self.variants)
        protocols = (figure.protocol,) if figure.kind == "strip" else figure.protocols
        for protocol in protocols:
            _known("figures", name, "protocol", protocol, scale.rollouts.protocols)
        if figure.kind == "strip":
            split = scale.splits[scale.rollouts.protocols[figure.protocol]]
            if figure.clip >= split.clips or figure.frames > split.frames:
                raise ValueError(
                    f"figures.{name}: clip {figure.clip} with {figure.frames} frames is not among "
                    f"the {split.clips} clips of {split.frames} frames"
                )

    def _check_variant(self, name: str, variant: Variant) -> None:
        if variant.initial is not None:
            _known("variants", name, "initial", variant.initial, self.variants)
            if self.variants[variant.initial].memory:
                raise ValueError(f"variants.{name}.initial: {variant.initial} has a memory branch")
        plan, recipe = self.settings.plans[variant.plan], self.settings.recipes[variant.recipe]
        if recipe.steps * recipe.batch > plan.windows:
            raise ValueError(
                f"variants.{name}: {recipe.steps} steps of {recipe.batch} windows exceed the "
                f"{plan.windows} windows of plan {variant.plan}"
            )
        if variant.memory and not plan.memory:
            raise ValueError(f"variants.{name}: plan {variant.plan} has no memory")
        source = self.datasets[self.settings.splits[plan.split].dataset].source
        truth = variant.memory is not None and variant.memory.geometry == "truth"
        if truth and source not in EMBEDDED and name not in self.settings.leave_out:
            raise ValueError(
                f"variants.{name}: {source} has no true depth for `geometry: truth`; "
                "name the variant in `leave_out`"
            )

    def _check_protocol(self, name: str) -> None:
        rollouts = self.settings.rollouts
        try:
            plan_rollout(
                self.settings.splits[rollouts.protocols[name]].frames,
                window=rollouts.window,
                keyframe_density=rollouts.keyframe_density,
                context=rollouts.context,
            )
        except ValueError as error:
            raise ValueError(f"rollouts.protocols.{name}: {error}") from None

    def _check_left_out(self) -> None:
        gone = set(self.settings.leave_out)
        for name in sorted(gone):
            _known("settings", "leave_out", "variant", name, self.variants)
        started = {v.initial for name, v in self.variants.items() if name not in gone}
        needed = gone & (started | {table.reference for table in self.tables.values()})
        if needed:
            raise ValueError(f"leave_out: other variants or tables need {sorted(needed)}")

    def shown_variants(self) -> list[str]:
        """Return the variants that a table or figure shows and those they start from, in order."""
        rows = [
            row
            for shown in (self.tables, self.figures)
            for one in shown.values()
            for row in one.rows
        ]
        names = {row.variant for row in rows}
        while grown := {v for name in names if (v := self.variants[name].initial)} - names:
            names |= grown
        return [name for name in self.variants if name in names]

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
            "teacher": self.settings.teacher.model_dump(mode="json", exclude={"sha256", "weights"}),
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
            "resolution": self.settings.resolution,
        }

    def training_settings(self, variant: str, seed: int) -> dict[str, Any]:
        """Settings of the job that trains a variant."""
        chosen = self.variants[variant]
        recipe = self.settings.recipes[chosen.recipe]
        settings: dict[str, Any] = {
            "variant": chosen.model_dump(mode="json"),
            "seed": seed,
            "resolution": self.settings.resolution,
            "model": self.settings.model.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json", exclude={"checkpoint_steps", "workers"}),
            "plan": self.plan_settings(chosen.plan),
        }
        if chosen.memory:
            settings["memory"] = self.settings.memory.model_dump(mode="json")
        if chosen.memory or chosen.alignment:
            settings["features"] = self.settings.features.model_dump(mode="json")
        return settings

    def rollout_settings(self, variant: str, protocol: str) -> dict[str, Any]:
        """Settings of the job that generates the videos of a variant."""
        chosen = self.variants[variant]
        rollouts = self.settings.rollouts
        settings: dict[str, Any] = {
            "rollouts": rollouts.model_dump(mode="json", exclude={"protocols", "batch"}),
            "split": self.clips_settings(rollouts.protocols[protocol]),
            "memory": None,
        }
        if chosen.memory:
            settings["memory"] = {
                **chosen.memory.model_dump(mode="json"),
                **self.settings.memory.model_dump(mode="json", exclude={"dropout"}),
                "features": self.settings.features.model_dump(mode="json"),
            }
        return settings

    def scores_settings(self, protocol: str) -> dict[str, Any]:
        """Settings of the job that scores a protocol."""
        return {
            "scores": self.settings.scores.model_dump(mode="json", exclude={"bootstrap"}),
            "context": self.settings.rollouts.context,
            "protocol": protocol,
        }

    def table_settings(self, table: str) -> dict[str, Any]:
        """Settings of the job that renders a table."""
        return {
            "table": self.tables[table].model_dump(mode="json"),
            "scale": self.scale,
            "seeds": list(self.settings.seeds),
            "stands_in": self.settings.stands_in,
            "teacher": self.settings.teacher.name,
            "bootstrap": self.settings.scores.bootstrap,
            "set_bootstrap": self.settings.scores.set_bootstrap,
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
        if chosen.kind == "curves":
            settings["bootstrap"] = self.settings.scores.bootstrap
        return settings


def _known(group: str, name: str, key: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"{group}.{name}.{key}: {value!r} is none of {sorted(choices)}")
