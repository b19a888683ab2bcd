"""The faces of pyproject.toml (conda environment, lock, hooks) agree with it."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def conda() -> dict[str, Any]:
    """conda's own packages by name, and the words of its pip section."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    names = [re.match(r"([a-z0-9_-]+)(.*)", entry) for entry in entries if isinstance(entry, str)]
    pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    return {"packages": {m[1]: m[2] for m in names if m}, "pip": pip}


@pytest.fixture(scope="module")
def lock() -> dict[str, list[Version]]:
    """Pinned versions by name; a package may be pinned once for each platform."""
    pins: dict[str, list[Version]] = {}
    for line in (ROOT / "requirements.lock.txt").read_text().splitlines():
        if found := re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line):
            pins.setdefault(canonicalize_name(found[1]), []).append(Version(found[2]))
    return pins


def test_conda_installs_a_python_that_the_project_accepts(
    conda: dict[str, Any], project: dict[str, Any]
) -> None:
    python = Version(conda["packages"]["python"].removeprefix("="))
    assert python in SpecifierSet(project["requires-python"])
    compiled_for = (ROOT / "requirements.lock.txt").read_text().split("--python-version ")[1]
    assert Version(compiled_for.split()[0]) == python
    assert "pip" in conda["packages"]


def test_the_pip_section_uses_the_lock_and_extras_that_exist(
    conda: dict[str, Any], project: dict[str, Any]
) -> None:
    words = [word for entry in conda["pip"] for word in entry.split()]
    assert words[::2] == ["-c", "-e"]
    constraint, target = words[1::2]
    assert (ROOT / constraint).is_file()
    found = re.fullmatch(r"\.\[(.+)\]", target)
    assert found and set(found[1].split(",")) <= project["optional-dependencies"].keys()


def test_the_lock_satisfies_every_requirement(
    project: dict[str, Any], lock: dict[str, list[Version]]
) -> None:
    extras = project["optional-dependencies"].values()
    written = [*project["dependencies"], *(entry for extra in extras for entry in extra)]
    needed = [Requirement(entry) for entry in written]
    outside = [
        str(requirement)
        for requirement in needed
        if requirement.name != project["name"]
        and not any(
            version in requirement.specifier
            for version in lock.get(canonicalize_name(requirement.name), [])
        )
    ]
    assert outside == []


def test_hooks_run_tools_of_the_environment(project: dict[str, Any]) -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    tools = {hook["entry"].split()[0] for hook in hooks}
    assert {"ruff", "mypy", "codespell", "snakefmt"} <= tools
    dev = {Requirement(entry).name for entry in project["optional-dependencies"]["dev"]}
    assert tools <= dev | project["scripts"].keys()


def test_the_schema_hook_runs_when_the_configuration_s_models_change() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    files = next(hook["files"] for hook in hooks if hook["id"] == "schema")
    read = ("config/*", "settings/*", "methods/*/spec", "memory/kinds/*", "metrics/families/*")
    globs = [f"src/geomem/{place}.py" for place in (*read, "sources/kinds/*", "*/registry")]
    models = [p.relative_to(ROOT).as_posix() for glob in globs for p in ROOT.glob(glob)]
    assert len(models) > 20
    assert all(re.search(files, path) for path in [*models, "workflow/schemas/config.schema.json"])
