"""The analysis from files to tables: what is refused, and that cells are what records say."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import told, write_fake_clips
from geomem.commands.verification import orphans
from geomem.config import Config, JobSettings, load_config
from geomem.dag.graph import Dag
from geomem.formats import InputError, sha256_file, write_json, write_tensors
from geomem.paper.analysis import Analyses, analysis_tables
from geomem.paper.analysis_figures import clouds, probe_curves
from geomem.paper.clouds import Cloud, cloud_figure, seen_from
from geomem.paper.tables import Table, table_latex
from geomem.scores.windows import AnalysisWindows
from geomem.settings.analysis import AnalysisFigure, AnalysisRow
from geomem.settings.jobs import AnalysisTableJob, FigureJob

ROOT = Path(__file__).parents[2]
CLIPS, SEEDS = 6, (0, 1)
VARIANTS = {"base": ["ridge"], "repa": ["ridge", "projector"]}


ROWS = tuple(AnalysisRow(variant=name, label=f"model {name}") for name in VARIANTS)


def jobs() -> JobSettings:
    return JobSettings(load_config(ROOT, scale="smoke"))


def table_settings() -> AnalysisTableJob:
    return jobs().analysis_table().model_copy(update={"seeds": SEEDS, "rows": ROWS})


def figure_settings(figure: AnalysisFigure) -> FigureJob:
    analysis = jobs().config.settings.analysis
    shared: dict[str, Any] = {"floors": (), "contexts": {}, "bootstrap": 100, "analysis": analysis}
    return FigureJob(figure=figure, seeds=SEEDS, **shared)


def values(rng: np.random.Generator, *names: str) -> dict[str, Any]:
    return {"values": {name: rng.uniform(0.1, 1, CLIPS).tolist() for name in names}}


def write_record(
    path: Path, probed: list[str], decoded: list[str], drawn_from: int, **more: Any
) -> None:
    rng = np.random.default_rng(drawn_from)
    metrics = (
        "depth_abs_rel", "depth_error", "rotation_deg", "direction_deg", "pck_4", "pck_8",
    )  # fmt: skip
    ways = ("abs_rel", "delta_125", "chamfer_depth", "chamfer_points")
    names = ["truth", *decoded] if "variant" not in more else decoded
    drawn = rng.uniform(1, 2, (9, 3)).astype(np.float32)
    tensors = {f"{n}.points": torch.from_numpy(drawn.copy()) for n in names}
    tensors |= {f"{n}.colours": torch.full((9, 3), 7, dtype=torch.uint8) for n in names}
    write_tensors(path.with_suffix(".safetensors"), tensors, {})
    record = {
        "probes": {name: values(rng, *metrics) for name in probed},
        "decoding": {name: values(rng, *ways) for name in decoded},
        "clips": [f"clip-{i}" for i in range(CLIPS)],
        "fit_windows": 8,
        "provenance": {
            "stage": "scores",
            "version": 1,
            "settings": jobs().analysis(None).recorded(),
            "inputs": {},
        },
        "clouds": sha256_file(path.with_suffix(".safetensors")),
        **more,
    }
    # a spin in place has no direction of motion
    for probe in record["probes"].values():
        probe["values"]["direction_deg"][2] = None
    write_json(path, record)


@pytest.fixture
def records(tmp_path: Path) -> list[Path]:
    kinds = ["nothing", "place", "rgb", "encoder", *(f"layer{i}" for i in range(11))]
    paths = [tmp_path / "teacher.json"]
    write_record(paths[0], kinds, ["mean_depth", "teacher", "path"], 9)
    for number, (name, ways) in enumerate(VARIANTS.items()):
        for seed in SEEDS:
            path = tmp_path / name / f"seed{seed}.json"
            path.parent.mkdir(exist_ok=True)
            states = [f"state{i}" for i in range(5)]
            write_record(path, states, ways, 10 * number + seed, variant=name, seed=seed)
            paths.append(path)
    return paths


def cell(table: Table, label: str, column: str) -> Any:
    (row,) = [row for row in table.rows if row.label == label]
    return row.cells[column]


def test_cells_are_means_over_seeds_and_known_clips(records: list[Path]) -> None:
    analyses = Analyses(records)
    (probes, decoded), record = analysis_tables(table_settings(), analyses)
    both = [r["probes"]["state2"]["values"] for r in analyses.of("repa", SEEDS)]
    made = cell(probes, "video model, model repa", "rotation_deg")
    assert made.value == pytest.approx(np.mean([v["rotation_deg"] for v in both]), rel=1e-5)
    assert made.low < made.value < made.high
    moving = [x for v in both for x in v["direction_deg"] if x is not None]
    made = cell(probes, "video model, model repa", "direction_deg")
    assert len(moving) == 10 and made.value == pytest.approx(np.mean(moving), rel=1e-5)
    way = [r["decoding"]["projector"]["values"]["abs_rel"] for r in analyses.of("repa", SEEDS)]
    assert cell(decoded, "model repa: own projector", "abs_rel").value == pytest.approx(
        np.mean(way), rel=1e-5
    )
    assert [row.label for row in probes.rows][4:15] == [f"VGGT, layer {i}" for i in range(11)]
    assert record["analyses"] == {path.as_posix(): sha256_file(path) for path in records}
    assert r"\toprule" in table_latex(probes) and r"\toprule" in table_latex(decoded)


def test_r2_is_the_share_of_the_mean_depths_error_that_is_gone(records: list[Path]) -> None:
    analyses = Analyses(records)
    (probes, _), _ = analysis_tables(table_settings(), analyses)
    sources = analyses.teacher["probes"]
    plain, fitted = (sum(sources[n]["values"]["depth_error"]) for n in ("nothing", "layer3"))
    made = cell(probes, "VGGT, layer 3", "depth_r2")
    assert made.value == pytest.approx(1 - fitted / plain, rel=1e-5)
    trivial = cell(probes, "mean depth, identity pose, same place", "depth_r2")
    assert trivial.value == pytest.approx(0, abs=1e-6)


def test_figures_show_all_layers_states_and_clouds(records: list[Path]) -> None:
    shown = figure_settings(AnalysisFigure(kind="probes", rows=ROWS))
    drawn, _ = probe_curves(shown, Analyses(records))
    left, right = drawn.axes[:2]
    lines = {line.get_label(): line for axis in (left, right) for line in axis.get_lines()}
    assert len(lines["VGGT"].get_xdata()) == 11 and len(lines["model repa"].get_xdata()) == 5
    shown = figure_settings(AnalysisFigure(kind="clouds", rows=ROWS))
    figure, record = clouds(shown, Analyses(records))
    titles = [axis.get_title() for axis in figure.axes[:5]]
    assert titles[0] == "truth"
    assert titles[3:] == ["model base\n(ridge)", "model repa\n(own projector)"]
    assert record["clip"] == "clip-0"


def test_records_that_do_not_belong_together_are_told(records: list[Path]) -> None:
    told(lambda: Analyses(records[1:]), "teacher's features", "not given")
    told(lambda: Analyses(records).of("tuned", SEEDS), "no analysis of tuned")
    records[1].with_suffix(".safetensors").write_bytes(b"other")
    told(lambda: Analyses(records).clouds("base", 0), "seed0.safetensors", "make it again")
    write_record(records[1], ["state0"], ["ridge"], 3, variant="base", seed=0, clips=["other"])
    told(lambda: Analyses(records), "other clips or settings")
    other = jobs().analysis(None)
    other = other.model_copy(update={"analysis": other.analysis.model_copy(update={"stride": 9})})
    made_by = {"stage": "scores", "version": 1, "settings": other.recorded(), "inputs": {}}
    more: dict[str, Any] = {"variant": "base", "seed": 0, "provenance": made_by}
    write_record(records[1], ["state0"], ["ridge"], 3, **more)
    told(lambda: Analyses(records), "other clips or settings")


def test_views_keep_lengths_and_look_down() -> None:
    points = np.array([[1.0, -2, 5], [0, 3, 4]])
    for view in ((30.0, 25.0), (0.0, 90.0), (0.0, 0.0)):
        turned = seen_from(points, *view)
        np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(points, axis=1))
    np.testing.assert_allclose(seen_from(points, 0, 90)[:, :2], points[:, [0, 2]], atol=1e-9)
    np.testing.assert_allclose(seen_from(points, 0, 0)[:, :2], points[:, :2] * [1, -1], atol=1e-9)
    wrong = Cloud(points=points, colours=np.zeros((3, 3), np.uint8))
    with pytest.raises(ValueError, match="x"):
        cloud_figure({"x": wrong})


def test_probes_cannot_be_fitted_on_what_they_are_measured_on(tmp_path: Path) -> None:
    for name in ("fit", "test"):
        write_fake_clips(tmp_path / name, clips=6, frames=24, size=32)
    chosen = jobs().analysis(None)
    with pytest.raises(InputError, match="share 6 scenes"):
        AnalysisWindows(
            tmp_path / "fit", tmp_path / "test", chosen, device=torch.device("cpu"), progress=iter
        )


def records_of(config: Config, root: Path) -> set[Path]:
    return {root / job.record for jobs in Dag(config).stages() for job in jobs}


def test_the_study_asks_for_the_analysis_and_the_main_job_does_not(tmp_path: Path) -> None:
    study, main = (load_config(ROOT, scale="smoke", main_job=m) for m in (False, True))
    folder = tmp_path / "results/smoke/analysis"
    asked = records_of(study, tmp_path)
    assert folder / "teacher.json" in asked and folder / "tuned_repa/seed0.json" in asked
    assert not {path for path in records_of(main, tmp_path) if path.is_relative_to(folder)}
    shutil.copytree(ROOT / "config", tmp_path / "config")
    table = tmp_path / "results/smoke/provenance/feature_analysis.json"
    assert table in asked and table not in records_of(main, tmp_path)
    write_json(folder / "memory_1/seed0.json", {})
    assert orphans(study, tmp_path) == [
        f"{folder / 'memory_1/seed0.json'} is not asked for by the configuration"
    ]
