"""Whether a configuration fits together: names resolve, lengths and kinds agree.

Every check raises ValueError with the key, the value and what was expected.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator

from pydantic import ValidationError

from geomem.config.study import Config
from geomem.diffusion.rollout_plans import plan_rollout
from geomem.memory.registry import KINDS
from geomem.methods.registry import METHODS
from geomem.settings.analysis import AnalysisFigure
from geomem.settings.evaluation import (
    Figure,
    ReliabilityFigure,
    ScoresFigure,
    StripFigure,
    TrainingFigure,
    Video,
)
from geomem.settings.fidelity import CacheFidelity
from geomem.settings.training import BestOf, Variant, VariantMemory

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
STAGES = ("clips", "teacher", "features", "training", "rollouts", "scores", "picks", "paper")
# Objectives whose projections have a direction in the space of the features.
COMPARABLE = ("angular+scale", "angular", "mse")
# Whose provenance lies beside that of tables, figures and videos.
BUILT_IN = (
    *("teacher_table", "feature_analysis", "feature_decoding", "costs_table", "content_bias"),
    *("consistency", "cache_fidelity", "preference_table", "facts", "paper"),
)


def check(config: Config) -> None:
    """Check everything that one model alone cannot see."""
    _check_names(config)
    _check_words(config)
    _check_resources(config)
    _check_splits(config)
    _check_teacher(config)
    _check_registered(config)
    for name, variant in config.variants.items():
        _check_starts(config, name, variant)
    _check_no_circle(config)
    _check_left_out(config)
    for name, variant in config.variants.items():
        if variant.best_of:
            _check_best_of(config, name, variant.best_of)
        elif variant.trained and name not in config.settings.leave_out:
            _check_trained(config, name, variant)
    _check_tables(config)
    _check_costs(config)
    _check_content_bias(config)
    _check_calibration(config)
    if config.sanity:
        known = config.settings.rollouts.protocols
        _known("sanity", "protocol", "name", config.sanity.protocol, known)
    for name, figure in config.figures.items():
        _check_figure(config, name, figure)
    _check_analysis(config)
    for name, video in config.videos.items():
        _check_video(config, name, video)
    for name in config.main:
        shown = {*config.tables, *config.figures, *config.videos}
        _known("experiments", "main", "name", name, shown)
    for variant_name, protocols in config.runs().items():
        for protocol_name in protocols:
            _check_rollout(config, variant_name, protocol_name)


def _known(group: str, name: str, key: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"{group}.{name}.{key}: {value!r} is none of {sorted(choices)}")


def _check_names(config: Config) -> None:
    """Names become paths, wildcards and words of a shell."""
    scale, shown = config.settings, dict[str, str]()
    groups: dict[str, Collection[str]] = {
        "variants": config.variants,
        "tables": config.tables,
        "figures": config.figures,
        "videos": config.videos,
        "datasets": config.datasets,
        "splits": scale.splits,
        "plans": scale.plans,
        "recipes": scale.recipes,
        "rollouts.protocols": scale.rollouts.protocols,
    }
    for group, names in groups.items():
        for name in names:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"{group}.{name}: a name is a letter, then letters, digits and underscores"
                )
            if group in ("tables", "figures", "videos"):
                taken = "built in" if name in BUILT_IN else shown.get(name)
                if taken:
                    raise ValueError(f"{group}.{name}: {name} is taken ({taken})")
                shown[name] = f"in {group}"


def _check_words(config: Config) -> None:
    """What LaTeX prints is ASCII: its fonts here have no other signs."""
    for key, words in _words(config):
        odd = sorted({sign for sign in words if not sign.isascii()})
        if odd:
            raise ValueError(f"{key}: {odd[0]!r} is not ASCII")


def _words(config: Config) -> Iterator[tuple[str, str]]:
    yield "stands_in", config.settings.stands_in
    for name, table in config.tables.items():
        yield f"tables.{name}.caption", table.caption
        yield from ((f"tables.{name}.rows.label", row.label) for row in table.rows)
    for name, figure in config.figures.items():
        yield from ((f"figures.{name}.rows.label", row.label) for row in figure.rows)
    for name, video in config.videos.items():
        yield from ((f"videos.{name}.rows.label", row.label) for row in video.rows)


def _check_resources(config: Config) -> None:
    missing = [stage for stage in STAGES if stage not in config.settings.resources]
    if missing:
        raise ValueError(f"resources: {missing} are missing; every stage asks for something")


def _check_splits(config: Config) -> None:
    scale = config.settings
    for name, split in scale.splits.items():
        _known("splits", name, "dataset", split.dataset, config.datasets)
        try:
            config.source_of(name).Options.model_validate(split.options)
        except ValidationError as error:
            fault = error.errors()[0]
            place = ".".join(map(str, ("options", *fault["loc"])))
            raise ValueError(
                f"splits.{name}.{place} = {fault['input']!r}: {fault['msg']}"
            ) from None
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


def _check_teacher(config: Config) -> None:
    scale = config.settings
    teacher = scale.teacher
    _known("settings", "teacher", "train_split", teacher.train_split, scale.splits)
    _known("settings", "teacher", "validation_split", teacher.validation_split, scale.splits)
    features = scale.features
    _known("settings", "features", "basis_plan", features.basis_plan, scale.plans)
    _check_kept(config, "features.layer", (features.layer,), features.channels, features.grid)
    _check_kept(config, "features.more_layers", features.more_layers, 1, None)
    trained = [n for n, v in config.variants.items() if v.trained and n not in scale.leave_out]
    for name in trained:
        _, plan = config.recipe_of(name)
        windows = scale.plans[plan].windows if plan in scale.plans else features.shards
        if config.caches_of(name) and features.shards > windows:
            raise ValueError(
                f"features.shards: {features.shards} exceed the {windows} windows of plan {plan}"
            )


def _check_kept(
    config: Config, key: str, layers: tuple[int, ...], channels: int, grid: int | None
) -> None:
    """What is kept of the teacher has to be there."""
    teacher, group = config.settings.teacher, key.rpartition(".")[0]
    for layer in layers:
        if layer >= teacher.depth:
            raise ValueError(f"{key}: {layer}, the teacher has layers 0 to {teacher.depth - 1}")
    if channels > teacher.width:
        raise ValueError(f"{group}.channels: {channels}, the teacher's tokens have {teacher.width}")
    if grid is not None and grid > teacher.grid:
        raise ValueError(f"{group}.grid: {grid} is finer than the teacher's {teacher.grid}")


def check_cache_fidelity(config: Config, chosen: CacheFidelity) -> None:
    """What is made by name alone is looked at when it is asked for; it stops nothing else.

    Raises:
        ValueError: If a scale's `cache_fidelity` names what is not there.
    """
    name = "cache_fidelity"
    reach = 1 + (chosen.frames - 1) * chosen.stride
    for key, split, windows in (
        ("fit_split", chosen.fit_split, chosen.fit_windows),
        ("test_split", chosen.test_split, chosen.test_windows),
    ):
        _known(name, key, "name", split, config.settings.splits)
        known = config.settings.splits[split]
        if known.clips < windows or known.frames < reach:
            raise ValueError(
                f"{name}.{key}: {split} has {known.clips} clips of {known.frames} frames, needed "
                f"are {windows} of {reach}"
            )
    if chosen.fit_split == chosen.test_split:
        raise ValueError(f"{name}.test_split: {chosen.test_split} is what bases are fitted on")
    _known(name, "variant", "name", chosen.variant, config.variants)
    alignment = config.variants[chosen.variant].alignment
    aligned = alignment is not None and alignment.objective in COMPARABLE
    if not (aligned and config.compressed(chosen.variant)):
        raise ValueError(
            f"{name}.variant: {chosen.variant} is not aligned with the 3D teacher by one of "
            f"{list(COMPARABLE)}"
        )
    for number, row in enumerate(chosen.rows):
        _check_kept(config, f"{name}.rows.{number}.layers", row.layers, row.channels, row.grid)


def _check_registered(config: Config) -> None:
    """Everything that a variant names has its settings, given or by default."""
    gone = config.settings.leave_out
    variants = [variant for name, variant in config.variants.items() if name not in gone]
    needed = {"methods": {variant.method for variant in variants}}
    needed["memory.kinds"] = {variant.memory.kind for variant in variants if variant.memory}
    settings_of = {"methods": config.method_settings, "memory.kinds": config.kind_settings}
    for group, names in needed.items():
        for name in sorted(names):
            try:
                settings = settings_of[group](name)
                if group == "methods":
                    METHODS[name].check(settings, config.settings.resolution)
            except ValidationError as error:
                keys = ", ".join(str(fault["loc"][0]) for fault in error.errors())
                raise ValueError(f"{group}.{name}: variants use it: name {keys}") from None
            except ValueError as error:
                raise ValueError(f"{group}.{name}: {error}") from None


def _check_starts(config: Config, name: str, variant: Variant) -> None:
    for key, start in (("initial", variant.initial), ("checkpoint_of", variant.checkpoint_of)):
        if start is not None:
            _known("variants", name, key, start, config.variants)
    if variant.initial and (
        config.variants[variant.initial].memory or config.variants[variant.initial].floor
    ):
        raise ValueError(
            f"variants.{name}.initial: {variant.initial} has a memory branch, or no network"
        )
    if variant.checkpoint_of:
        owner = config.variants[variant.checkpoint_of]
        if not (owner.trained and owner.memory):
            raise ValueError(
                f"variants.{name}.checkpoint_of: {variant.checkpoint_of} is not trained with memory"
            )
        assert variant.memory is not None
        _check_guidance(config, name, variant.memory, trained=owner.memory)
        if variant.memory.kind != owner.memory.kind:
            raise ValueError(
                f"variants.{name}.memory.kind: {variant.checkpoint_of} was trained with "
                f"{owner.memory.kind}"
            )
    if variant.best_of:
        for candidate in (*variant.best_of.among, *config.candidates_of(name)):
            _known("variants", name, "among", candidate, config.variants)
            chosen = config.variants[candidate]
            if not (chosen.trained or chosen.checkpoint) or chosen.memory:
                raise ValueError(f"variants.{name}.among: {candidate} is not a trained backbone")


def _check_no_circle(config: Config) -> None:
    made: set[str] = set()
    left = set(config.variants)
    while ready := {name for name in left if made.issuperset(config.starts_of(name))}:
        made |= ready
        left -= ready
    if left:
        raise ValueError(f"variants: {sorted(left)} start from each other in a circle")


def _check_best_of(config: Config, name: str, rule: BestOf) -> None:
    _known("variants", name, "protocol", rule.protocol, config.settings.rollouts.protocols)
    among = config.candidates_of(name)
    windows = {candidate: config.window_of(candidate) for candidate in among}
    if len(set(windows.values())) > 1:
        raise ValueError(f"variants.{name}.among: windows of different lengths {windows}")
    methods = {candidate: config.method_of(candidate) for candidate in among}
    if len(set(methods.values())) > 1:
        raise ValueError(f"variants.{name}.among: different methods {methods}")


def _check_trained(config: Config, name: str, variant: Variant) -> None:
    scale = config.settings
    recipe_name, plan_name = config.recipe_of(name)
    _known("variants", name, "plan", plan_name, scale.plans)
    _known("variants", name, "recipe", recipe_name, scale.recipes)
    plan, recipe = scale.plans[plan_name], scale.recipes[recipe_name]
    if recipe.steps * recipe.batch > recipe.passes * plan.windows:
        raise ValueError(
            f"variants.{name}: {recipe.steps} steps of {recipe.batch} windows exceed "
            f"{recipe.passes} x the {plan.windows} windows of plan {plan_name} "
            f"(recipes.{recipe_name}.passes)"
        )
    spec = METHODS[variant.method]
    if spec.needs_initial and not variant.initial:
        raise ValueError(
            f"variants.{name}: method {variant.method} needs `initial`, a variant of "
            f"{' or '.join(sorted(spec.starts_from))}"
        )
    starts = spec.starts_from | (set() if spec.needs_initial else {variant.method})
    if variant.initial and config.method_of(variant.initial) not in starts:
        raise ValueError(
            f"variants.{name}.initial: {variant.initial} is of method "
            f"{config.method_of(variant.initial)}, not {' or '.join(sorted(starts))}"
        )
    missing = METHODS[variant.method].conditions - config.conditions_of(plan.split)
    if missing:
        raise ValueError(
            f"variants.{name}: method {variant.method} is told {sorted(missing)}, which clips of "
            f"{plan.split} do not have"
        )
    if "actions" in METHODS[variant.method].conditions and (plan.reverse or {*plan.strides} != {1}):
        raise ValueError(
            f"variants.{name}: method {variant.method} is told what led from frame to frame; plan "
            f"{plan_name} needs `strides: [1]` and `reverse: 0`"
        )
    if variant.memory and not plan.memory:
        raise ValueError(f"variants.{name}: plan {plan_name} has no memory")
    if variant.memory:
        _check_guidance(config, name, variant.memory, trained=variant.memory)
        _check_depth(config, name, plan.split)
        if KINDS[variant.memory.kind].shows_frames and variant.memory.backbone == "frozen":
            raise ValueError(
                f"variants.{name}.memory.backbone: a memory of kind {variant.memory.kind} has no "
                "branch; train the backbone"
            )
    if variant.alignment:
        states = METHODS[variant.method].hidden_states(
            config.method_settings(variant.method), scale.resolution
        )
        if variant.alignment.level >= len(states):
            raise ValueError(
                f"variants.{name}.alignment.level: {variant.alignment.level}, method "
                f"{variant.method} shows {len(states)} hidden states"
            )
        if (variant.alignment.frames or 0) > plan.frames:
            raise ValueError(
                f"variants.{name}.alignment.frames: {variant.alignment.frames} exceed the "
                f"{plan.frames} frames of plan {plan_name}"
            )


def _check_guidance(
    config: Config, name: str, memory: VariantMemory, *, trained: VariantMemory
) -> None:
    guidance = config.memory_guidance_of(memory)
    if guidance != 1 and not config.memory_dropout_of(trained):
        raise ValueError(
            f"variants.{name}: guidance {guidance} on the memory needs memory.dropout above 0"
        )


def _check_depth(config: Config, name: str, split: str) -> None:
    memory, source = config.variants[name].memory, config.source_of(split)
    if memory is None or memory.geometry != "truth" or "depth" in config.conditions_of(split):
        return
    if name not in config.settings.leave_out:
        raise ValueError(
            f"variants.{name}: {source.name} has no true depth for `geometry: truth`; "
            "name the variant in `leave_out`"
        )


def _check_left_out(config: Config) -> None:
    gone = set(config.settings.leave_out)
    for name in sorted(gone):
        _known("settings", "leave_out", "variant", name, config.variants)
    started = {start for name in config.variants.keys() - gone for start in config.starts_of(name)}
    needed = gone & (started | {table.reference for table in config.tables.values()})
    if needed:
        raise ValueError(f"leave_out: other variants or tables need {sorted(needed)}")
    picked = [name for name, variant in config.variants.items() if variant.best_of]
    for name in config.settings.candidates:
        _known("settings", "candidates", "variant", name, picked)


def _check_tables(config: Config) -> None:
    protocols = config.settings.rollouts.protocols
    for name, table in config.tables.items():
        shown = [row.variant for row in table.rows]
        _known("tables", name, "reference", table.reference, shown)
        for row in table.rows:
            _known("tables", name, "rows.variant", row.variant, config.variants)
        if config.variants[table.reference].floor:
            raise ValueError(f"tables.{name}.reference: {table.reference} is a floor")
        for column in table.columns:
            _known("tables", name, "columns.protocol", column.protocol, protocols)
    names = Counter(name for table in config.tables.values() for name in table.statements)
    if twice := [name for name, tables in names.items() if tables > 1]:
        raise ValueError(f"tables: statements.{twice[0]} is in two tables; give each its own name")


def _check_figure(config: Config, name: str, figure: Figure) -> None:
    scale = config.settings
    for row in figure.rows:
        _known("figures", name, "rows.variant", row.variant, config.variants)
    for protocol in figure.shown_protocols:
        _known("figures", name, "protocol", protocol, scale.rollouts.protocols)
    if isinstance(figure, TrainingFigure):
        untrained = [r.variant for r in figure.rows if not config.variants[r.variant].trained]
        if untrained:
            raise ValueError(f"figures.{name}.rows: {untrained[0]} has no training of its own")
    if isinstance(figure, AnalysisFigure | ScoresFigure | ReliabilityFigure | TrainingFigure):
        return
    clips = scale.splits[scale.rollouts.protocols[figure.protocol].split].clips
    frames = config.frames_of(figure.protocol)
    shown = figure.frames if isinstance(figure, StripFigure) else 1
    last = figure.clip if isinstance(figure.clip, int) else 0
    if last >= clips or shown > frames:
        raise ValueError(
            f"figures.{name}: clip {last} with {shown} frames is not among the "
            f"{clips} clips of {frames} frames"
        )


def _check_video(config: Config, name: str, video: Video) -> None:
    scale = config.settings
    for row in video.rows:
        _known("videos", name, "rows.variant", row.variant, config.variants)
    protocols = scale.rollouts.protocols
    _known("videos", name, "protocol", video.protocol, protocols)
    available = scale.splits[protocols[video.protocol].split].clips
    if video.clips > available:
        raise ValueError(f"videos.{name}: {video.clips} clips, {video.protocol} has {available}")


def _check_analysis(config: Config) -> None:
    chosen, scale = config.settings.analysis, config.settings
    for key, name, trained in (
        ("fit_split", chosen.fit_split, True),
        ("test_split", chosen.test_split, False),
    ):
        _known("settings", "analysis", key, name, scale.splits)
        split = scale.splits[name]
        if "depth" not in config.conditions_of(name):
            raise ValueError(f"analysis.{key}: clips of {name} have no true depth")
        if (split.role == "train") != trained:
            raise ValueError(f"analysis.{key}: {name} has role {split.role}")
        if 1 + (chosen.frames - 1) * chosen.stride > split.frames:
            raise ValueError(f"analysis.{key}: windows exceed the clips of {name}")
    if chosen.fit_windows > scale.splits[chosen.fit_split].clips:
        raise ValueError("analysis.fit_windows: more than the clips of the split")
    if chosen.shown_clip >= scale.splits[chosen.test_split].clips:
        raise ValueError("analysis.shown_clip: not among the clips of the split")
    for name in config.analysed():
        _known("analysis", "rows", "variant", name, config.variants)
        variant = config.variants[name]
        if variant.memory or variant.floor or chosen.frames > config.window_of(name):
            raise ValueError(
                f"analysis.rows: {name} is no backbone that sees {chosen.frames} frames"
            )
        method = config.method_of(name)
        states = METHODS[method].hidden_states(config.method_settings(method), scale.resolution)
        if chosen.level >= len(states):
            raise ValueError(f"analysis.level: {name} has no hidden state {chosen.level}")
        if variant.alignment and variant.alignment.depth is not None:
            raise ValueError(
                f"analysis.rows: {name} is aligned with raw tokens, not compressed ones"
            )


def _check_costs(config: Config) -> None:
    if config.costs:
        _known("costs", "rows_of", "table", config.costs.rows_of, config.tables)
        for protocol in config.costs.protocols:
            _known("costs", "protocols", "name", protocol, config.settings.rollouts.protocols)


def _check_content_bias(config: Config) -> None:
    chosen = config.content_bias
    if chosen is None:
        return
    _known("content_bias", "split", "name", chosen.split, config.settings.splits)
    split = config.settings.splits[chosen.split]
    if split.clips < 4 or chosen.frames > split.frames:
        raise ValueError(
            f"content_bias.split: {chosen.split} has {split.clips} clips of {split.frames} frames, "
            f"needed are 4 of {chosen.frames}"
        )
    if list(chosen.strengths) != sorted(set(chosen.strengths)):
        raise ValueError(f"content_bias.strengths: {list(chosen.strengths)} do not rise")


def _check_calibration(config: Config) -> None:
    chosen, job = config.settings.scores.calibration, "scores.calibration"
    if not any(map(config.calibrates, config.asked_families())):
        return
    splits = config.settings.splits
    for name, split in (("fit_split", chosen.fit_split), ("test_split", chosen.test_split)):
        _known(job, name, "name", split, splits)
        if "depth" not in config.conditions_of(split):
            raise ValueError(f"{job}.{name}: {split} has no true depth; take embedded rooms")
    if splits[chosen.fit_split].role == splits[chosen.test_split].role:
        raise ValueError(
            f"{job}: {chosen.fit_split} and {chosen.test_split} have the same role, and scenes in "
            "common; take splits of different roles"
        )


def _check_rollout(config: Config, variant: str, protocol: str) -> None:
    rollouts = config.settings.rollouts
    _check_depth(config, variant, rollouts.protocols[protocol].split)
    if config.variants[variant].floor:
        return
    method, split = METHODS[config.method_of(variant)], rollouts.protocols[protocol].split
    missing = method.conditions - config.conditions_of(split)
    if missing:
        raise ValueError(
            f"rollouts.protocols.{protocol}: {variant} is told {sorted(missing)}, which clips of "
            f"{split} do not have"
        )
    memory = config.variants[variant].memory
    if memory and KINDS[memory.kind].form not in method.reads:
        raise ValueError(f"variants.{variant}: {method.name} cannot read memory {memory.kind}")
    try:
        plan_rollout(config.frames_of(protocol), **config.windows_of(variant, protocol))
    except ValueError as error:
        raise ValueError(f"rollouts.protocols.{protocol}: {variant}: {error}") from None
