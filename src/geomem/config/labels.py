"""What tables, figures and videos say of settings: placeholders in labels and headers, filled in.

A name of the matrix means the same at every scale, a number does not; so `label: "{window} frames"`
says what the scale has, and no text can disagree with what was run.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from geomem.config.study import Config
from geomem.diffusion.rollout_plans import plan_rollout

Values = Mapping[str, Callable[[], object]]
PLACE = re.compile(r"\{([^{}]*)\}")


def filled(config: Config) -> Config:
    """Return the configuration with all placeholders of rows and columns filled in.

    Raises:
        ValueError: If one is none of those that a row or a column has, or rows have equal labels.
    """

    def rows_of(group: str, name: str, shown: Any) -> Any:
        told = tuple(_told_row(config, f"{group}.{name}.rows", row) for row in shown.rows)
        return shown if told == shown.rows else shown.model_copy(update={"rows": told})

    tables = {}
    for name, table in config.tables.items():
        told = rows_of("tables", name, table)
        columns = tuple(
            column.model_copy(update={"title": _title(config, name, column, told.rows)})
            if column.title
            else column
            for column in told.columns
        )
        tables[name] = told.model_copy(update={"columns": columns})
        labels = [row.label for row in told.rows]
        if len(set(labels)) < len(labels):
            raise ValueError(f"tables.{name}.rows: labels repeat in {labels}")
    figures = {name: rows_of("figures", name, shown) for name, shown in config.figures.items()}
    videos = {name: rows_of("videos", name, shown) for name, shown in config.videos.items()}
    return config.model_copy(update={"tables": tables, "figures": figures, "videos": videos})


def _told_row(config: Config, key: str, row: Any) -> Any:
    if "{" not in row.label:
        return row
    values = _of_variant(config, row.variant)
    return row.model_copy(update={"label": _fill(f"{key}.label", row.label, values)})


def _title(config: Config, table: str, column: Any, rows: Any) -> str:
    models = [row.variant for row in rows if not config.variants[row.variant].floor]
    values = _of_protocol(config, column.protocol, models)
    return _fill(f"tables.{table}.columns.title", column.title, values)


def _fill(key: str, text: str, values: Values) -> str:
    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            raise ValueError(f"{key}: {{{name}}} is none of {sorted(values)}")
        return str(values[name]())

    return PLACE.sub(value, text)


def _of_variant(config: Config, variant: str) -> Values:
    """Return what a row's label may say of its variant."""
    scale, chosen = config.settings, config.variants[variant]
    values: dict[str, Callable[[], object]] = {}
    if not chosen.floor:
        values["window"] = lambda: config.window_of(variant)
    if chosen.trained:
        recipe = scale.recipes[config.recipe_of(variant)[0]]
        values |= {"steps": lambda: recipe.steps, "batch": lambda: recipe.batch}
    alignment = chosen.alignment
    if alignment:
        raw, kept = config.layer_of(alignment), scale.features
        layers = kept.layers if raw is None else (raw,)
        aligned = alignment.frames or config.window_of(variant)
        seen = aligned if alignment.teacher_sees == "aligned" else config.window_of(variant)
        target = f"compressed to {kept.channels} numbers" if raw is None else "raw tokens"
        values |= {
            "level": lambda: alignment.level,
            "layer": lambda: ", ".join(map(str, layers)),
            "target": lambda: target,
            "aligned": lambda: aligned,
            "seen": lambda: seen,
        }
    return values


def _of_protocol(config: Config, protocol: str, models: list[str]) -> Values:
    """Return what a column's header may say of its protocol, and of how models generate it."""

    def plans(quantity: Callable[[Any], object]) -> str:
        """Where rows differ, all of what they have, in their order."""
        frames = config.frames_of(protocol)
        found = [
            str(quantity(plan_rollout(frames, **config.windows_of(model, protocol))))
            for model in models
        ]
        return found[0] if len({*found}) == 1 else "/".join(found)

    return {
        "frames": lambda: config.frames_of(protocol),
        "given": lambda: config.context_of(protocol),
        "density": lambda: f"{config.density_of(protocol):g}",
        "keyframes": lambda: plans(
            lambda plan: len({f for w in plan.keyframe_windows for f in w.frames})
        ),
        "depth": lambda: plans(lambda plan: plan.depth),
    }
