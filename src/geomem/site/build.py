"""The results as one folder of pages that a browser shows from a disk, without a server."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from geomem.config import Config
from geomem.errors import InputError
from geomem.formats import atomic_directory, write_json
from geomem.layout import Layout
from geomem.site.origins import command_for
from geomem.site.pages import (
    RECORDS,
    TablePage,
    analysed_clouds,
    figures_here,
    in_script,
    scene_page,
    table_page,
    tables_here,
)
from geomem.site.scenes import protocols_with_videos, read_scene

HERE = Path(__file__).parent
STATIC = ("style.css", "site.js", "player.js", "cloud.js", "three.min.js", "three.LICENSE")
RECORD = "site.json"  # says of a folder that it is a site, and of what


@dataclass(frozen=True, kw_only=True)
class Made:
    """When results were made, as git knows it; not when the site was.

    Attributes:
        commit: The last one that changed the scale's results; empty where git has none.
        date: Of that commit.
        changed: Whether results here are not those of that commit.
    """

    commit: str = ""
    date: str = ""
    changed: bool = False


class Site:
    """The pages of one scale, in a folder that is being made."""

    def __init__(
        self, config: Config, root: Path, folder: Path, *, made: Made, tracked: bool
    ) -> None:
        self.config, self.root, self.folder, self.tracked = config, root, folder, tracked
        self.layout = Layout(config.scale)
        self.notes: list[str] = []
        self.templates = Environment(
            loader=FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.globals.update(scale=config.scale, made=made, records=RECORDS)

    def write(self) -> None:
        """Write all pages; what is not made is told on them and in `notes`."""
        (self.folder / "static").mkdir()
        for name in STATIC:
            shutil.copyfile(HERE / "static" / name, self.folder / "static" / name)
        names = tables_here(self.config, self.root)
        tables = [table_page(self.config, self.root, name, tracked=self.tracked) for name in names]
        for page in tables:
            self._copy(self.layout.table(page.table.name, "csv"), RECORDS)
            self._copy(self.layout.provenance(page.table.name), RECORDS)
            self._page(f"{page.name}.html", "table.html", page=page, table=page.table)
        figures = figures_here(self.config, self.root, tracked=self.tracked)
        for figure in figures:
            for suffix in ("png", "pdf"):
                self._copy(self.layout.figure(figure["name"], suffix), "figures")
        self._page("figures.html", "figures.html", figures=figures)
        scenes, missing = self._scenes()
        clouds = analysed_clouds(self.config, self.root)
        if clouds:
            self._page("clouds.html", "clouds.html", clouds=in_script(clouds))
        paper = self._copy(self.layout.paper, ".")
        self._page(
            "index.html",
            "index.html",
            tables=tables,
            figures=figures,
            scenes=scenes,
            missing=missing,
            clouds=bool(clouds),
            paper=paper,
            claims=_claims(tables),
            commands=self._commands(),
        )

    def _page(self, file: str, template: str, **shown: Any) -> None:
        text = self.templates.get_template(template).render(**shown)
        (self.folder / file).write_text(text, encoding="utf-8")

    def _copy(self, path: Path, folder: str) -> bool:
        """Copy a file of the results, if it is there; return whether."""
        if not (self.root / path).is_file():
            return False
        (self.folder / folder).mkdir(exist_ok=True)
        shutil.copyfile(self.root / path, self.folder / folder / path.name)
        return True

    def _scenes(self) -> tuple[list[dict[str, str]], list[str]]:
        """Write the pages of videos; return name and file of each, and why others are missing."""
        scenes, missing = [], []
        for protocol, variants in protocols_with_videos(self.config, self.root).items():
            try:
                scene = read_scene(self.config, self.root, protocol, variants)
            except InputError as error:
                missing.append(f"{protocol}: {error}")
                continue
            file = f"videos-{protocol}.html"
            self._page(file, "videos.html", **scene_page(scene, self.folder))
            scenes.append({"name": protocol.replace("_", " "), "file": file})
        self.notes += missing
        return scenes, missing

    def _commands(self) -> list[str]:
        """Return what brings videos and clips."""
        files = [self.layout.video(name) for name in self.config.videos] or [Path("all")]
        return [command_for(self.layout, path, tracked=self.tracked) for path in files]


def _claims(tables: list[TablePage]) -> dict[str, int]:
    told = [said.holds for page in tables for said in page.said if said.claim]
    return {"all": len(told), "hold": told.count(True), "fail": told.count(False)}


def build_site(config: Config, root: Path, output: Path, *, made: Made, tracked: bool) -> list[str]:
    """Write the site of a scale, whole or not at all; equal results give equal bytes.

    Args:
        config: Of the scale.
        root: Of the project.
        output: Folder to write; another site there is replaced.
        made: When the results were made.
        tracked: Whether the scale is the configured one.

    Returns:
        What could not be shown, a line each.

    Raises:
        InputError: If `output` is something else than a site, or results are damaged.
    """
    if output.exists() and not (output / RECORD).is_file():
        raise InputError(f"--output {output} exists and is no site (it has no {RECORD})")
    with atomic_directory(output) as folder:
        site = Site(config, root, folder, made=made, tracked=tracked)
        site.write()
        write_json(folder / RECORD, {"scale": config.scale, "commit": made.commit})
    return site.notes
