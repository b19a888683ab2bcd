"""The results site: tables as in the paper, sources, claims, videos; one folder, no server."""

import base64
import csv
import hashlib
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from markupsafe import Markup
from PIL import Image

from conftest import ROOT
from geomem.commands.main import main
from geomem.formats import ClipStore, read_json, read_videos, write_json
from geomem.paper.tables import escape_latex, format_number
from geomem.site.latex import html_of, text_of
from geomem.site.media import columns_of, draw_curves, packed_cloud, scene_cloud, write_sprite
from geomem.site.pages import in_script
from geomem.site.tables import read_table
from site_run import CONTEXT, FRAMES, LAYOUT, MEDIAN, PROTOCOL, SHADES, SIDE, make_run, write_clouds

TABLES = ROOT / "results/tiny/tables"
NAMES = sorted(path.stem for path in TABLES.glob("*.csv"))
# namespaces and a licence, which nothing is loaded from
NOT_LOADED = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xhtml")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def site(run: Path) -> Path:
    return make_site(run, run / "site")


def make_site(root: Path, folder: Path) -> Path:
    main(["site", "--root", str(root), "--output", str(folder)])
    return folder


def sums(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def script(page: str, name: str) -> object:
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', page)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.parametrize("name", NAMES)
def test_every_number_is_shown_as_in_the_csv_and_no_latex_is_left(name: str) -> None:
    table = read_table(TABLES, name)
    with (TABLES / f"{name}.csv").open() as file:
        records = list(csv.DictReader(file))
    for row, record in zip(table.rows, records, strict=True):
        assert row.shown.striptags() == row.label == record["row"]
        for cell in row.cells:
            shown = cell.shown.striptags().replace("\u2212", "-")
            if cell.number is None:
                assert shown == "\u2013"
            elif shown != "exact":
                number = shown.removesuffix("\u2020")
                decimals = len(number.partition(".")[2])
                assert number == format_number(cell.number, decimals)
                assert ("\u2020" in shown) == (record[f"{cell.key}_significant"] == "True")
                low = record[f"{cell.key}_low"]
                assert bool(cell.interval) == bool(low)
                if low:
                    expected = f"[{format_number(float(low), decimals)},"
                    assert cell.interval.replace("\u2212", "-").startswith(expected)
    said = [table.caption, table.corner, *table.headings, *table.notes, *table.statements.values()]
    assert not [text for text in said if re.search(r"[\\${}]", text)]


def test_the_best_is_bold_floors_are_in_italics_and_groups_span_their_columns() -> None:
    table = read_table(TABLES, "ablation_table2")
    assert table.groups == (("spin", 3), ("orbit", 3), ("out and back", 3))
    [best] = [row for row in table.rows if row.label == "3D memory of 4 frames"]
    assert [cell.shown for cell in best.cells if cell.key == "out_and_back_truth_psnr"] == [
        "<strong>25.12</strong>"
    ]
    assert table.rows[0].shown == "<em>last given frame repeated</em>"
    assert table.head_of(3) == ("orbit", "revisit PSNR [dB]\u2009\u2191")


@pytest.mark.parametrize(
    "text", ["a & b", "50 % of #1_x", "<script>", "a^b~c\\d", "[x] * y", "{$}", 'say "no"', "a--b"]
)
def test_what_the_paper_escapes_is_shown_as_it_was_and_cannot_be_html(text: str) -> None:
    html = html_of(escape_latex(text))
    shown = text.replace('"', "\u201d").replace("--", "\u2013")
    assert unescape(html) == shown
    assert "<" not in html and html == str(Markup.escape(shown))


@pytest.mark.parametrize(
    ("latex", "html"),
    [
        (r"\textbf{1 < \textit{2}}", "<strong>1 &lt; <em>2</em></strong>"),
        (r"{\scriptsize [$-$1.0, 2]}", "<small>[\u22121.0, 2]</small>"),
        (r"12.3\rlap{$^{\dagger}$}", "12.3\u2020"),
        (r"\shortstack{Efficient-\\Net dist.\\of frames}", "Efficient-Net dist. of frames"),
        (r"$10^{-4}$ and $x_2$", "10<sup>\u22124</sup> and x<sub>2</sub>"),
        (r"\unknown{kept}", "kept"),
    ],
)
def test_the_latex_of_tables_is_shown(latex: str, html: str) -> None:
    assert html_of(latex) == html
    assert text_of(latex) == unescape(re.sub("<.*?>", "", html))


def test_files_that_are_not_of_one_table_are_refused(tmp_path: Path) -> None:
    for name in NAMES[:1]:
        shutil.copy(TABLES / f"{name}.tex", tmp_path)
        lines = (TABLES / f"{name}.csv").read_text().splitlines()
        (tmp_path / f"{name}.csv").write_text("\n".join(lines[:-1]) + "\n")
        with pytest.raises(Exception, match="not of one table; delete both"):
            read_table(tmp_path, name)


def test_a_cell_tells_its_score_file_videos_checkpoint_plan_and_commands(site: Path) -> None:
    page = (site / "table-ablation_table2_replay.html").read_text()
    table = read_table(TABLES, "ablation_table2_replay")
    record = read_json(ROOT / "results/tiny/provenance/ablation_table2_replay.json")
    row = [each.label for each in table.rows].index("3D memory of 4 frames")
    cells = script(page, "cells")
    assert isinstance(cells, dict)
    cell = cells[f"{row}-0"]
    assert cell["title"] == ["3D memory of 4 frames", "spin replay", "PSNR [dB] \u2191"]
    known = record["cells"]["3D memory of 4 frames"]["spin_replay_psnr"]
    assert ["value", str(known["value"])] in cell["facts"]
    [path] = known["scores"]
    [number] = cell["sources"]
    found = re.search(
        rf'<section class="source" id="source-{number}".*?</section>', page, re.DOTALL
    )
    assert found is not None
    text = unescape(found[0])
    score = record["scores"][path]
    run = record["runs"][score["run"]]
    for wanted in (
        path,
        score["sha256"],
        score["rollout"]["sha256"],
        "results/tiny/rollouts/memory_4/seed0/spin_replay",
        run["checkpoint"]["path"],
        run["checkpoint"]["sha256"],
        run["inputs"]["plan"],
        *run["weights"].values(),
        f"snakemake {path}",
    ):
        assert wanted in text, wanted
    assert "snakemake results/ablation_table2_replay.tex" in page
    assert len(cells) == sum(len(row.cells) for row in table.rows)


def test_claims_are_told_as_they_came_out(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "config", tmp_path / "config")
    shutil.copytree(run / "results/tiny", tmp_path / "results/tiny")
    path = tmp_path / "results/tiny/provenance/ablation_table2_replay.json"
    record = read_json(path)
    record["statements"]["memory_in_replay"][0]["verdict"] = "worse"
    del record["statements"]["memory_over_splat"]
    write_json(path, record)
    shutil.rmtree(tmp_path / "results/tiny/rollouts")
    folder = make_site(tmp_path, tmp_path / "site")
    page = (folder / "table-ablation_table2_replay.html").read_text()
    sections = re.findall(r'<section class="said" id="(\w+)"(.*?)</section>', page, re.DOTALL)
    outcome = {name: re.findall(r'class="verdict (\w+)"', said) for name, said in sections}
    assert outcome["memory_in_replay"] == ["no"]
    assert outcome["memory_over_splat"] == ["open"]
    assert outcome["memory_and_raw_in_replay"] == ["yes"]
    assert outcome["memory_and_splat_in_replay"] == []
    first = (folder / "index.html").read_text()
    assert "Of 14 claims 12 hold, 1 do not, 1 are not made." in " ".join(first.split())


def test_without_videos_it_says_what_brings_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    folder = make_site(tmp_path, tmp_path / "site")
    page = (folder / "index.html").read_text()
    assert "No generated videos are here" in page and "None is made" in page
    assert "snakemake results/tiny/videos/spin_clips.mp4" in page
    assert "Git does not say when" in page
    assert not (folder / "media").exists()
    assert "not shown" not in capsys.readouterr().out


def test_videos_without_their_clips_are_told_and_nothing_fails(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run / "config", tmp_path / "config")
    shutil.copytree(run / "results/tiny", tmp_path / "results/tiny")
    folder = make_site(tmp_path, tmp_path / "site")
    assert f"not shown: {PROTOCOL}: " in capsys.readouterr().out
    assert "These cannot be shown" in (folder / "index.html").read_text()


def test_a_sprite_has_every_frame_of_the_clip_that_the_rule_chooses(run: Path, site: Path) -> None:
    page = (site / f"videos-{PROTOCOL}.html").read_text()
    [shards] = (run / "data/tiny/clips").rglob("shard-000")
    assert ClipStore(shards.parent).clips[MEDIAN].clip_id in page
    sprites = dict(re.findall(r'data-index="(\d+)" data-sprite="([\w/.-]+)"', page))
    assert len(sprites) == 1 + len(SHADES)
    labels = re.findall(r'data-shows="(\d+)"[^>]*> ([^<]+)</label>', page)
    [index] = [number for number, label in labels if label == "ours, 3D memory of 4 frames"]
    rgb, _ = read_videos(run / LAYOUT.rollout("memory_4", 0, PROTOCOL))
    sheet = np.asarray(Image.open(site / sprites[index]).convert("RGB"))
    columns = columns_of(FRAMES)
    for frame in range(FRAMES):
        top, left = frame // columns * SIDE, frame % columns * SIDE
        shown = sheet[top : top + SIDE, left : left + SIDE]
        assert np.array_equal(shown, rgb[MEDIAN, frame]), frame


def test_curves_are_of_this_clip_and_of_these_videos(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(run, root, ignore=shutil.ignore_patterns("site"))
    path = root / LAYOUT.scores("memory_empty", 0, PROTOCOL, "frames")
    scores = read_json(path)
    scores["provenance"]["inputs"]["rollout"] = "0" * 64
    write_json(path, scores)
    page = (make_site(root, tmp_path / "site") / f"videos-{PROTOCOL}.html").read_text()
    assert len(re.findall("<polyline data-video=", page)) == len(SHADES) - 1
    assert "Without scores of these videos here: ours, without memory" in page
    lowest, highest = 20 + MEDIAN, 20 + MEDIAN + FRAMES - CONTEXT - 1
    assert f'text-anchor="end">{lowest}</text>' in page
    assert f'text-anchor="end">{highest}</text>' in page


def test_a_copy_does_not_press_other_curves_together() -> None:
    drawn = draw_curves(
        {0: [None, 100.0, 20.0], 1: [None, 10.0, 15.0]}, label="x", frames=range(1, 3), cap=100
    )
    assert 'text-anchor="end">20</text>' in drawn and "100" not in re.findall(
        r">(\d+)</text>", drawn
    )
    [copy, _] = re.findall(r'points="([^"]*)"', drawn)
    first, second = (float(point.split(",")[1]) for point in copy.split())
    assert first == second  # at the upper edge, like the best of the others


def test_points_of_a_wall_lie_on_it_and_the_camera_before_it() -> None:
    frames, side = 3, 8
    cameras = np.zeros((frames, 16), np.float32)
    cameras[:, :4] = [0.5, 0.5, 0.5, 0.5]
    cameras[:, [4, 9, 14]] = 1
    cameras[:, 7] = -1.0 * np.arange(frames)  # one unit to the right each frame
    depth = np.full((frames, side, side), 2, np.float32)
    depth[0, 0, 0] = np.inf  # no surface
    rgb = np.full((frames, side, side, 3), 7, np.uint8)
    cloud = scene_cloud(rgb, depth, cameras)
    steps = np.frombuffer(base64.b64decode(cloud["points"]), "<i2").reshape(-1, 3)
    points = steps * cloud["step"]
    assert len(points) == frames * side * side - 1 == cloud["ends"][-1]
    assert cloud["ends"][0] == side * side - 1
    assert np.allclose(points[:, 2], -2, atol=1e-3)  # behind the screen in the axes of OpenGL
    assert np.allclose(cloud["path"], [[0, 0, 0], [1, 0, 0], [2, 0, 0]], atol=1e-3)
    assert len(base64.b64decode(cloud["colours"])) == 3 * len(points)


def test_clouds_of_the_feature_analysis_have_a_page_where_they_are(
    run: Path, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    shutil.copytree(run, root, ignore=shutil.ignore_patterns("site"))
    write_clouds(root)
    page = (make_site(root, tmp_path / "site") / "clouds.html").read_text()
    [cloud] = list(script(page, "clouds"))  # type: ignore[call-overload]
    assert cloud["label"] == "teacher: truth" and not cloud["path"]


def test_equal_results_give_equal_bytes(run: Path, site: Path, tmp_path: Path) -> None:
    assert sums(make_site(run, tmp_path / "again")) == sums(site)


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for path in [*site.glob("*.html"), *site.glob("static/*.js"), *site.glob("static/*.css")]:
        text = path.read_text()
        for known in NOT_LOADED:
            text = text.replace(known, "")
        assert not re.search(r"https?://|(src|href)=\"(//|/)|@import|url\(", text), path.name
    refers = re.compile(r'(?:src|href|data-sprite)="([^"#]+)(?:#[^"]*)?"')
    for page in site.glob("*.html"):
        for target in refers.findall(page.read_text()):
            assert target.startswith("data:") or (site / target).is_file(), f"{page.name}: {target}"


def test_data_cannot_end_its_script_element() -> None:
    value = {"a": "</script><b>&", "b": [1, None]}
    text = in_script(value)
    assert not set("<>&") & set(text) and json.loads(text) == value


def test_labels_are_escaped(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "config", tmp_path / "config")
    shutil.copytree(run / "results/tiny/tables", tmp_path / "results/tiny/tables")
    shutil.copytree(run / "results/tiny/provenance", tmp_path / "results/tiny/provenance")
    evil = "<img src=x onerror=alert(1)>"
    for path in (tmp_path / "results/tiny").rglob("base_table.*"):
        told = escape_latex(evil) if path.suffix == ".tex" else evil
        path.write_text(path.read_text().replace("mean colour", told))
    page = (make_site(tmp_path, tmp_path / "site") / "table-base_table.html").read_text()
    assert evil not in page and "&lt;img src=x" in page


def test_another_folder_is_not_replaced_and_a_site_is(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "precious"
    folder.mkdir()
    (folder / "file").write_text("mine")
    with pytest.raises(SystemExit, match="is no site"):
        make_site(run, folder)
    assert (folder / "file").read_text() == "mine"
    own = make_site(run, tmp_path / "site")
    (own / "left.html").write_text("of an older one")
    make_site(run, own)
    assert not (own / "left.html").exists()


def test_pages_tell_the_commit_of_the_results_not_the_hour(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    target = tmp_path / "results/tiny/tables"
    target.mkdir(parents=True)
    (target / "facts.tex").write_text("a")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@e"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "results"]):
        subprocess.run([*git, *command], check=True)
    told = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "something else"], check=True)
    page = (make_site(tmp_path, tmp_path / "site") / "index.html").read_text()
    assert told.stdout[:12] in page and "some have changed" not in page
    (target / "facts.tex").write_text("b")
    page = (make_site(tmp_path, tmp_path / "site") / "index.html").read_text()
    assert told.stdout[:12] in page and "some have changed" in page


def test_large_frames_take_less_room_than_lossless(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (4, 128, 128, 3), np.uint8)
    write_sprite(tmp_path / "large.webp", noise)
    assert (tmp_path / "large.webp").stat().st_size < noise.nbytes / 2
    assert Image.open(tmp_path / "large.webp").size == (256, 256)


def test_a_cloud_without_points_can_be_packed() -> None:
    cloud = packed_cloud("none", np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8))
    assert cloud["points"] == "" and cloud["step"] > 0
