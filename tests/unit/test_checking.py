"""`geomem check`: what a reviewer is told of tables and claims."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from geomem.commands.checking import check_claims, tell_claim
from geomem.commands.main import main
from geomem.config import load_config
from geomem.formats import read_json, write_json

TABLES = ("ablation_table2", "ablation_table2_replay", "ablation_table2_partial", "base_table")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A project with the tables of the main job as tracked, in a git of its own."""
    shutil.copytree(ROOT / "config", tmp_path / "config")
    for name in TABLES:
        for path in (f"tables/{name}.csv", f"provenance/{name}.json"):
            target = tmp_path / "results/tiny" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / "results/tiny" / path, target)
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@e"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "tracked"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


def change(run: Path, name: str, column: str, **values: Any) -> None:
    """Change what a run says of a statement in a column of table 2 in replay."""
    path = run / "results/tiny/provenance/ablation_table2_replay.json"
    record = read_json(path)
    [one] = [x for x in record["statements"][name] if x["column"] == column]
    one.update(values)
    write_json(path, record)


def test_the_tracked_run_agrees_with_itself_and_its_claims_hold(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["check", "--root", str(run), "--scale", "tiny", "--main-job"])
    told = capsys.readouterr().out
    assert "DOES NOT HOLD" not in told and "digit for digit" in told
    assert f"{len(TABLES)} of {len(TABLES)} tables agree with HEAD" in told
    assert all(len(line) <= 100 for line in told.splitlines() if "cells" not in line)


def test_a_claim_that_fails_is_told_with_its_numbers_and_ends_with_an_error(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gain = {"value": -0.5, "low": -1.0, "high": 0.1}
    change(run, "memory_in_replay", "spin_replay_psnr", verdict="not distinguishable", gain=gain)
    with pytest.raises(SystemExit, match="not all of it agrees"):
        main(["check", "--root", str(run), "--scale", "tiny", "--main-job"])
    told = " ".join(capsys.readouterr().out.split())
    assert "DOES NOT HOLD: From a true beginning" in told
    assert "spin_replay_psnr: -0.5 [-1, 0.1], in git 7.03 NOT DISTINGUISHABLE" in told
    assert ", 1 do not, 0 are not made" in told


def test_a_loss_that_is_claimed_has_to_be_one(run: Path) -> None:
    change(
        run,
        "splat_stays_sharp",
        "out_and_back_replay_efficientnet_lite0_distance",
        verdict="better",
    )
    claims = check_claims(load_config(run, scale="tiny", main_job=True), run, revision="HEAD")
    holds = {claim.name: claim.holds for claim in claims}
    assert holds.pop("splat_stays_sharp") is False
    assert set(holds.values()) == {True}


def test_what_is_not_made_is_told_with_the_command_that_makes_it(run: Path) -> None:
    claims = check_claims(load_config(run, scale="tiny"), run, revision="HEAD")
    [one] = [claim for claim in claims if claim.name == "ours_on_walks"]
    assert one.holds is None
    assert "make it: snakemake results/main_table.tex" in tell_claim(one)


def test_every_claim_of_the_tracked_results_is_in_the_artifact_s_description() -> None:
    described = " ".join((ROOT / "docs/artifact.md").read_text(encoding="utf-8").split())
    claims = check_claims(load_config(ROOT, scale="tiny"), ROOT, revision="HEAD")
    assert len(claims) > 10
    for claim in claims:
        assert claim.statement.claim in described
        assert claim.holds, claim.name
        for one in claim.contests:
            assert f"{one['gain']['value']:+.3g}" in described
