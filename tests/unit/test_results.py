"""The tracked results: what the paper shows must be what the study claims and records."""

import csv
import json
from pathlib import Path

import pytest

from geomem.config import load_config
from geomem.formats import digest, read_json, sha256_file

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results"


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, str]]:
    with (RESULTS / "ablation_table2.csv").open(encoding="utf-8", newline="") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def interval(row: dict[str, str], column: str) -> tuple[float, float]:
    return float(row[f"{column}_low"]), float(row[f"{column}_high"])


@pytest.mark.parametrize("column", ["spin_late_psnr", "out_and_back_truth_psnr"])
@pytest.mark.parametrize("row", ["single frame", "2 frames", "3 frames", "4 frames"])
def test_memory_beats_no_memory_on_revisits_with_intervals_apart(
    table: dict[str, dict[str, str]], row: str, column: str
) -> None:
    assert interval(table[row], column)[0] > interval(table["without memory"], column)[1]


def test_teacher_knows_depth_beyond_the_mean() -> None:
    depth = read_json(RESULTS / "tiny/teacher.json")["depth"]
    assert depth["teacher"]["abs_rel"] < 0.5 * depth["mean_depth"]["abs_rel"]
    assert depth["teacher"]["delta_125"] > 1.5 * depth["mean_depth"]["delta_125"]


def test_tracked_scores_were_made_with_the_tracked_configuration() -> None:
    config = load_config(ROOT, scale="tiny")
    files = sorted((RESULTS / "tiny/scores").rglob("*.json"))
    assert len(files) == len(config.variants) * len(config.settings.rollouts.protocols)
    for path in files:
        assert digest(read_json(path)["settings"]) == digest(config.scores_settings(path.stem))


def test_every_cell_leads_to_the_tracked_score_file() -> None:
    provenance = json.dumps(read_json(RESULTS / "tiny/provenance/ablation_table2.json"))
    for path in (RESULTS / "tiny/scores").rglob("*.json"):
        assert sha256_file(path) in provenance


def test_teacher_is_the_one_the_configuration_names() -> None:
    for scale in ("smoke", "tiny", "small"):
        teacher = load_config(ROOT, scale=scale).settings.teacher
        assert sha256_file(ROOT / teacher.weights) == teacher.sha256
    assert read_json(RESULTS / "tiny/teacher.json")["weights"] == teacher.sha256
