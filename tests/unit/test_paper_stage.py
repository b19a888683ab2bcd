"""Tables, figures and the PDF from small score files: every number is recomputed or traced."""

import csv
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomem.config import JobSettings, load_config
from geomem.formats import (
    ClipInfo,
    InputError,
    digest,
    read_json,
    sha256_file,
    write_clip_shard,
    write_json,
    write_videos,
)
from geomem.formats.records import write_record
from geomem.formats.runs import run_tag
from geomem.metrics.families import perceptual, sets
from geomem.paper import __main__ as stage
from geomem.paper.collect import Scores
from geomem.paper.drawings import frame_curves, revisits, strip
from geomem.paper.facts import facts_latex
from geomem.paper.latex import compile_paper, first_fault
from geomem.paper.results import score_table, teacher_table
from geomem.paper.tables import Table, table_csv, table_latex
from geomem.settings.evaluation import TableSettings
from geomem.settings.jobs import FigureJob, TableJob, TeacherTableJob

ROOT = Path(__file__).parents[2]
CLIPS, SEEDS = 8, (0, 1)
METRICS = ("psnr", "perceptual", "frechet", "kernel_distance", "forgetting")
VARIANTS = {"still": 15.0, "base": 20.0, "memory": 22.0, "weak": 20.01, "bound": 30.0}
ROWS: list[dict[str, Any]] = [
    {"variant": "still", "label": "still"},
    {"variant": "base", "label": "without"},
    {"variant": "memory", "label": "with"},
    {"variant": "weak", "label": "hardly"},
    {"variant": "bound", "label": "oracle", "bound": True},
]
NAMES: dict[str, dict[str, Any]] = {
    "frames": {},
    "perceptual": {"perceptual": asdict(perceptual.NAMES["efficientnet_lite0_distance"])},
    "sets": {
        "frechet": asdict(sets.NAMES["frechet_efficientnet_lite0"]),
        "kernel_distance": asdict(sets.NAMES["kernel_efficientnet_lite0"]),
    },
}
Files = tuple[list[Path], list[Path]]


def column_of(metric: str, **changes: Any) -> dict[str, Any]:
    return {"metric": metric, "protocol": "spin", "precision": 2, **changes}


def settings(**table: Any) -> TableJob:
    shown = {
        "caption": "Some caption.",
        "reference": "base",
        "rows": ROWS,
        "columns": [column_of(metric) for metric in METRICS],
        **table,
    }
    return TableJob(
        table=TableSettings.model_validate(shown),
        floors=("still",),
        scale="tiny",
        seeds=SEEDS,
        stands_in="this stands in for that",
        teacher="vggt_small",
        bootstrap=200,
    )


def psnr_of(variant: str, seed: int) -> np.ndarray:
    if variant == "still":
        return np.full(CLIPS, 15.0)
    noise = np.random.default_rng([list(VARIANTS).index(variant) - 1, seed]).normal(0, 0.2, CLIPS)
    return np.round(VARIANTS[variant] + noise, 4)


def score_records(variant: str, seed: int, checkpoint: str) -> dict[str, dict[str, Any]]:
    """Return the score files of a run by family."""
    values = psnr_of(variant, seed)
    pseudo = np.linspace(8, 10, CLIPS) + seed + 90 * (variant == "still")
    kernel = {"value": float(pseudo.mean()), "clips": CLIPS, "pseudovalues": pseudo.tolist()}
    found: dict[str, dict[str, Any]] = {
        "frames": {
            "per_clip": {"psnr": values.tolist(), "forgetting": [None] * CLIPS},
            "per_frame": {
                "psnr": [[v, v - 1, v - 2, v - 3] for v in values.tolist()],
                "coverage": [[None if variant == "base" else 0.5] * 4] * CLIPS,
            },
        },
        "perceptual": {"per_clip": {"perceptual": (1 / values).tolist()}},
        "sets": {"sets": {"frechet": None, "kernel_distance": kernel, "frechet_infinite": None}},
    }
    return {
        family: {
            "variant": variant,
            "seed": seed,
            "protocol": "spin",
            "clips": [f"c{i}" for i in range(CLIPS)],
            "family": family,
            "names": NAMES[family],
            "networks": {},
            "frames": 5,
            "context": 1,
            "per_clip": {},
            "per_frame": {},
            "sets": {},
            **content,
            "rollout": {"version": 3, "settings": "bb", "checkpoint": checkpoint},
            "provenance": {
                "stage": "scores",
                "version": 4,
                "settings": {"family": family},
                "inputs": {"rollout": "aa", "clips": "cc"},
            },
        }
        for family, content in found.items()
    }


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Return score files and the checkpoint records behind them."""
    scores, checkpoints = [], []
    for variant in VARIANTS:
        for seed in SEEDS:
            checkpoint = tmp_path / f"checkpoints/{variant}{seed}.json"
            made_by = {"stage": "training", "version": 2, "settings": {"x": 1}}
            write_record(
                checkpoint,
                {**made_by, "inputs": {"plan": "ee"}},
                {"variant": variant, "seed": seed, "weights": {"control": "dd"}},
            )
            for family, content in score_records(variant, seed, sha256_file(checkpoint)).items():
                path = tmp_path / f"scores/{variant}{seed}/{family}.json"
                write_json(path, content)
                scores.append(path)
            checkpoints.append(checkpoint)
    return scores, checkpoints


def change_clips(files: Files, variant: str, **values: list[float]) -> None:
    """Give a variant other values of each clip by metric."""
    for path in files[0]:
        record = read_json(path)
        changed = {m: v for m, v in values.items() if m in record["per_clip"]}
        if record["variant"] == variant and changed:
            record["per_clip"] |= changed
            write_json(path, record)


def build(files: Files) -> tuple[Table, dict[str, Any]]:
    return score_table("memory", settings(), Scores(files[0]), files[1])


def test_cells_are_means_over_clips_and_seeds(files: Files) -> None:
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
    files: Files,
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
    arguments = ("memory", chosen, Scores(files[0]), files[1])
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
    files: Files,
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


def test_notes_tell_how_intervals_and_tests_are_made(files: Files) -> None:
    [note] = build(files)[0].notes
    assert "studentised interval over clips and seeds" in note and "200 resamples" in note
    assert "jackknife" in note and "fewer than 40 clips" in note
    assert "one Holm correction over the 6 tests of the table" in note
    assert "at most 8 clips no corrected $p$ can lie below 0.047. " in note
    assert r"differs from ``without''" in note


def test_a_table_of_more_tests_than_its_clips_can_bear_says_so(
    files: Files,
) -> None:
    for path in files[0]:
        record = read_json(path)
        if record["family"] == "frames":
            record["per_clip"]["ssim"] = record["per_clip"]["psnr"]
            write_json(path, record)
    chosen = settings(columns=[column_of(metric) for metric in (*METRICS, "ssim")])
    table, _ = score_table("memory", chosen, Scores(files[0]), files[1])
    assert not any(cell.dagger for row in table.rows for cell in row.cells.values())
    assert "below 0.07, so that no mark is possible" in table.notes[0]
    chosen = settings(columns=[column_of("frechet")])
    table, _ = score_table("memory", chosen, Scores(files[0]), files[1])
    assert "Nothing is tested." in table.notes[0]


def test_floors_that_no_method_beats_are_named(files: Files) -> None:
    assert not [note for note in build(files)[0].notes if "floor ``" in note]
    change_clips(files, "still", psnr=[25.0] * CLIPS, perceptual=[0.04] * CLIPS)
    # better than 22 dB, the best method; the oracle's 30 are a bound
    assert build(files)[0].notes[1:] == [
        r"No method beats the floor ``still'' in spin PSNR, spin EfficientNet-Lite0 dist."
    ]
    change_clips(files, "still", psnr=[100.0] * CLIPS, perceptual=[1.0] * CLIPS)
    table = build(files)[0]
    assert table.notes[1:] == [] and r"\textit{still} & exact" in table_latex(table)


def test_every_cell_leads_to_its_run(files: Files) -> None:
    scores, checkpoints = files
    _, provenance = build(files)
    cell = provenance["cells"]["with"]["spin_psnr"]
    of_memory = [p for p in scores if p.parent.name.startswith("memory")]
    assert cell["scores"] == [p.as_posix() for p in of_memory if p.stem == "frames"]
    kernel = provenance["cells"]["with"]["spin_kernel_efficientnet_lite0"]
    assert kernel["scores"] == [p.as_posix() for p in of_memory if p.stem == "sets"]
    for seed, path in enumerate(cell["scores"]):
        entry = provenance["scores"][path]
        assert entry["sha256"] == sha256_file(path) and entry["version"] == 4
        assert entry["settings"] == digest({"family": "frames"}) and entry["clips"] == "cc"
        assert entry["rollout"] == {"sha256": "aa", "version": 3, "settings": "bb"}
        checkpoint = next(p for p in checkpoints if p.stem == f"memory{seed}")
        assert entry["run"] == run_tag("tiny", "memory", seed, sha256_file(checkpoint))
        run = provenance["runs"][entry["run"]]
        assert run["checkpoint"] == {"path": str(checkpoint), "sha256": sha256_file(checkpoint)}
        assert (run["weights"], run["inputs"]) == ({"control": "dd"}, {"plan": "ee"})
        assert run["settings"] == digest({"x": 1}) and run["version"] == 2
    assert provenance["settings"] == settings().digest


def test_a_run_is_named_after_its_checkpoint() -> None:
    assert run_tag("tiny", "base", 3, "0123456789abcdef" * 4) == "tiny/base/seed3/0123456789ab"


def test_scores_that_do_not_belong_together_are_refused(files: Files, tmp_path: Path) -> None:
    scores, checkpoints = files
    with pytest.raises(InputError, match=r"bound, spin, seeds \[1\]"):
        score_table("memory", settings(), Scores(scores[:-3]), checkpoints)
    frames = [path for path in scores if path.stem != "sets"]
    with pytest.raises(InputError, match="no sets scores of still, spin, seed 0 were given"):
        score_table("memory", settings(), Scores(frames), checkpoints)
    with pytest.raises(InputError, match="not there any more"):
        score_table("memory", settings(), Scores(scores), checkpoints[:-1])
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


CONTEXTS = {"spin": 1, "out_and_back": 1, "walk_long": 1}


def figure_settings(**figure: Any) -> FigureJob:
    return FigureJob.model_validate(
        {"figure": figure, "seeds": SEEDS, "floors": (), "contexts": CONTEXTS, "bootstrap": 50}
    )


def test_curves_show_the_mean_of_every_frame(files: Files) -> None:
    rows = [{"variant": "base", "label": "without"}, {"variant": "memory", "label": "with"}]
    metrics = ["psnr", "coverage"]
    chosen = figure_settings(kind="curves", protocols=["spin"], metrics=metrics, rows=rows)
    figure, provenance = frame_curves(chosen, Scores(files[0]), files[1], scale="tiny")
    psnr, coverage = figure.axes
    mean = np.mean([psnr_of("memory", seed) for seed in SEEDS])
    assert psnr.lines[1].get_ydata() == pytest.approx([mean, mean - 1, mean - 2, mean - 3])
    assert psnr.lines[1].get_xdata().tolist() == [1, 2, 3, 4]
    # Without a memory there is no coverage; the other keeps its look.
    assert len(coverage.lines) == 1
    assert coverage.lines[0].get_color() == psnr.lines[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["without", "with"]
    assert len(provenance["runs"]) == 4


def test_a_metric_of_some_frames_is_drawn_where_it_is_known(files: Files, tmp_path: Path) -> None:
    content = read_json(next(path for path in files[0] if path.stem == "perceptual"))
    content["per_frame"]["perceptual"] = [[0.25, None, 0.5, None]] * CLIPS
    write_json(tmp_path / "score.json", content)
    rows = [{"variant": content["variant"], "label": "one"}]
    chosen = figure_settings(kind="curves", protocols=["spin"], metrics=["perceptual"], rows=rows)
    chosen = chosen.model_copy(update={"seeds": (content["seed"],)})
    figure, _ = frame_curves(chosen, Scores([tmp_path / "score.json"]), files[1], scale="tiny")
    line = figure.axes[0].lines[0]
    assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == ([1, 3], [0.25, 0.5])
    assert figure.axes[0].get_ylabel() == "E-Lite0 distance"


def test_revisits_are_found_by_the_cameras(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 8, 3), dtype=np.uint8)
    cameras = np.zeros((1, 8, 16), dtype=np.float32)
    cameras[0, :, 7] = [0, 1, 2, 3, 3, 2, 1, 0]
    clips = [ClipInfo(clip_id="a", scene="a", trajectory="x")]
    shard = tmp_path / "clips/shard-000"
    write_clip_shard(shard, rgb=rgb, cam=cameras, depth=None, clips=clips, provenance={})
    record = {"variant": "base", "seed": SEEDS[0], "protocol": "spin", "clips": ["a"]}
    write_videos(tmp_path / "base", rgb // 2, {}, record)
    rows = [{"variant": "base", "label": "without"}]
    chosen = figure_settings(
        kind="revisits", protocol="spin", clip=0, visits=[0.15, 0.3], rows=rows
    )
    drawn, provenance = revisits(chosen, [tmp_path / "base"], tmp_path / "clips")
    assert provenance["pairs"] == [(1, 6), (2, 5)]
    images = [np.asarray(axis.images[0].get_array()) for axis in drawn.axes]
    assert np.array_equal(images[1], rgb[0, 6]) and np.array_equal(images[7], rgb[0, 6] // 2)


def test_a_strip_may_show_the_clip_of_the_median_gain_and_mostly_generated_frames(
    tmp_path: Path,
) -> None:
    rgb = np.full((3, 8, 8, 8, 3), 100, dtype=np.uint8)
    clips = [ClipInfo(clip_id=name, scene=name, trajectory="x") for name in "abc"]
    cameras = np.zeros((3, 8, 16), dtype=np.float32)
    shard = tmp_path / "clips/shard-000"
    write_clip_shard(shard, rgb=rgb, cam=cameras, depth=None, clips=clips, provenance={})
    record = {"protocol": "spin", "clips": [clip.clip_id for clip in clips]}
    folders = []
    # the other seed, given first, would show clip a
    for seed, gains in ((SEEDS[1], [20, 2, 40]), (SEEDS[0], [2, 40, 20])):
        for variant, errors in (("base", [40, 40, 40]), ("memory", gains)):
            made = rgb + np.array(errors, dtype=np.uint8)[:, None, None, None, None]
            made[:, :4] = 0  # given frames do not count
            folders.append(tmp_path / f"{variant}{seed}")
            write_videos(folders[-1], made, {}, record | {"variant": variant, "seed": seed})
    chosen = figure_settings(
        kind="strip",
        protocol="spin",
        frames=5,
        given=2,
        clip={"gain_of": "memory", "over": "base"},
        rows=[{"variant": "base", "label": "without"}, {"variant": "memory", "label": "with"}],
    ).model_copy(update={"contexts": {"spin": 4}})
    figure, provenance = strip(chosen, folders, tmp_path / "clips")
    assert provenance["clip"] == "c"
    assert provenance["frames"] == [0, 3, 4, 6, 7]
    assert (np.asarray(figure.axes[14].images[0].get_array()) == 120).all()


def test_a_strip_shows_the_first_seed_of_the_right_clip(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 8, 3), dtype=np.uint8)
    ids = ["a", "b"]
    write_clip_shard(
        tmp_path / "clips/shard-000",
        rgb=rgb,
        cam=np.zeros((2, 5, 16), dtype=np.float32),
        depth=None,
        clips=[ClipInfo(clip_id=name, scene=name, trajectory="x") for name in ids],
        provenance={},
    )
    folders = []
    for seed in SEEDS:
        record = {"variant": "base", "seed": seed, "protocol": "spin", "clips": ids}
        write_videos(tmp_path / f"base{seed}", rgb // (seed + 2), {}, record)
        folders.append(tmp_path / f"base{seed}")
    rows = [{"variant": "base", "label": "without"}]
    chosen = figure_settings(kind="strip", protocol="spin", clip=1, frames=3, rows=rows)
    figure, provenance = strip(chosen, folders, tmp_path / "clips")
    images = [np.asarray(axis.images[0].get_array()) for axis in figure.axes]
    for image, frame in zip(images, (0, 2, 4), strict=False):
        assert np.array_equal(image, rgb[1, frame])
    assert np.array_equal(images[5], rgb[1, 4] // 2)
    assert (provenance["clip"], provenance["frames"]) == ("b", [0, 2, 4])
    rows = [{"variant": "memory", "label": "with"}]
    other = figure_settings(kind="strip", protocol="spin", clip=1, frames=3, rows=rows)
    with pytest.raises(InputError, match="memory"):
        strip(other, folders, tmp_path / "clips")
    write_videos(tmp_path / "base0", rgb, {}, {**record, "clips": ["b", "a"]})
    with pytest.raises(InputError, match="other clips"):
        strip(chosen, folders, tmp_path / "clips")


def test_the_command_writes_the_same_bytes_again(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JobSettings, "table", lambda self, name: settings())
    scores, checkpoints = ([str(path) for path in paths] for paths in files)
    outputs = ("t.csv", "t.tex", "v.json", "t.json")
    for folder in ("one", "two"):
        names = [str(tmp_path / folder / name) for name in outputs]
        command = ["paper", "table", "ablation_table2", "--root", str(ROOT), "--scale", "tiny"]
        command += ["--scores", *scores, "--checkpoints", *checkpoints]
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
def test_the_paper_compiles_to_the_same_bytes(files: Files, tmp_path: Path) -> None:
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
