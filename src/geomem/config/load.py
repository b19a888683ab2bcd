"""How files become one checked `Config`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from geomem.config.checks import check
from geomem.config.cluster import Cluster
from geomem.config.labels import filled
from geomem.config.study import Config, Scale
from geomem.errors import InputError
from geomem.registry.core import load_plugins
from geomem.settings.evaluation import (
    Figure,
    GainFigure,
    ScoresFigure,
    TableColumn,
    TableSettings,
    Video,
)

BASE = "base.yaml"  # what all scales share; a scale's own file beats it key by key
# libyaml's, where PyYAML has it, reads a configuration in a third of the time
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER) or {}
    except FileNotFoundError:
        choices = sorted(p.stem for p in path.parent.glob("*.yaml"))
        if not choices:
            raise InputError(f"{path} is missing; run in the root of the project") from None
        raise InputError(f"{path} is missing; {path.parent} has {choices}") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def merged(base: Any, own: Any) -> Any:
    """Return a mapping with what another says below each of its keys; else `own` alone.

    An empty mapping clears what the base has there.
    """
    if not (isinstance(base, dict) and isinstance(own, dict) and own):
        return own
    common = {key: merged(base[key], own[key]) for key in base.keys() & own.keys()}
    return {**base, **own, **common}


def configured_scale(root: Path | str = ".") -> str:
    """Return the scale that `root`/config/config.yaml names: that of the tracked results."""
    return str(_read_yaml(Path(root) / "config" / "config.yaml").get("scale", "tiny"))


def load_config(
    root: Path | str = ".", *, scale: str | None = None, main_job: bool = False
) -> Config:
    """Return the checked configuration below `root`/config.

    Args:
        root: Root of the project.
        scale: Overrides the scale that `config.yaml` names.
        main_job: Whether only the tables and figures of `main` are kept.

    Raises:
        InputError: With the key, the value and what was expected, one line a fault.
    """
    folder = Path(root) / "config"
    main = _read_yaml(folder / "config.yaml")
    name = scale or configured_scale(root)
    experiments = _read_yaml(folder / "experiments.yaml")
    shared, own = _read_yaml(folder / BASE), _read_yaml(folder / "scales" / f"{name}.yaml")
    load_plugins(tuple(main.get("plugins") or ()))
    content = {
        **main,
        "scale": name,
        "settings": merged(shared, own),
        "datasets": {p.stem: _read_yaml(p) for p in sorted((folder / "datasets").glob("*.yaml"))},
        **experiments,
    }
    place = partial(_file_of, scale=name, own=own, shared=shared)
    try:
        config = Config.model_validate(content)
    except ValidationError as error:
        raise InputError("\n".join(_explain(fault, place) for fault in error.errors())) from None
    try:
        config = _leave_out_protocols(config)
        check(config)
        config = _published_beside_the_like(filled(_leave_out(config)))
    except ValueError as error:
        key = str(error).split(":", 1)[0].split(" ", 1)[0]
        raise InputError(f"{place(key.split('.'))}: {error}") from None
    return _main_job(config) if main_job else config


def load_cluster(root: Path | str = ".") -> Cluster:
    """Return what `root`/config/cluster.local.yaml says of the user's cluster, if it is there.

    Raises:
        InputError: With the key, the value and what was expected, one line a fault.
    """
    path = Path(root) / "config" / "cluster.local.yaml"
    try:
        return Cluster.model_validate(_read_yaml(path) if path.exists() else {})
    except ValidationError as error:
        faults = (
            _explain(fault, lambda _: "config/cluster.local.yaml") for fault in error.errors()
        )
        raise InputError("\n".join(faults)) from None


def _main_job(config: Config) -> Config:
    """Return the configuration with the tables, figures and videos of the main job alone."""
    tables = {name: table for name, table in config.tables.items() if name in config.main}
    figures = {name: figure for name, figure in config.figures.items() if name in config.main}
    videos = {name: video for name, video in config.videos.items() if name in config.main}
    shown = {"tables": tables, "figures": figures, "videos": videos}
    shown |= dict.fromkeys(("analysis", "costs", "content_bias", "consistency", "preference_votes"))
    by_name = config.settings.model_copy(update={"cache_fidelity": None})
    return config.model_copy(update={**shown, "settings": by_name})


def _leave_out_protocols(config: Config) -> Config:
    """Return the configuration without the protocols that its scale leaves out, nor columns,
    figures and videos of them alone."""
    gone = {*config.settings.leave_out_protocols}
    protocols = config.settings.rollouts.protocols
    if unknown := sorted(gone - protocols.keys()):
        raise ValueError(f"leave_out_protocols: {unknown[0]!r} is none of {sorted(protocols)}")
    if not gone:
        return config

    def kept(table: TableSettings) -> TableSettings:
        columns = tuple(column for column in table.columns if column.protocol not in gone)
        lost = {column.protocol: None for column in table.columns if column.protocol in gone}
        return table.model_copy(update={"columns": columns, "left_out": tuple(lost)})

    def seen(figure: Figure) -> Figure:
        if not isinstance(figure, ScoresFigure):
            return figure
        left = tuple(name for name in figure.protocols if name not in gone)
        return figure.model_copy(update={"protocols": left})

    def stands(shown: Figure | Video) -> bool:
        return not shown.shown_protocols or not gone.issuperset(shown.shown_protocols)

    left = {name: protocol for name, protocol in protocols.items() if name not in gone}
    rollouts = config.settings.rollouts.model_copy(update={"protocols": left})
    tables = {name: kept(table) for name, table in config.tables.items()}
    return config.model_copy(
        update={
            "settings": config.settings.model_copy(update={"rollouts": rollouts}),
            "tables": {name: table for name, table in tables.items() if table.columns},
            "figures": {name: seen(fig) for name, fig in config.figures.items() if stands(fig)},
            "videos": {name: video for name, video in config.videos.items() if stands(video)},
        }
    )


def _leave_out(config: Config) -> Config:
    """Return the configuration without the variants that its scale leaves out."""
    gone = frozenset(config.settings.leave_out)

    def kept(shown: Any) -> Any:
        rows = tuple(row for row in shown.rows if row.variant not in gone)
        if rows == shown.rows:
            return shown
        left: dict[str, Any] = {"rows": rows}
        if isinstance(shown, TableSettings):
            left["statements"] = {
                name: said
                for name, said in shown.statements.items()
                if gone.isdisjoint((said.row, said.against))
            }
        return shown.model_copy(update=left)

    def stands(figure: Figure) -> bool:
        """Return whether enough of a figure is left: a gain is of two."""
        return not isinstance(figure, GainFigure) or kept(figure) is figure

    return config.model_copy(
        update={
            "variants": {name: v for name, v in config.variants.items() if name not in gone},
            "tables": {name: kept(table) for name, table in config.tables.items()},
            "figures": {name: kept(fig) for name, fig in config.figures.items() if stands(fig)},
            "analysis": config.analysis and kept(config.analysis),
            "videos": {name: kept(video) for name, video in config.videos.items()},
        }
    )


def _published_beside_the_like(config: Config) -> Config:
    """Return the configuration with numbers of the literature beside columns of the same data and
    length alone, and without tables that compare with nothing else."""

    def alike(column: TableColumn) -> bool:
        asked = column.published
        if asked is None:
            return True
        split = config.settings.rollouts.protocols[column.protocol].split
        same_data = config.source_of(split).name == asked.dataset.lower()
        return same_data and asked.frames == str(config.frames_of(column.protocol))

    tables = {}
    for name, table in config.tables.items():
        odd = [column for column in table.columns if not alike(column)]
        compared = any(column.published and alike(column) for column in table.columns)
        if odd and not compared:
            continue
        columns = tuple(
            column.model_copy(update={"published": None}) if column in odd else column
            for column in table.columns
        )
        tables[name] = table.model_copy(update={"columns": columns}) if odd else table
    return config.model_copy(update={"tables": tables})


def _file_of(key: list[str], *, scale: str, own: dict[str, Any], shared: dict[str, Any]) -> str:
    """Return the file in which a key of the configuration stands."""
    top = key[0] if key else ""
    if top == "datasets":
        return f"config/datasets/{key[1]}.yaml" if len(key) > 1 else "config/datasets"
    of_study = top == "analysis" and key[1:2] in ([], ["rows"])
    shown = ("tables", "figures", "videos", "main", "costs", "content_bias")
    if of_study or top in ("variants", "consistency", "sanity", *shown):
        return "config/experiments.yaml"
    if top != "settings" and top not in Scale.model_fields:
        return "config/config.yaml"
    rest = key[1:] if top == "settings" else key
    deeper = _depth(shared, rest) > _depth(own, rest)
    return f"config/{BASE}" if deeper else f"config/scales/{scale}.yaml"


def _depth(content: Any, key: list[str]) -> int:
    """Return how many parts of a key a mapping follows."""
    depth = 0
    for part in key:
        if not (isinstance(content, dict) and part in content):
            break
        content, depth = content[part], depth + 1
    return depth


def _explain(fault: Any, file_of: Callable[[list[str]], str]) -> str:
    place = [str(part) for part in fault["loc"]]
    key = ".".join(place[1:] if place and place[0] == "settings" else place) or "(whole file)"
    value = fault["input"]
    shown = "" if isinstance(value, dict | list) else f" = {value!r}"
    return f"{file_of(place)}: {key}{shown}: {fault['msg'].removeprefix('Value error, ')}"
