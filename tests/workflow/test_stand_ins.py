"""The workflow at `smoke` on streets, and on clips without cameras, from nothing to a table."""

import csv
from pathlib import Path

import pytest

from clones import copy_project, run
from stand_ins import UNTOLD, street_project, untold_project


def table_of(project: Path, name: str) -> list[dict[str, str]]:
    path = f"results/smoke/tables/{name}.csv"
    run(project, "snakemake", "--cores", "1", "--quiet", "rules", "--", path)
    return list(csv.DictReader((project / path).open()))


@pytest.mark.long
def test_streets_are_learned_aligned_and_scored(tmp_path: Path) -> None:
    rows = table_of(street_project(copy_project(tmp_path)), "ablation_table1")
    assert len(rows) == 6
    values = [float(row["spin_psnr"]) for row in rows]
    assert len(set(values)) == 6 and all(0 < value < 40 for value in values)


@pytest.mark.long
def test_what_is_told_no_cameras_runs_without_them(tmp_path: Path) -> None:
    rows = table_of(untold_project(copy_project(tmp_path)), "untold")
    values = {row["row"]: float(row["walk_short_psnr"]) for row in rows}
    assert values.keys() == set(UNTOLD) and len(set(values.values())) == 4
