"""What methods cost: evaluations as the sampler makes them, parameters and hours as measured."""

from pathlib import Path

import pytest

from conftest import edit_yaml
from geomem.config import JobSettings, load_config
from geomem.formats import write_json
from geomem.paper.costs import costs_table, evaluations, measured_costs
from geomem.paper.tables import Table, table_latex
from geomem.settings.jobs import CostsJob

BENCHMARK = "s\th:m:s\tmax_rss\tcpu_time\n7200.5\t2:00:00\t100\t7000\n"


@pytest.fixture
def settings(project: Path) -> CostsJob:
    """At `smoke`: windows of 4 frames, 2 steps, 16 frames from one; guidance of two branches."""
    return JobSettings(load_config(project)).costs()


def counted(settings: CostsJob, variant: str, protocol: str = "walk_long") -> int | None:
    row = next(row for row in settings.rows if row.variant == variant)
    return evaluations(row.method, row.rollouts[protocol])


def test_evaluations_are_those_of_every_window(settings: CostsJob) -> None:
    # three keyframes in a window under guidance of two branches; then of five frames between two
    # of them two in a window, and each of the others in one
    assert counted(settings, "diffusion_forcing") == 2 * 2 + (3 + 6) * 2
    # in order: 4 frames, then 2 more in each of 6 windows
    assert counted(settings, "full_sequence") == 7 * 2
    assert counted(settings, "fixed_context") == 7 * 2 * 2  # vanilla guidance
    # 3 frames trail each other in the first window, 2 in each other
    assert counted(settings, "ar_diffusion") == (2 + 2) + 6 * (2 + 1)
    assert counted(settings, "maskflow") == 7 * 2
    assert counted(settings, "recurrent") == 7 * (2 * 2 + 1)
    assert counted(settings, "maskflow_tokenizer") == 0


def test_a_window_is_one_where_all_fits_in_it(settings: CostsJob) -> None:
    assert counted(settings, "diffusion_forcing", "walk_short") == 2 * 2
    assert counted(settings, "worldmem", "walk_short") == 2 * 2 + 1


def measured(settings: CostsJob) -> dict[str, object]:
    names = {row.weights for row in settings.rows if row.rollouts}
    found = {
        name: {"parameters": 2_500_000, "seconds": 500.0, "cpu_seconds": 360.0} for name in names
    }
    for time in ("seconds", "cpu_seconds"):
        found["raw_4"].pop(time)
    return {"machine": "A Processor & Co", "variants": found}


def cells(table: Table, label: str) -> dict[str, float]:
    row = next(row for row in table.rows if row.label == label)
    return {key: cell.value for key, cell in row.cells.items()}


def test_the_table_has_the_rows_of_the_table_it_is_of(settings: CostsJob) -> None:
    table = costs_table(settings, measured(settings))
    forcing = cells(table, "diffusion forcing")
    assert (forcing["parameters"], forcing["steps"], forcing["windows"]) == (2.5, 4, 8)
    assert forcing["hours"] == pytest.approx(0.1)
    assert forcing["frames"] == 4
    assert cells(table, "raw context of 4 frames")["frames"] == 4 + 4
    assert cells(table, "WorldMem of 4 frames")["frames"] == 4  # its bank is read apart
    assert cells(table, "last given frame repeated") == {}
    assert "hours" not in cells(table, "raw context of 4 frames")  # trained elsewhere
    assert cells(table, "raw context of 4 frames, by overlap")["parameters"] == 2.5
    text = table_latex(table)
    assert "CPU-hours" in text and r"A Processor \& Co" in text


def test_hours_are_of_all_gpus_where_there_are_some(project: Path) -> None:
    edit_yaml(project / "config/scales/smoke.yaml", resources__training__gpu=8)
    settings = JobSettings(load_config(project)).costs()
    table = costs_table(settings, measured(settings))
    assert cells(table, "diffusion forcing")["hours"] == pytest.approx(8 * 500 / 3600, abs=1e-5)
    assert "GPU-hours" in table_latex(table) and "Processor" not in table_latex(table)


def test_seconds_are_those_of_the_benchmark(project: Path, tmp_path: Path) -> None:
    settings = JobSettings(load_config(project)).measured()
    checkpoints = []
    for number, name in enumerate(settings.variants):
        path = tmp_path / "checkpoints" / name / "seed0/checkpoint.json"
        path.parent.mkdir(parents=True)
        write_json(path, {"parameters": {"backbone": number, "control": 1}})
        checkpoints.append(path)
    taken = tmp_path / "jobs/train_variant/smoke/raw_4/seed0.tsv"
    taken.parent.mkdir(parents=True)
    taken.write_text(BENCHMARK)
    content = measured_costs(settings, checkpoints, tmp_path / "jobs")
    first = settings.variants[0]
    assert content["variants"][first] == {"parameters": 1}
    assert content["variants"]["raw_4"]["seconds"] == 7200.5
    assert content["variants"]["raw_4"]["cpu_seconds"] == 7000
    assert content["machine"]
