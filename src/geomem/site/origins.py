"""Where a cell comes from, as records tell it: score files, videos, checkpoint, plan, weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geomem.layout import Layout
from geomem.site.tables import ShownTable

Fact = tuple[str, str]
TESTED = {"difference": "difference to the reference", "p_holm": "its p after Holm's correction"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file that a table was made from.

    Attributes:
        path: Of the file.
        facts: What is known of it, a name and a value each.
        command: Makes it again; empty where the table's command does.
    """

    path: str
    facts: tuple[Fact, ...]
    command: str = ""


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is known of a cell, and which of the table's sources it was made from (indices)."""

    facts: tuple[Fact, ...]
    sources: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Origins:
    """The origin of every cell of a table, by row and column index."""

    sources: tuple[Source, ...]
    cells: dict[tuple[int, int], Origin]


def command_for(layout: Layout, path: Path | str, *, tracked: bool) -> str:
    """Return what makes a file again.

    Args:
        layout: Of the scale.
        path: Of the file.
        tracked: Whether the scale is the configured one.
    """
    chosen = "" if tracked else f"--config scale={layout.scale} -- "
    return f"snakemake {chosen}{Path(path).as_posix()}"


def origins_of(
    table: ShownTable, record: Mapping[str, Any], layout: Layout, *, tracked: bool
) -> Origins:
    """Return where the cells of a table come from.

    Args:
        table: As shown.
        record: Its provenance.
        layout: Of the scale.
        tracked: Whether the scale is the configured one.
    """
    scores, runs = record.get("scores", {}), record.get("runs", {})
    if not scores:
        return _of_the_whole(table, record)
    paths = sorted(scores)
    sources = tuple(_source(path, scores[path], runs, layout, tracked=tracked) for path in paths)
    found = {}
    for i, row in enumerate(table.rows):
        known = record["cells"].get(row.label, {})
        for j, cell in enumerate(row.cells):
            if cell.key in known:
                used = tuple(paths.index(path) for path in known[cell.key]["scores"])
                found[i, j] = Origin(facts=_numbers(known[cell.key]), sources=used)
    return Origins(sources=sources, cells=found)


def _numbers(cell: Mapping[str, Any]) -> tuple[Fact, ...]:
    facts = [("value", str(cell["value"]))]
    if cell.get("low") is not None and cell.get("high") is not None:
        facts.append(("95 % interval", f"{cell['low']} to {cell['high']}"))
    if "interquartile_mean" in cell:
        facts.append(("interquartile mean", str(cell["interquartile_mean"])))
    for name, value in cell.get("test", {}).items():
        facts.append((TESTED.get(name, name), str(value)))
    return tuple(facts)


def _source(
    path: str,
    score: Mapping[str, Any],
    runs: Mapping[str, Any],
    layout: Layout,
    *,
    tracked: bool,
) -> Source:
    variant, seed, protocol = Path(path).relative_to(layout.results / "scores").parts[:3]
    videos = layout.rollouts / variant / seed / protocol
    facts = [
        ("SHA-256", score["sha256"]),
        ("seed", seed.removeprefix("seed")),
        ("settings, version of scores", f"{score['settings']}, {score['version']}"),
        ("videos", videos.as_posix()),
        ("their record's SHA-256", score["rollout"]["sha256"]),
        ("clips", score["clips"]),
    ]
    run = runs[score["run"]] if "run" in score else None
    if run is None:
        facts.append(("checkpoint", "none: it has no trained model"))
    else:
        facts += [
            ("run (MLflow: geomem.run)", score["run"]),
            ("checkpoint", run["checkpoint"]["path"]),
            ("its SHA-256", run["checkpoint"]["sha256"]),
            ("settings, version of training", f"{run['settings']}, {run['version']}"),
            *((f"made of: {name}", value) for name, value in sorted(run["inputs"].items())),
            *((f"weights: {name}", value) for name, value in sorted(run["weights"].items())),
        ]
    return Source(path=path, facts=tuple(facts), command=command_for(layout, path, tracked=tracked))


def _of_the_whole(table: ShownTable, record: Mapping[str, Any]) -> Origins:
    """Return origins of a table whose cells come from one measurement."""
    made_by = record["provenance"]
    facts = [("stage, version", f"{made_by['stage']}, {made_by['version']}")]
    facts += [(f"read: {name}", value) for name, value in sorted(made_by["inputs"].items())]
    whole = Source(path="what the table was made from", facts=tuple(facts))
    cells = {
        (i, j): Origin(facts=(("value", str(cell.number)),), sources=(0,))
        for i, row in enumerate(table.rows)
        for j, cell in enumerate(row.cells)
        if cell.number is not None
    }
    return Origins(sources=(whole,), cells=cells)
