"""Figures from small score files and videos: what is drawn, and which clip and frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from geomem.formats import (
    ClipInfo,
    InputError,
    read_json,
    write_clip_shard,
    write_json,
    write_videos,
)
from geomem.paper.collect import Scores
from geomem.paper.drawings import frame_curves, revisits, strip
from geomem.settings.jobs import FigureJob
from paper_cases import CLIPS, SEEDS, psnr_of, write_scores

CONTEXTS = {"spin": 1, "out_and_back": 1, "walk_long": 1}


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_scores(tmp_path)


def figure_settings(**figure: Any) -> FigureJob:
    return FigureJob.model_validate(
        {"figure": figure, "seeds": SEEDS, "floors": (), "contexts": CONTEXTS, "bootstrap": 50}
    )


def test_curves_show_the_mean_of_every_frame(files: list[Path]) -> None:
    rows = [{"variant": "base", "label": "without"}, {"variant": "memory", "label": "with"}]
    metrics = ["psnr", "coverage"]
    chosen = figure_settings(kind="curves", protocols=["spin"], metrics=metrics, rows=rows)
    figure, provenance = frame_curves(chosen, Scores(files))
    psnr, coverage = figure.axes
    mean = np.mean([psnr_of("memory", seed) for seed in SEEDS])
    assert psnr.lines[1].get_ydata() == pytest.approx([mean, mean - 1, mean - 2, mean - 3])
    assert psnr.lines[1].get_xdata().tolist() == [1, 2, 3, 4]
    # Without a memory there is no coverage; the other keeps its look.
    assert len(coverage.lines) == 1
    assert coverage.lines[0].get_color() == psnr.lines[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["without", "with"]
    assert len(provenance["runs"]) == 4


def test_a_metric_of_some_frames_is_drawn_where_it_is_known(
    files: list[Path], tmp_path: Path
) -> None:
    content = read_json(next(path for path in files if path.stem == "perceptual"))
    content["per_frame"]["perceptual"] = [[0.25, None, 0.5, None]] * CLIPS
    write_json(tmp_path / "score.json", content)
    rows = [{"variant": content["variant"], "label": "one"}]
    chosen = figure_settings(kind="curves", protocols=["spin"], metrics=["perceptual"], rows=rows)
    chosen = chosen.model_copy(update={"seeds": (content["seed"],)})
    figure, _ = frame_curves(chosen, Scores([tmp_path / "score.json"]))
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
