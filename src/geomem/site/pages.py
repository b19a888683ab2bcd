"""What the pages of tables, figures and videos show, ready for their templates."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from geomem.config import Config
from geomem.formats import read_record, read_tensors
from geomem.layout import Layout
from geomem.metrics.registry import metric_of
from geomem.settings.evaluation import Statement
from geomem.site.media import (
    columns_of,
    draw_curves,
    packed_cloud,
    scene_cloud,
    style_of,
    write_sprite,
)
from geomem.site.origins import Source, command_for, origins_of
from geomem.site.scenes import Scene, labels_of
from geomem.site.tables import ShownTable, read_table
from geomem.study.camera_path import describe_path, draw_path, path_marks

RECORDS = "records"  # folder of the site: CSV and provenance as they are


@dataclass(frozen=True, kw_only=True)
class Said:
    """A statement about a table.

    Attributes:
        name: Of the statement.
        rows: Labels of the row and of the one it is compared with.
        claim: What is claimed, or empty.
        expect: What it has to be in every column for that.
        holds: Whether it is; None where it is no claim, or not made.
        text: What the comparison says, as in the paper; empty where it is not made.
        found: By column: key, verdict, gain with its bounds.
    """

    name: str
    rows: tuple[str, str]
    claim: str
    expect: str
    holds: bool | None
    text: Markup
    found: tuple[tuple[str, str, str], ...]


@dataclass(frozen=True, kw_only=True)
class TablePage:
    """A table with all that is known of it."""

    table: ShownTable
    sources: tuple[Source, ...]
    cells: str
    command: str
    said: tuple[Said, ...]

    @property
    def shows(self) -> str:
        """The first sentence of its caption, as text."""
        return str(self.table.caption.striptags()).split(". ")[0].rstrip(".") + "."

    @property
    def name(self) -> str:
        """Of the page's file, without its ending."""
        return f"table-{self.table.name}"


def tables_here(config: Config, root: Path) -> list[str]:
    """Return the tables that are made, in the order of the configuration, the others behind."""
    folder = root / Layout(config.scale).results / "tables"
    here = {path.stem for path in folder.glob("*.csv") if path.with_suffix(".tex").is_file()}
    return [*(name for name in config.tables if name in here), *sorted(here - {*config.tables})]


def table_page(config: Config, root: Path, name: str, *, tracked: bool) -> TablePage:
    """Return the page of a table.

    Args:
        config: Of the scale.
        root: Of the project.
        name: Of the table.
        tracked: Whether the scale is the configured one.

    Raises:
        InputError: If its files are damaged or its provenance is missing.
    """
    layout = Layout(config.scale)
    table = read_table(root / layout.results / "tables", name)
    record = read_record(root / layout.provenance(name), "provenance")
    origins = origins_of(table, record, layout, tracked=tracked)
    cells = {
        f"{i}-{j}": {
            "title": [str(part.striptags()) for part in (table.rows[i].shown, *table.head_of(j))],
            "facts": origin.facts,
            "sources": origin.sources,
        }
        for (i, j), origin in origins.cells.items()
    }
    made = f"results/{name}.tex" if tracked else layout.table(name, "tex")
    statements = config.tables[name].statements if name in config.tables else {}
    labels = {row.variant: row.label for row in config.tables[name].rows} if statements else {}
    return TablePage(
        table=table,
        sources=origins.sources,
        cells=in_script(cells),
        command=command_for(layout, made, tracked=tracked),
        said=tuple(
            _said(key, statement, record, table, labels) for key, statement in statements.items()
        ),
    )


def in_script(value: Any) -> Markup:
    """Return a value as JSON that may stand in a script element: it cannot close it."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _said(
    name: str, statement: Statement, record: Any, table: ShownTable, labels: dict[str, str]
) -> Said:
    found = record.get("statements", {}).get(name, [])
    verdicts = [one["verdict"] for one in found]
    return Said(
        name=name,
        rows=(labels[statement.row], labels[statement.against]),
        claim=statement.claim,
        expect=statement.expect,
        holds=statement.holds(verdicts) if statement.claim else None,
        text=table.statements.get(name, Markup()),
        found=tuple((one["column"], one["verdict"], _gain(one["gain"])) for one in found),
    )


def _gain(gain: dict[str, float]) -> str:
    return f"{gain['value']:+.3g} [{gain['low']:.3g}, {gain['high']:.3g}]"


def figures_here(config: Config, root: Path, *, tracked: bool) -> list[dict[str, str]]:
    """Return name, what it shows and command of every figure that is made."""
    layout = Layout(config.scale)
    here = {path.stem for path in (root / layout.results / "figures").glob("*.png")}
    names = [*(name for name in config.figures if name in here), *sorted(here - {*config.figures})]
    return [
        {
            "name": name,
            "shows": _shows(config, name),
            "command": command_for(layout, layout.figure(name, "pdf"), tracked=tracked),
        }
        for name in names
    ]


def _shows(config: Config, name: str) -> str:
    if name not in config.figures:
        return ""
    figure = config.figures[name]
    told = (type(figure).__doc__ or "").split(". ")[0].split(".\n")[0]
    parts = [" ".join(told.split()).rstrip(".") + "."]
    if figure.shown_protocols:
        parts.append(f"Of {', '.join(figure.shown_protocols).replace('_', ' ')}.")
    if figure.rows:
        parts.append(f"Shown: {', '.join(row.label for row in figure.rows)}.")
    return " ".join(parts)


def scene_page(scene: Scene, folder: Path) -> dict[str, Any]:
    """Write a scene's pictures below `folder`/media and return what its page shows."""
    length, height, width = scene.videos[0].frames.shape[:3]
    media = folder / "media"
    media.mkdir(exist_ok=True)
    videos = []
    for index, video in enumerate(scene.videos):
        name = f"{scene.protocol}-{index}.webp"
        write_sprite(media / name, video.frames)
        colour, dashes = style_of(index - 1)
        videos.append(
            {
                "index": index,
                "label": video.label,
                "variant": video.variant,
                "sprite": f"media/{name}",
                "first": video.first,
                "colour": colour if video.curves else "",
                "dashes": dashes,
            }
        )
    clouds = []
    if scene.depth is not None:
        clouds.append(scene_cloud(scene.videos[0].frames, scene.depth, scene.cameras))
    return {
        "scene": scene,
        "title": scene.protocol.replace("_", " "),
        "length": length,
        "height": height,
        "width": width,
        "columns": columns_of(length),
        "videos": videos,
        "path": Markup(draw_path(scene.cameras, context=scene.context)),
        "described": describe_path(scene.cameras),
        "places": in_script(path_marks(scene.cameras).round(1).tolist()),
        "curves": _curves(scene, length),
        "clouds": in_script(clouds) if clouds else None,
    }


def _curves(scene: Scene, length: int) -> list[tuple[str, Markup]]:
    frames = range(scene.context, length)
    metrics = dict.fromkeys(name for video in scene.videos for name in video.curves)
    drawn = []
    for name in sorted(metrics, key=lambda metric: (metric != "psnr", metric)):
        label = scene.axes[name]
        curves = {
            # the truth has no curve, so that styles begin with the first variant
            index - 1: video.curves[name]
            for index, video in enumerate(scene.videos)
            if any(value is not None for value in video.curves.get(name, []))
        }
        if curves:
            cap = metric_of(name).cap
            drawn.append((label, draw_curves(curves, label=label, frames=frames, cap=cap)))
    return drawn


def analysed_clouds(config: Config, root: Path) -> list[dict[str, Any]]:
    """Return the point clouds of the feature analysis, as far as it is made (first seed)."""
    layout, labels = Layout(config.scale), labels_of(config)
    rows: Sequence[Any] = config.analysis.rows if config.analysis else ()
    places = [("teacher", layout.clouds(None, 0))]
    places += [
        (labels[row.variant], layout.clouds(row.variant, config.settings.seeds[0])) for row in rows
    ]
    clouds = []
    for label, path in places:
        tensors = read_tensors(root / path)[0] if (root / path).is_file() else {}
        for name in sorted({key.split(".")[0] for key in tensors if key.endswith(".points")}):
            points, colours = (tensors[f"{name}.{part}"].numpy() for part in ("points", "colours"))
            clouds.append(packed_cloud(f"{label}: {name}", points, colours))
    return clouds
