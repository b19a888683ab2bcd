"""The configuration: pydantic models, how files become one `Config`, and what each job may read.

`config/config.yaml` names a scale; `config/scales/<scale>.yaml` holds every number that depends on
it; `config/experiments.yaml` is the matrix of variants and tables; `config/datasets/*.yaml` the
data sets. A job reads nothing but the settings that `Config.*_settings` returns for it; their
digest is the job's parameter in the workflow, so a changed value re-runs exactly the jobs that
read it.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from geomem.diffusion.plans import plan_rollout
from geomem.formats import InputError

Trajectory = Literal["walk", "forward", "pan", "spin", "orbit", "out_and_back", "static"]
EMBEDDED = ("rooms", "rooms_ood")  # sources that are rendered, with true depth
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Metric = Literal[
    "psnr",
    "psnr_frame_mean",
    "ssim",
    "perceptual",
    "late_psnr",
    "late_distance",
    "closing_psnr",
    "closing_distance",
    "self_psnr",
    "self_distance",
    "contrast",
    "truth_psnr",
    "truth_distance",
    "forgetting",
    "coverage",
    "frechet",
    "frechet_infinite",
    "kernel_distance",
]


class Strict(BaseModel):
    """Unknown keys are errors; values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# --- data -------------------------------------------------------------------------------------


class Dataset(Strict):
    """A source of clips (`config/datasets/<name>.yaml`)."""

    source: Literal["rooms", "rooms_ood", "realestate10k"]
    horizontal_fov: float = Field(
        default=80.0, gt=10, lt=150, description="degrees; embedded worlds only"
    )
    intrinsics: Literal["cropped", "as_released"] = Field(
        default="cropped",
        description="whether a square crop changes fx; `as_released` repeats DFoT's omission",
    )
    archive: str = Field(default="", description="hub repository of the archive; downloads only")
    archive_files: tuple[str, ...] = Field(default=(), description="files of it, in order")
    choice_seed: int = Field(default=0, description="draws clips and first frames; downloads only")

    @model_validator(mode="after")
    def _has_an_archive(self) -> Self:
        if self.source not in EMBEDDED and not (self.archive and self.archive_files):
            raise ValueError(f"{self.source} is downloaded: name `archive` and `archive_files`")
        return self


class Split(Strict):
    """Clips of one split."""

    dataset: str
    role: Literal["train", "validation", "test"] = Field(
        description="scene ids are disjoint by role"
    )
    clips: Positive
    frames: Positive = Field(description="frames per clip")
    trajectories: dict[Trajectory, Positive] = Field(description="relative shares")
    moving_object: bool = Field(default=False, description="regime (c)")
    shards: Positive = 1

    @model_validator(mode="after")
    def _shards_fit(self) -> Self:
        if self.shards > self.clips:
            raise ValueError(f"shards ({self.shards}) exceed clips ({self.clips})")
        return self


class PlanSettings(Strict):
    """How training windows are drawn."""

    split: str
    windows: Positive
    frames: Positive = Field(description="frames per window, T")
    strides: tuple[Positive, ...] = Field(description="frame skips to draw from")
    flip: Share = Field(description="probability of a left-right mirror")
    reverse: Share = Field(description="probability of reversed time")
    memory: bool = Field(description="whether each window comes with a history")
    seed: int = 0


# --- teacher and memory -----------------------------------------------------------------------


class TeacherTraining(Strict):
    """How the small VGGT is trained on the embedded worlds."""

    steps: Positive
    batch: Positive = Field(description="windows per step")
    max_frames: Positive = Field(description="frames per window are drawn from 1 to this")
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(ge=0)
    cooldown_steps: int = Field(ge=0, description="last steps, in which the rate falls to zero")
    matching_weight: float = Field(
        default=0.0, ge=0, description="weight of the attention's loss on true correspondences"
    )
    seed: int = 0


class Teacher(Strict):
    """The frozen 3D reconstruction model."""

    name: str = Field(description="names the cache's folder")
    architecture: dict[str, Any] = Field(description="fields of VGGTConfig, or {} for VGGT-1B")
    weights: str = Field(description="safetensors file; `{scale}` is replaced")
    sha256: str = Field(default="", description="checked before use where given")
    download: str = Field(default="", description="hub repository that has model.safetensors")
    training: TeacherTraining | None = None
    train_split: str = "train"
    validation_split: str = "validation"


class Features(Strict):
    """What the cache keeps of the teacher."""

    basis_plan: str = Field(description="plan whose first windows the PCA is fitted on")
    layer: int = Field(ge=0, description="backbone layer whose tokens are kept")
    channels: Positive = Field(description="PCA components kept of each token")
    basis_windows: Positive = Field(description="windows the PCA is fitted on")
    shards: Positive = 1
    batch: Positive = Field(description="windows per forward pass")


class Memory(Strict):
    """The explicit memory."""

    voxel_size: float = Field(gt=0, description="metres")
    budget: Positive = Field(description="largest number of points")
    confidence_quantile: Share = Field(description="this share of least confident points is cut")
    scale_from: Literal["cameras", "colours"] = Field(
        description="what tells the teacher's scale: its own cameras against the given ones (least "
        "squares), or the colours of frames warped by the given cameras"
    )
    scale_prior_weight: float = Field(
        gt=0,
        description="strength of the scale prior: square metres of baseline (cameras), or the "
        "colour difference that a factor of 2 is worth (colours)",
    )
    dropout: Share = Field(description="share of training clips that see no memory")


# --- model and training -----------------------------------------------------------------------


class Model(Strict):
    """The U-ViT 3D (fields of UViT3DPose)."""

    channels: tuple[Positive, ...]
    emb_channels: Positive
    block_types: tuple[Literal["ResBlock", "TransformerBlock"], ...]
    block_dropouts: tuple[Share, ...]
    num_updown_blocks: tuple[Positive, ...]
    num_mid_blocks: Positive
    num_heads: Positive
    patch_size: Positive = 2
    camera_dropout: Share = 0.1

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        levels = len(self.channels)
        if (len(self.block_types), len(self.block_dropouts)) != (levels, levels):
            raise ValueError(f"block_types and block_dropouts need {levels} entries each")
        if len(self.num_updown_blocks) != levels - 1:
            raise ValueError(f"num_updown_blocks needs {levels - 1} entries")
        return self


class Optimization(Strict):
    """One training recipe."""

    steps: Positive
    batch: Positive = Field(description="windows per optimizer step, over all processes")
    accumulation: Positive = 1
    learning_rate: float = Field(gt=0)
    zero_init_rate: float = Field(
        default=1.0, gt=0, description="factor on the learning rate of zero-initialised projections"
    )
    warmup_steps: int = Field(ge=0)
    decay: Literal["constant", "cosine"] = "constant"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(ge=0)
    clip_norm: float = Field(gt=0)
    ema_decay: Share
    precision: Literal["no", "bf16"] = "no"
    checkpoint_steps: Positive = Field(description="optimizer steps between resumable states")
    workers: int = Field(default=0, ge=0, description="loader processes")

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch % self.accumulation:
            raise ValueError(f"accumulation {self.accumulation} does not divide batch {self.batch}")
        return self


class Alignment(Strict):
    """3D-REPA."""

    objective: Literal["angular+scale", "angular", "mse", "repa", "trd", "as_released"] = (
        "angular+scale"
    )
    level: int = Field(description="index into the backbone's states; the down levels come first")
    weight: float = Field(default=0.5, ge=0)
    scale_weight: float = Field(default=0.05, ge=0)


class VariantMemory(Strict):
    """What a variant remembers."""

    frames: Positive = Field(description="memory frames K")
    geometry: Literal["teacher", "truth"] = "teacher"
    selection: Literal["time"] = "time"


class Variant(Strict):
    """One trained model."""

    initial: str | None = Field(default=None, description="variant it starts from; none = scratch")
    plan: str
    recipe: str
    noise: Literal["per_frame", "per_clip"] = "per_frame"
    alignment: Alignment | None = None
    memory: VariantMemory | None = None

    @model_validator(mode="after")
    def _memory_needs_a_base(self) -> Self:
        if self.memory and not self.initial:
            raise ValueError("a variant with memory needs `initial`, the base of its branch")
        return self


# --- rollouts, scores, tables -----------------------------------------------------------------


class Guidance(Strict):
    """A history-guidance scheme and its arguments."""

    scheme: Literal["conditional", "vanilla", "stabilized_vanilla", "fractional", "temporal"]
    guidance_scale: float = 1.0
    stabilization_level: float = 0.02
    freq_scale: float = 0.5


class Rollouts(Strict):
    """Long generation."""

    protocols: dict[str, str] = Field(description="protocol -> split it runs on")
    context: Positive = Field(description="given frames")
    window: Positive = Field(description="frames the model sees at once")
    keyframe_density: float = Field(gt=0, le=1)
    sampling_steps: Positive
    keyframes: Guidance
    interpolation: Guidance
    batch: Positive = Field(description="clips generated together")
    seed: int = 0


class Scores(Strict):
    """Metrics."""

    perceptual: Literal["auto", "lpips", "efficientnet_lite0"] = "auto"
    frechet: Literal["auto", "i3d", "efficientnet_lite0"] = "auto"
    i3d_weights: str = "data/weights/i3d_torchscript.pt"
    perceptual_stride: Positive = Field(
        default=1, description="every n-th generated frame gets a perceptual distance"
    )
    frechet_stride: Positive = Field(
        default=1, description="every n-th frame enters the video features"
    )
    revisit_gap: Positive = Field(
        default=8, description="frames between two visits of a place, at least"
    )
    set_bootstrap: Positive = Field(default=200, description="resamples per set-level distance")
    bootstrap: Positive = Field(description="resamples per interval of a table or figure")


class Column(Strict):
    """A column of a table."""

    metric: Metric
    protocol: str
    label: str = Field(
        default="", description="heading; empty: the name of the network that was really used"
    )
    unit: str = ""
    better: Literal["higher", "lower"]
    precision: int = Field(ge=0)

    @model_validator(mode="after")
    def _networks_name_themselves(self) -> Self:
        if bool(self.label) == (self.metric in ("perceptual", "frechet")):
            raise ValueError(
                f"label {self.label!r} of {self.metric}: perceptual and frechet are headed by the "
                "network that was really used, all other metrics need a label"
            )
        return self


class Row(Strict):
    """A row of a table."""

    variant: str
    label: str
    bound: bool = Field(default=False, description="an upper bound: shown, not ranked")
    repeat_context: bool = Field(
        default=False,
        description="not the variant but its clips' last context frame repeated: shown, not ranked",
    )
    rule_above: bool = Field(default=False, description="a thin line above")


class Table(Strict):
    """A table of the paper."""

    caption: str
    reference: str = Field(description="variant that the paired tests compare with")
    rows: tuple[Row, ...] = Field(min_length=1)
    columns: tuple[Column, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _rows_differ(self) -> Self:
        labels = [row.label for row in self.rows]
        if len(set(labels)) < len(labels):
            raise ValueError(f"row labels repeat in {labels}")
        return self


class FigureRow(Strict):
    """A variant in a figure."""

    variant: str
    label: str


class StripFigure(Strict):
    """Frames of one clip: the truth above, then a row for each variant (first seed)."""

    kind: Literal["strip"]
    protocol: str
    clip: int = Field(ge=0, description="index in the protocol's split")
    frames: Positive = Field(description="number of frames shown, spread over the clip")
    rows: tuple[FigureRow, ...] = Field(min_length=1)


class CurvesFigure(Strict):
    """PSNR and memory coverage of every frame: a column of panels for each protocol."""

    kind: Literal["curves"]
    protocols: tuple[str, ...] = Field(min_length=1)
    rows: tuple[FigureRow, ...] = Field(min_length=1)


Figure = Annotated[StripFigure | CurvesFigure, Field(discriminator="kind")]


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
    figures: dict[str, Figure] = {}

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


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        choices = sorted(p.stem for p in path.parent.glob("*.yaml"))
        raise InputError(f"{path} is missing; {path.parent} has {choices}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def load_config(root: Path | str = ".", *, scale: str | None = None) -> Config:
    """Return the checked configuration below `root`/config.

    Args:
        root: Root of the project.
        scale: Overrides the scale that `config.yaml` names.

    Raises:
        InputError: With the key, the value and what was expected, one line a fault.
    """
    folder = Path(root) / "config"
    main = _read_yaml(folder / "config.yaml")
    name = scale or main.get("scale", "tiny")
    experiments = _read_yaml(folder / "experiments.yaml")
    content = {
        **main,
        "scale": name,
        "settings": _read_yaml(folder / "scales" / f"{name}.yaml"),
        "datasets": {p.stem: _read_yaml(p) for p in sorted((folder / "datasets").glob("*.yaml"))},
        **experiments,
    }
    try:
        return _leave_out(Config.model_validate(content))
    except ValidationError as error:
        raise InputError("\n".join(_explain(fault, name) for fault in error.errors())) from None


def _leave_out(config: Config) -> Config:
    """Return the configuration without the variants that its scale leaves out."""
    gone = config.settings.leave_out

    def kept(shown: Any) -> Any:
        rows = tuple(row for row in shown.rows if row.variant not in gone)
        return shown.model_copy(update={"rows": rows})

    return config.model_copy(
        update={
            "variants": {name: v for name, v in config.variants.items() if name not in gone},
            "tables": {name: kept(table) for name, table in config.tables.items()},
            "figures": {name: kept(figure) for name, figure in config.figures.items()},
        }
    )


def _explain(fault: Any, scale: str) -> str:
    file = {
        "settings": f"config/scales/{scale}.yaml",
        "datasets": "config/datasets",
        "variants": "config/experiments.yaml",
        "tables": "config/experiments.yaml",
        "figures": "config/experiments.yaml",
    }
    place = [str(part) for part in fault["loc"]]
    where = file.get(place[0] if place else "", "config/config.yaml")
    key = ".".join(place[1:] if place and place[0] == "settings" else place) or "(whole file)"
    value = fault["input"]
    shown = "" if isinstance(value, dict | list) else f" = {value!r}"
    return f"{where}: {key}{shown}: {fault['msg'].removeprefix('Value error, ')}"
