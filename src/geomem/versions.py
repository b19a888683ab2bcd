"""Which source files each stage is made of, and the lock that ties them to its version.

Edits in imported code are invisible to the workflow; a stage's VERSION is not. `versions.lock`
keeps for every stage its version and a hash of all its sources, so that an edit which changes
outputs cannot go unnoticed.
"""

import ast
import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

STAGES = ("clips", "teacher", "features", "training", "rollouts", "scores", "picks", "paper")
# What these hold reaches outputs through recorded settings, or not at all.
APART = ("geomem.config", "geomem.settings", "geomem.registry", "geomem.jobs", "geomem.commands")
# What a stage finds through a registry, which no import shows.
FOUND = {
    "clips": ("sources/kinds",),
    "training": ("methods", "memory/kinds"),
    "rollouts": ("methods", "memory/kinds"),
    "scores": ("metrics/families", "methods"),
}
SOURCE_ROOT = Path(__file__).parents[1]


def imported_names(path: Path) -> set[str]:
    """Return the dotted name of everything that a file imports, at its top or in functions.

    `from a.b import c` counts as `a.b` and `a.b.c`, since `c` may be a module.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: imports are absolute here"
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module_file(name: str, root: Path = SOURCE_ROOT) -> Path | None:
    """Return the file of a dotted module name below `root`, None where there is none."""
    stem = root.joinpath(*name.split("."))
    files = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((file for file in files if file.is_file()), None)


def stage_files(stage: str, root: Path = SOURCE_ROOT) -> list[Path]:
    """Return the files of a stage, its templates too, and of every library it imports, sorted."""
    package = root / "geomem"
    folders = [package / name for name in (stage, *FOUND.get(stage, ()))]
    waiting = [path for folder in folders for path in folder.rglob("*.py")]
    seen = set((package / stage).rglob("*.j2"))
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        names = {name for name in imported_names(path) if name.startswith("geomem.")}
        files = [module_file(name, root) for name in names if not name.startswith(APART)]
        waiting += [file for file in files if file]
    return sorted(seen)


def stage_hash(stage: str, root: Path = SOURCE_ROOT) -> str:
    """Return the SHA-256 of a stage's files, names and content."""
    total = hashlib.sha256()
    for path in stage_files(stage, root):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(root).as_posix()} {content}\n".encode())
    return total.hexdigest()


def versions() -> dict[str, Any]:
    """Return the content that `versions.lock` should have."""
    return {
        stage: {
            "version": import_module(f"geomem.{stage}.version").VERSION,
            "sha256": stage_hash(stage),
        }
        for stage in STAGES
    }
