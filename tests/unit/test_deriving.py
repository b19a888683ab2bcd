"""Plans and choices of clips, derived again from what is here."""

import json
import shutil
from pathlib import Path

import pytest

from conftest import edit_yaml, run_stage, write_fake_clips
from geomem.commands.deriving import difference
from geomem.commands.main import main
from geomem.config import load_config
from geomem.dag.graph import Dag


@pytest.fixture
def planned(project: Path) -> Path:
    """A project with the clips of its training split, and a plan of them; its path."""
    dag = Dag(load_config(project))
    # as two shards, each of which has the clips that the configuration says
    for number, clips in enumerate((3, 3)):
        written = write_fake_clips(
            project / f"made-{number}", clips=clips, frames=16, size=32, prefix=f"s{number}"
        )
        target = project / dag.shards("train")[number].parent
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(next(written.glob("shard-*")), target)
    path = project / dag.plan("train").record
    path.parent.mkdir(parents=True)
    run_stage(
        project, *("clips", "plan", str(path), "--plan", "train"),
        *("--clips", str(project / dag.folder("train"))),
    )  # fmt: skip
    return path


def compare(project: Path) -> None:
    main(["derive", "--root", str(project)])


def test_a_list_that_follows_is_told(
    project: Path, planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compare(project)
    assert (
        capsys.readouterr().out == f"{planned.relative_to(project)}: as derived again, 8 entries\n"
    )


def test_one_window_that_differs_is_told(project: Path, planned: Path) -> None:
    content = json.loads(planned.read_text())
    content["windows"][5][0] = (content["windows"][5][0] + 1) % 6
    planned.write_text(json.dumps(content))
    with pytest.raises(SystemExit, match=r"plans/train.json: windows, number 5: \[.* is here, \["):
        compare(project)


def test_a_seed_that_differs_changes_the_list(project: Path, planned: Path) -> None:
    path = project / "config/scales/smoke.yaml"
    edit_yaml(path, plans__train__seed=7)
    with pytest.raises(SystemExit, match=r"plans/train.json: windows, number \d+: "):
        compare(project)


def test_without_its_clips_a_list_is_not_compared(
    project: Path, planned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(project / "data/smoke/clips")
    with pytest.raises(SystemExit, match="no list of scale smoke could be compared"):
        compare(project)
    assert "not compared, the clips that it lists are not here" in capsys.readouterr().out


def test_a_longer_list_and_another_request_differ() -> None:
    here = {"clips": [{"id": "a", "start": 0}], "request": {"role": "test"}}
    assert difference(here, here) is None
    longer = here | {"clips": [*here["clips"], {"id": "b", "start": 4}]}
    assert difference(here, longer) == (
        "clips, number 1: {'id': 'b', 'start': 4} is here, None would be derived"
    )
    told = difference(here | {"request": {"role": "train"}}, here)
    assert told == "request: {'role': 'test'} is here, {'role': 'train'} would be derived"
