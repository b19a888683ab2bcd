"""A stage's sources cannot change without its version or the lock being looked at."""

from pathlib import Path

import pytest

from geomem.commands.housekeeping import LOCK, schema_text, stale_stages
from geomem.commands.main import main
from geomem.formats import read_json
from geomem.versions import SOURCE_ROOT, STAGES, stage_files, stage_hash, versions

ROOT = Path(__file__).parents[2]


def test_every_stage_is_as_locked() -> None:
    faults = stale_stages(read_json(ROOT / LOCK), versions())
    assert not faults, "bump VERSION or refresh the lock:\n" + "\n".join(faults)


def test_every_package_with_commands_or_a_version_is_a_stage() -> None:
    found = {path.parent.name for path in (SOURCE_ROOT / "geomem").glob("*/version.py")}
    assert found == set(STAGES)


@pytest.fixture(scope="module")
def files() -> dict[str, set[str]]:
    return {
        stage: {path.relative_to(SOURCE_ROOT / "geomem").as_posix() for path in stage_files(stage)}
        for stage in STAGES
    }


@pytest.mark.parametrize(
    ("file", "stages"),
    [
        ("clips/windows.py", {"clips"}),
        ("sources/kinds/rooms.py", {"clips"}),
        ("methods/dfot/method.py", {"training", "rollouts", "scores"}),
        ("methods/floors/spec.py", {"training", "rollouts", "scores"}),
        ("memory/kinds/explicit.py", {"training", "rollouts"}),
        ("metrics/families/sets.py", {"scores", "paper"}),
        ("scenes/render.py", {"clips", "scores"}),
        ("diffusion/guidance.py", {"training", "rollouts", "scores"}),
        ("diffusion/schedule.py", {"training", "rollouts", "scores"}),
        ("networks/vggt/model.py", set(STAGES) - {"clips", "picks"}),
        ("probes/ridge.py", {"scores"}),
        ("paper/templates/table.tex.j2", {"paper"}),
        ("formats/files.py", set(STAGES)),
        ("config/study.py", set()),
        ("settings/jobs.py", set()),
    ],
)
def test_a_file_belongs_to_exactly_the_stages_that_import_it(
    file: str, stages: set[str], files: dict[str, set[str]]
) -> None:
    assert (SOURCE_ROOT / "geomem" / file).is_file()
    assert {stage for stage in STAGES if file in files[stage]} == stages


def test_the_hash_follows_imports_names_and_content(tmp_path: Path) -> None:
    package = tmp_path / "geomem"
    for path, text in {
        "one/__init__.py": "",
        "one/run.py": "def f():\n    from geomem.lib import deep\n",
        "lib/__init__.py": "",
        "lib/deep.py": "import geomem.lib.deeper\n",
        "lib/deeper.py": "A = 1\n",
        "lib/unused.py": "B = 1\n",
        "two/run.py": "import geomem.jobs\n",
        "jobs.py": "",
    }.items():
        (package / path).parent.mkdir(parents=True, exist_ok=True)
        (package / path).write_text(text)
    first = stage_hash("one", tmp_path)
    (package / "lib/unused.py").write_text("B = 2\n")
    assert stage_hash("one", tmp_path) == first
    (package / "lib/deeper.py").write_text("A = 2\n")
    second = stage_hash("one", tmp_path)
    assert second != first
    (package / "one/run.py").rename(package / "one/other.py")
    assert stage_hash("one", tmp_path) not in (first, second)
    # the command line and the configuration reach outputs through recorded settings
    before = stage_hash("two", tmp_path)
    (package / "jobs.py").write_text("C = 1\n")
    assert stage_hash("two", tmp_path) == before


def test_the_message_names_stage_and_remedies() -> None:
    found = {"clips": {"version": 1, "sha256": "a"}, "training": {"version": 2, "sha256": "b"}}
    locked = {**found, "clips": {"version": 1, "sha256": "x"}}
    (fault,) = stale_stages(locked, found)
    assert "clips" in fault and "bump VERSION" in fault and "refresh the lock" in fault
    assert stale_stages(found, found) == []


def test_the_check_fails_in_one_line_and_refreshing_mends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"clips": {"version": 1, "sha256": "a"}}
    monkeypatch.setattr("geomem.versions.versions", lambda: found)
    check = ["versions-lock", "--check", "--root", str(tmp_path)]
    with pytest.raises(SystemExit, match=r"versions\.lock is missing"):
        main(check)
    main(["versions-lock", "--root", str(tmp_path)])
    main(check)
    found["clips"]["sha256"] = "b"
    with pytest.raises(SystemExit, match=r"error: sources of stage clips.*bump VERSION"):
        main(check)


def test_the_schema_file_is_that_of_the_models(tmp_path: Path) -> None:
    main(["schema", "--check", "--root", str(ROOT)])
    main(["schema", "--root", str(tmp_path)])
    (written,) = tmp_path.rglob("*.json")
    assert written.read_text() == schema_text()
    written.write_text(schema_text().replace("paths", "path").replace('"type"', '"kind"', 1))
    with pytest.raises(SystemExit, match=r"config\.schema\.json differs.*run `geomem schema`"):
        main(["schema", "--check", "--root", str(tmp_path)])
