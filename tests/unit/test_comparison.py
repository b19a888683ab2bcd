"""Tables against those in git: what agrees, what does not, and what there is to say of either."""

import subprocess
from pathlib import Path

import pytest

from geomem.commands.compare import compare_tables, tell
from geomem.commands.main import main

COLUMNS = "row,bound,psnr,psnr_low,psnr_high,psnr_significant,depth"
TRACKED = f"{COLUMNS}\nbase,False,16.0,15.0,17.0,False,0.1\nmemory,False,18.0,17.6,18.4,True,\n"


def changed(old: str, new: str) -> str:
    assert TRACKED.count(old) == 1
    return TRACKED.replace(old, new)


def test_the_same_digits_are_told_as_such() -> None:
    found = compare_tables(TRACKED, TRACKED)
    assert found.identical and found.cells == 14 and not found.differing
    assert "digit for digit" in tell("t", found, revision="HEAD", tolerance=0.25)


@pytest.mark.parametrize(
    ("old", "new", "share"),
    [
        ("16.0", "16.4", 0.8),  # 0.4 of an interval of 2, of which a quarter is allowed
        ("17.6", "17.5", 0.5),  # a bound may move as its value may
        ("0.1", "0.10005", 0.5),  # without an interval: a thousandth
    ],
)
def test_a_value_may_move_by_a_share_of_its_interval(old: str, new: str, share: float) -> None:
    found = compare_tables(changed(old, new), TRACKED)
    assert not found.identical and not found.differing
    assert found.largest == pytest.approx(share, abs=1e-6) and new in found.where
    line = tell("t", found, revision="HEAD", tolerance=0.25)
    assert "agree with HEAD within 0.25" in line and f"{share:.0%}" in line


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("16.0", "16.6", "base, psnr"),
        ("18.0", "nan", "memory, psnr"),
        ("18.0", "", "memory, psnr"),
        (",True,", ",False,", "memory, psnr_significant"),
        ("0.1", "0.102", "base, depth"),
        ("memory,", "other,", "memory, bound"),
        ("True,\n", "True,3\n", "memory, depth"),
    ],
)
def test_more_than_that_differs(old: str, new: str, where: str) -> None:
    found = compare_tables(changed(old, new), TRACKED)
    assert any(text.startswith(where) for text in found.differing)
    assert "DIFFER from HEAD" in tell("t", found, revision="HEAD", tolerance=0.25)


@pytest.fixture
def tracked(project: Path) -> Path:
    """A project whose git has one table at `smoke`."""
    for name, text in {
        "smoke/tables/ablation_table2.csv": TRACKED,
        "teacher_table.csv": TRACKED,
    }.items():
        (project / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (project / "results" / name).write_text(text)
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.invalid"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "state"]):
        subprocess.run(["git", "-C", str(project), *words], check=True)
    return project


def test_the_command_says_one_line_a_table_and_fails_on_a_difference(
    tracked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["compare", "--root", str(tracked)]
    main(command)
    assert capsys.readouterr().out.splitlines() == [
        "ablation_table2: all 14 cells are those of HEAD, digit for digit",
    ]
    (tracked / "results/smoke/tables/ablation_table2.csv").write_text(changed("16.0", "16.6"))
    with pytest.raises(SystemExit, match="1 of 1 tables differ from HEAD"):
        main(command)
    main([*command, "--tell"])
    main([*command, "--tolerance", "0.5"])
    lines = capsys.readouterr().out.splitlines()
    # once for the failing run, once for each that only tells
    assert "1 of 14 cells DIFFER" in lines[0] and lines[1] == lines[0] and "agree" in lines[2]


def test_no_git_is_told(project: Path) -> None:
    (project / "results/smoke/tables").mkdir(parents=True)
    (project / "results/smoke/tables/teacher_table.csv").write_text(TRACKED)
    with pytest.raises(SystemExit, match="has no git revision 'HEAD' to compare with"):
        main(["compare", "--root", str(project)])
