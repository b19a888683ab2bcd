"""Tables and the PDF from small score files: every number is recomputed or traced."""

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import ROOT
from geomem.config import JobSettings, load_config
from geomem.formats import InputError, digest, read_json, sha256_file, write_json
from geomem.formats.records import write_record
from geomem.formats.runs import run_tag, trained_run
from geomem.paper import __main__ as stage
from geomem.paper.collect import Scores, blind_networks
from geomem.paper.facts import facts_latex
from geomem.paper.latex import compile_paper, first_fault
from geomem.paper.results import score_table, teacher_table
from geomem.paper.tables import Table, table_csv, table_latex
from geomem.settings.jobs import TeacherTableJob
from paper_cases import (
    CLIPS,
    METRICS,
    ROWS,
    SEEDS,
    column_of,
    psnr_of,
    run_of,
    settings,
    write_scores,
)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_scores(tmp_path)


def change_clips(files: list[Path], variant: str, **values: list[float]) -> None:
    """Give a variant other values of each clip by metric."""
    for path in files:
        record = read_json(path)
        changed = {m: v for m, v in values.items() if m in record["per_clip"]}
        if record["variant"] == variant and changed:
            record["per_clip"] |= changed
            write_json(path, record)


def build(files: list[Path]) -> tuple[Table, dict[str, Any]]:
    return score_table("memory", settings(), Scores(files))


def test_cells_are_means_over_clips_and_seeds(files: list[Path]) -> None:
    table, _ = build(files)
    rows = {row["row"]: row for row in csv.DictReader(table_csv(table).splitlines())}
    expected = np.mean([psnr_of("memory", seed) for seed in SEEDS])
    assert float(rows["with"]["spin_psnr"]) == pytest.approx(expected, rel=1e-5)
    assert float(rows["with"]["spin_psnr_low"]) < expected < float(rows["with"]["spin_psnr_high"])
    assert float(rows["with"]["spin_kernel_efficientnet_lite0"]) == 9.5
    assert float(rows["with"]["spin_kernel_efficientnet_lite0_low"]) < 9
    assert rows["with"]["spin_frechet_efficientnet_lite0"] == ""
    assert rows["with"]["spin_forgetting"] == ""
    assert float(rows["still"]["spin_psnr"]) == 15 and rows["still"]["bound"] == "True"
    assert (rows["still"]["spin_psnr_low"], rows["still"]["spin_psnr_high"]) == ("15.0", "15.0")


def test_published_numbers_stand_beside_the_measured_ones(
    files: list[Path],
) -> None:
    wanted = {"metric": "FVD", "dataset": "D", "frames": "16"}
    chosen = settings(
        columns=[column_of("psnr"), column_of("frechet", published=wanted)],
        rows=[row | {"published": "Memory"} if row["label"] == "with" else row for row in ROWS],
    )
    numbers = [
        {**wanted, "method": "Memory", "value": "252", "source": "s"},
        {**wanted, "method": "Memory", "frames": "256", "value": "9", "source": "s"},
        {**wanted, "method": "Other", "value": "1", "source": "s"},
    ]
    arguments = ("memory", chosen, Scores(files))
    table, _ = score_table(*arguments, published=numbers)
    rows = {row["row"]: row for row in csv.DictReader(table_csv(table).splitlines())}
    key = "spin_frechet_efficientnet_lite0_published"
    assert {label: row[key] for label, row in rows.items() if row[key]} == {"with": "252.0"}
    # neither ranked nor under the name of what was measured
    latex = table_latex(table)
    assert r"\shortstack{FVD\\published,\\16 frames}" in latex
    assert "252.00" in latex and r"\textbf{252" not in latex
    with pytest.raises(InputError, match="2 numbers"):
        score_table(*arguments, published=[*numbers, numbers[0]])


def test_only_what_differs_is_marked_and_only_methods_are_ranked(
    files: list[Path],
) -> None:
    table, provenance = build(files)
    daggers = {row.label: row.cells["spin_psnr"].dagger for row in table.rows}
    assert daggers == {
        "still": False,
        "without": False,
        "with": True,
        "hardly": False,
        "oracle": True,
    }
    cells = provenance["cells"]
    # 8 clips, three comparisons in each of two columns: the smallest exact p is 2 / 256, times 6.
    assert cells["with"]["spin_psnr"]["test"]["p_holm"] == pytest.approx(6 * 2 / 256)
    assert cells["with"]["spin_efficientnet_lite0_distance"]["test"]["p_holm"] == pytest.approx(
        6 * 2 / 256
    )
    assert "test" not in cells["with"]["spin_kernel_efficientnet_lite0"]
    assert "test" not in cells["without"]["spin_psnr"] and "test" not in cells["still"]["spin_psnr"]
    latex = table_latex(table)
    assert r"\textbf{22" in latex and r"\textbf{30" not in latex
    assert "LPIPS" not in latex.split(r"\toprule")[1] and "FVD" not in latex.split(r"\toprule")[1]
    assert "for LPIPS" in latex and "for FVD" in latex and "This stands in for that" in latex
    assert "8 spin clips of 5 frames, 1 of them given; 2 training seeds" in latex


def test_notes_tell_how_intervals_and_tests_are_made(files: list[Path]) -> None:
    note = build(files)[0].notes[0]
    assert "studentised interval over clips and seeds" in note and "200 resamples" in note
    assert "jackknife" in note and "fewer than 40 clips" in note
    assert "one Holm correction over the 6 tests of the table" in note
    assert "at most 8 clips no corrected $p$ can lie below 0.047. " in note
    assert r"differs from ``without''" in note


def test_a_heading_and_what_a_scale_leaves_out_are_told(files: list[Path]) -> None:
    columns = [column_of("psnr", title="5 frames"), column_of("perceptual", title="5 frames")]
    job = settings(columns=columns, left_out=["length_3", "spin_replay"])
    table, _ = score_table("lengths", job, Scores(files))
    assert {column.group for column in table.columns} == {"5 frames"}
    assert "Scale tiny: 8 clips of 5 frames, 1 of them given;" in table.caption
    assert "Left out at this scale: length 3, spin replay." in table.notes[0]


def test_a_table_of_more_tests_than_its_clips_can_bear_says_so(
    files: list[Path],
) -> None:
    for path in files:
        record = read_json(path)
        if record["family"] == "frames":
            record["per_clip"]["ssim"] = record["per_clip"]["psnr"]
            write_json(path, record)
    chosen = settings(columns=[column_of(metric) for metric in (*METRICS, "ssim")])
    table, _ = score_table("memory", chosen, Scores(files))
    assert not any(cell.dagger for row in table.rows for cell in row.cells.values())
    assert "below 0.07, so that no mark is possible" in table.notes[0]
    chosen = settings(columns=[column_of("frechet")])
    table, _ = score_table("memory", chosen, Scores(files))
    assert "Nothing is tested." in table.notes[0]


def test_distances_of_networks_that_see_no_time_are_of_frames(
    files: list[Path], tmp_path: Path
) -> None:
    for path in files:
        record = read_json(path)
        if record["family"] == "sets":
            record["networks"] = {"frechet": {"network": "efficientnet_lite0"}}
            write_json(path, record)
    test = tmp_path / "content_bias.json"
    found = {
        "EfficientNet-Lite0": {"details": {"network": "efficientnet_lite0"}, "passes": False},
        "TransNetV2": {"details": {"network": "TransNetV2"}, "passes": True},
    }
    write_json(test, {"networks": found, "provenance": {}})
    blind = blind_networks(test)
    assert blind == {"efficientnet_lite0"}
    table, _ = score_table("memory", settings(), Scores(files), blind=blind)
    labels = {column.key: column.label for column in table.columns}
    assert "of frames" in labels["spin_kernel_efficientnet_lite0"]
    assert "of frames" not in labels["spin_psnr"]
    assert "fails the content-bias test" in table.notes[0]
    seeing, _ = score_table("memory", settings(), Scores(files), blind={"other"})
    assert not any("of frames" in column.label for column in seeing.columns)
    assert "content-bias" not in seeing.notes[0]


def test_floors_that_no_method_beats_are_named(files: list[Path]) -> None:
    assert not [note for note in build(files)[0].notes if "floor ``" in note]
    change_clips(files, "still", psnr=[25.0] * CLIPS, perceptual=[0.04] * CLIPS)
    # better than 22 dB, the best method; the oracle's 30 are a bound
    assert [note for note in build(files)[0].notes if "floor ``" in note] == [
        r"No method beats the floor ``still'' in spin PSNR, spin EfficientNet-Lite0 dist."
    ]
    change_clips(files, "still", psnr=[100.0] * CLIPS, perceptual=[1.0] * CLIPS)
    table = build(files)[0]
    assert not [note for note in table.notes if "floor ``" in note]
    assert r"\textit{still} & exact" in table_latex(table)


def test_what_is_better_than_the_reference_is_named_with_where(files: list[Path]) -> None:
    # `oracle` is a bound; `hardly` does not differ beyond chance
    assert build(files)[0].notes[-1] == (
        "Better than ``without'' beyond chance: ``with'' "
        "(spin PSNR, spin EfficientNet-Lite0 dist.)."
    )
    change_clips(files, "memory", psnr=[1.0] * CLIPS, perceptual=[0.9] * CLIPS)
    assert build(files)[0].notes[-1] == "No method is better than ``without'' beyond chance."


def test_every_cell_leads_to_its_run(files: list[Path]) -> None:
    _, provenance = build(files)
    cell = provenance["cells"]["with"]["spin_psnr"]
    of_memory = [p for p in files if p.parent.name.startswith("memory")]
    assert cell["scores"] == [p.as_posix() for p in of_memory if p.stem == "frames"]
    kernel = provenance["cells"]["with"]["spin_kernel_efficientnet_lite0"]
    assert kernel["scores"] == [p.as_posix() for p in of_memory if p.stem == "sets"]
    for seed, path in enumerate(cell["scores"]):
        entry = provenance["scores"][path]
        assert entry["sha256"] == sha256_file(path) and entry["version"] == 4
        assert entry["settings"] == digest({"family": "frames"}) and entry["clips"] == "cc"
        assert entry["rollout"] == {"sha256": "aa", "version": 3, "settings": "bb"}
        told = run_of("memory", seed)
        assert entry["run"] == told.pop("tag")
        assert provenance["runs"][entry["run"]] == told


def test_a_run_is_named_after_its_checkpoint(tmp_path: Path) -> None:
    assert run_tag("tiny", "base", 3, "0123456789abcdef" * 4) == "tiny/base/seed3/0123456789ab"
    record = tmp_path / "checkpoint.json"
    made_by = {"stage": "training", "version": 2, "settings": {"x": 1}, "inputs": {"plan": "ee"}}
    write_record(record, made_by, {"variant": "a", "seed": 1, "weights": {"control": "dd"}})
    sha256 = sha256_file(record)
    assert trained_run(tmp_path, "tiny") == {
        "tag": run_tag("tiny", "a", 1, sha256),
        "checkpoint": {"path": str(record), "sha256": sha256},
        "weights": {"control": "dd"},
        "inputs": {"plan": "ee"},
        "settings": digest({"x": 1}),
        "version": 2,
    }


def test_scores_that_do_not_belong_together_are_refused(files: list[Path], tmp_path: Path) -> None:
    scores = files
    with pytest.raises(InputError, match=r"bound, spin, seeds \[1\]"):
        score_table("memory", settings(), Scores(scores[:-3]))
    frames = [path for path in scores if path.stem != "sets"]
    with pytest.raises(InputError, match="no sets scores of still, spin, seed 0 were given"):
        score_table("memory", settings(), Scores(frames))
    with pytest.raises(InputError, match="of the same run"):
        Scores([*scores, scores[0]])
    odd, content = tmp_path / "odd.json", read_json(next(p for p in scores if p.stem == "sets"))
    made_by = content["provenance"] | {"settings": {"family": "other"}}
    for name, change in (
        ("clips", {"clips": ["other"]}),
        ("frames", {"frames": 4}),
        ("names", {"names": {}}),
        ("networks", {"networks": {"frechet": {"network": "other"}}}),
        ("settings", {"provenance": made_by}),
    ):
        write_json(odd, {**content, "seed": 9, **change})
        with pytest.raises(InputError, match=f"differ in {name}"):
            Scores([*scores, odd])
    # other families may have other settings, but not other clips
    write_json(odd, {**content, "seed": 9, "family": "other", "provenance": made_by})
    Scores([*scores, odd])
    write_json(odd, {**content, "seed": 9, "family": "other", "clips": ["other"]})
    with pytest.raises(InputError, match="differ in clips"):
        Scores([*scores, odd])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        # what a column is headed by, the registry and the network that was really used say
        ({"columns": [column_of("perceptual", label="LPIPS")]}, "label\n.*not permitted"),
        ({"columns": [column_of("psnr", unit="m")]}, "unit\n.*not permitted"),
        ({"columns": [column_of("psnr", better="lower")]}, "better\n.*not permitted"),
        ({"columns": [column_of("fvd")]}, "the metric is none of"),
        ({"rows": [{"variant": "base", "label": "same"}] * 2}, "labels repeat"),
    ],
)
def test_misleading_tables_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**change)


def test_the_teacher_stands_beside_what_knows_nothing() -> None:
    pose = {"rotation_deg": 2.0, "direction_deg": 10.0, "translation": 0.1}
    metrics = {
        "clips": 4,
        "frames": 3,
        "stride": 5,
        "depth": {
            "teacher": {"abs_rel": 0.1, "delta_125": 0.9},
            "mean_depth": {"abs_rel": 0.4, "delta_125": 0.3},
        },
        "pose": {"teacher": pose, "identity": {name: 9 * x for name, x in pose.items()}},
    }
    made = teacher_table(TeacherTableJob(scale="tiny", stands_in="a", teacher="small_one"), metrics)
    blind, teacher = csv.DictReader(table_csv(made).splitlines())
    assert (teacher["abs_rel"], blind["abs_rel"]) == ("0.1", "0.4")
    assert (teacher["rotation_deg"], blind["rotation_deg"]) == ("2.0", "18.0")
    assert r"\textbf{0.900}" in table_latex(made) and r"small\_one" in table_latex(made)


def test_the_command_writes_the_same_bytes_again(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobSettings, "table", lambda self, name: settings())
    outputs = ("t.csv", "t.tex", "v.json", "t.json")
    for folder in ("one", "two"):
        names = [str(tmp_path / folder / name) for name in outputs]
        command = ["paper", "table", "ablation_table2", "--root", str(ROOT), "--scale", "tiny"]
        command += ["--scores", *map(str, files)]
        command += [
            "--csv",
            names[0],
            "--tex",
            names[1],
            "--values",
            names[2],
            "--provenance",
            names[3],
        ]
        command += ["--published", f"{ROOT}/config/published_numbers.csv"]
        monkeypatch.setattr(sys, "argv", command)
        stage.main()
    first, second = ([(tmp_path / f / n).read_bytes() for n in outputs] for f in ("one", "two"))
    assert first == second and b"textbf" in first[1]
    made_by = json.loads(first[3])["provenance"]
    assert made_by["stage"] == "paper" and digest(made_by["settings"]) == settings().digest
    assert set(made_by["inputs"]) == {"scores", "published", "template"}
    monkeypatch.setattr(sys, "argv", ["paper", "table", "table9", *command[3:]])
    with pytest.raises(SystemExit, match="'table9' is none of the tables"):
        stage.main()


def test_without_latex_the_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install latexmk texlive-latex-base"):
        compile_paper(ROOT / "paper/main.tex", tmp_path / "main.pdf", results=tmp_path)


def test_the_first_fault_of_a_log_is_found() -> None:
    assert first_fault("This is pdfTeX\n./main.tex:3: Undefined control sequence.\n! More") == (
        "./main.tex:3: Undefined control sequence."
    )
    assert first_fault("LaTeX Warning: Citation `x' on page 1 undefined") == (
        "Citation `x' is undefined"
    )
    assert first_fault("LaTeX Font Warning: Size substitutions\nOutput written") == ""


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("latexmk") and shutil.which("pdflatex")), reason="latexmk is not installed"
)
def test_the_paper_compiles_to_the_same_bytes(files: list[Path], tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from geomem.paper.figures import save_figure

    shutil.copytree(ROOT / "paper", tmp_path / "paper", ignore=shutil.ignore_patterns("*.pdf"))
    results = tmp_path / "results/tiny"
    facts = JobSettings(load_config(ROOT, scale="tiny")).facts()
    (results / "tables").mkdir(parents=True)
    (results / "tables/facts.tex").write_text(facts_latex(facts))
    for name in ("qualitative", "per_frame_psnr"):
        save_figure(Figure(figsize=(2, 1)), results / f"figures/{name}.pdf")
    latex = table_latex(build(files)[0])
    for name in ("ablation_table2", "teacher_table"):
        (results / f"tables/{name}.tex").write_text(latex.replace("tab:memory", f"tab:{name}"))
    source, pdfs = tmp_path / "paper/main.tex", [tmp_path / "a.pdf", tmp_path / "b.pdf"]
    for pdf in pdfs:
        compile_paper(source, pdf, results=results)
    assert pdfs[0].read_bytes() == pdfs[1].read_bytes()
    assert pdfs[0].read_bytes().startswith(b"%PDF")
    assert sorted(p.name for p in (tmp_path / "paper").iterdir()) == sorted(
        p.name for p in (ROOT / "paper").iterdir() if p.suffix != ".pdf"
    )
