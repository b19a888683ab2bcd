"""The figure of gains: score files whose gains are known, and what is drawn of them."""

from pathlib import Path
from typing import Any

import matplotlib.colors as colours
import numpy as np
import pytest
from pydantic import ValidationError

from conftest import ROOT, edit_yaml, run_stage, told
from geomem.config import load_config
from geomem.formats import InputError, read_json, write_json
from geomem.paper.collect import Scores
from geomem.paper.figures import save_figure
from geomem.paper.gains import LEAST_IN_BIN, gain_figure
from geomem.settings.evaluation import GainFigure
from geomem.settings.jobs import FigureJob
from geomem.statistics import rank_correlation
from paper_cases import run_of

SEEDS, CLIPS = (0, 1), 12
PROTOCOLS = ("spin", "orbit")
ROWS = [{"variant": "memory", "label": "with memory"}, {"variant": "base", "label": "without"}]


def settings(**figure: Any) -> FigureJob:
    chosen = {"kind": "gain", "protocols": PROTOCOLS, "metric": "psnr", "against": "overlap"}
    return FigureJob.model_validate(
        {
            "figure": {**chosen, "rows": ROWS, "bins": 4, **figure},
            "seeds": SEEDS,
            "floors": (),
            "contexts": dict.fromkeys(PROTOCOLS, 1),
            "bootstrap": 100,
        }
    )


def overlaps(protocol: str) -> np.ndarray:
    return np.random.default_rng([PROTOCOLS.index(protocol), 7]).permutation(CLIPS) / CLIPS + (
        0.01 if protocol == "orbit" else 0
    )


def write_runs(folder: Path, gain: Any, *, metric: str = "psnr", overlap: Any = overlaps) -> Scores:
    """Write scores of `base`, and of `memory` that has `gain(overlap, seed)` more."""
    paths = []
    for protocol in PROTOCOLS:
        share = overlap(protocol)
        for seed in SEEDS:
            noise = np.random.default_rng([PROTOCOLS.index(protocol), seed]).normal(20, 3, CLIPS)
            more = gain(overlaps(protocol), seed)
            of = {"base": {"frames": {metric: noise}}, "memory": {"frames": {metric: noise + more}}}
            of["memory"]["regimes"] = {"overlap": share, "camera_path": overlaps(protocol) * 3}
            for variant, families in of.items():
                for family, values in families.items():
                    paths.append(folder / f"{variant}{seed}/{protocol}/{family}.json")
                    known = {n: v if isinstance(v, list) else v.tolist() for n, v in values.items()}
                    write_json(paths[-1], record(variant, seed, protocol, family, known))
    return Scores(paths)


def record(variant: str, seed: int, protocol: str, family: str, values: Any) -> dict[str, Any]:
    inputs = {"rollout": "aa", "clips": "cc"}
    made_by = {"stage": "scores", "version": 4, "settings": {"family": family}, "inputs": inputs}
    return {
        "variant": variant, "seed": seed, "protocol": protocol, "family": family,
        "clips": [f"c{i}" for i in range(CLIPS)], "names": {}, "networks": {},
        "frames": 5, "context": 1, "per_clip": values, "per_frame": {}, "sets": {},
        "rollout": {"version": 3, "settings": "bb", "run": run_of(variant, seed)},
        "provenance": made_by,
    }  # fmt: skip


def test_a_constant_gain_is_the_gain_of_every_bin(tmp_path: Path) -> None:
    scores = write_runs(tmp_path, lambda overlap, seed: 1.5)
    figure, found = gain_figure(settings(), scores)
    assert [one["clips"] for one in found["bins"]] == [6, 6, 6, 6]
    for one in found["bins"]:
        assert [one["gain"][k] for k in ("value", "low", "high")] == pytest.approx([1.5] * 3)
    axis = figure.axes[0]
    points = np.concatenate([np.asarray(dots.get_offsets()) for dots in axis.collections[:2]])
    assert points[:, 1] == pytest.approx(1.5)
    assert sorted(points[:, 0]) == pytest.approx(sorted([*overlaps("spin"), *overlaps("orbit")]))
    drawn = {colours.to_hex(dots.get_facecolor()[0]) for dots in axis.collections[:2]}
    assert len(drawn) == 2  # a colour for each protocol
    assert axis.get_ylabel() == "gain in PSNR [dB]"
    assert axis.get_xlabel() == "overlap with given frames"
    assert len(found["runs"]) == 4 and len(found["scores"]) == 12


def test_bins_follow_what_clips_are_like_and_seeds_are_averaged(tmp_path: Path) -> None:
    # seeds differ by 2, so that a clip's gain is 1 - overlap on the mean
    scores = write_runs(tmp_path, lambda overlap, seed: 1 - overlap + (1 if seed else -1))
    figure, found = gain_figure(settings(), scores)
    shares = np.sort(np.concatenate([overlaps("spin"), overlaps("orbit")])).reshape(4, 6)
    for one, part in zip(found["bins"], shares, strict=True):
        assert (one["from"], one["to"]) == pytest.approx((part[0], part[-1]), rel=1e-5)
        gain = one["gain"]
        assert gain["value"] == pytest.approx(1 - part.mean(), rel=1e-5)
        # with two seeds that far apart, nothing is sure
        assert gain["low"] < gain["value"] - 2 and gain["high"] > gain["value"] + 2
    assert found["rank_correlation"]["value"] == pytest.approx(-1)
    assert found["rank_correlation"]["clips"] == 2 * CLIPS
    assert set(found["by_protocol"]) == set(PROTOCOLS)
    assert "Spearman -1.00" in figure.axes[0].get_title()
    assert min(dots.get_offsets()[:, 1].min() for dots in figure.axes[0].collections[:2]) >= -0.01


def test_a_gain_is_what_is_better_not_what_is_more(tmp_path: Path) -> None:
    scores = write_runs(tmp_path, lambda overlap, seed: -0.25, metric="forgetting")
    _, found = gain_figure(settings(metric="forgetting", against="camera_path"), scores)
    assert {one["gain"]["value"] for one in found["bins"]} == {0.25}
    assert found["bins"][-1]["to"] == pytest.approx(3 * overlaps("orbit").max(), rel=1e-5)


def test_few_clips_make_few_bins(tmp_path: Path) -> None:
    scores = write_runs(tmp_path, lambda overlap, seed: 1.0)
    _, found = gain_figure(settings(bins=50), scores)
    assert len(found["bins"]) == 2 * CLIPS // LEAST_IN_BIN
    assert {one["clips"] for one in found["bins"]} == {LEAST_IN_BIN}


def test_clips_that_are_not_described_are_left_out(tmp_path: Path) -> None:
    def some(protocol: str) -> list[float | None]:
        told = overlaps(protocol).tolist()
        return [None] * CLIPS if protocol == "orbit" else [None, *told[1:]]

    scores = write_runs(tmp_path, lambda overlap, seed: overlap, overlap=some)
    figure, found = gain_figure(settings(), scores)
    assert set(found["by_protocol"]) == {"spin"}
    assert found["rank_correlation"] == found["by_protocol"]["spin"]
    assert found["rank_correlation"]["clips"] == CLIPS - 1
    assert found["rank_correlation"]["value"] == pytest.approx(1)
    assert len(figure.axes[0].collections[0].get_offsets()) == CLIPS - 1


def test_where_nothing_is_known_the_figure_says_so(tmp_path: Path) -> None:
    scores = write_runs(
        tmp_path, lambda overlap, seed: 1.0, overlap=lambda protocol: [None] * CLIPS
    )
    figure, found = gain_figure(settings(), scores)
    assert found["bins"] == [] and found["rank_correlation"] is None
    assert [text.get_text() for text in figure.axes[0].texts] == ["not known of these clips"]
    save_figure(figure, tmp_path / "empty.png")
    assert (tmp_path / "empty.png").stat().st_size > 1000


def test_files_that_are_missing_are_told(tmp_path: Path) -> None:
    write_runs(tmp_path, lambda overlap, seed: 1.0)
    paths = [p for p in tmp_path.rglob("*.json") if p.stem != "regimes"]
    told(lambda: gain_figure(settings(), Scores(paths)), "no regimes scores of memory, spin")
    paths = [p for p in tmp_path.rglob("*.json") if "base1" not in str(p)]
    told(lambda: gain_figure(settings(), Scores(paths)), "base, spin, seeds [1]")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"metric": "frechet"}, "metric: frechet is not known of every clip"),
        ({"against": "kernel_distance"}, "against: kernel_distance is not known of every clip"),
        ({"metric": "coverage"}, "of coverage neither way is better"),
        ({"rows": [ROWS[0], ROWS[0]]}, "memory cannot gain over itself"),
        ({"rows": ROWS[:1]}, "at least 2 items"),
    ],
)
def test_gains_that_mean_nothing_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        settings(**changes)


def test_a_scale_that_leaves_out_one_of_the_two_has_no_such_figure(project: Path) -> None:
    assert isinstance(load_config(ROOT).figures["gain_by_overlap"], GainFigure)
    rows = [{"variant": name, "label": name} for name in ("tuned_mse", "base")]
    whole = load_config(project).figures["gain_by_overlap"].model_dump(mode="json")
    edit_yaml(
        project / "config/experiments.yaml",
        figures__gain_by_overlap=whole | {"rows": rows},
    )
    assert "gain_by_overlap" not in load_config(project).figures  # smoke has no `tuned_mse`
    edit_yaml(
        project / "config/experiments.yaml",
        figures__gain_by_overlap=whole | {"protocols": ["films"]},
    )
    with pytest.raises(InputError, match=r"gain_by_overlap.protocol: 'films' is none of"):
        load_config(project)


def test_the_command_draws_the_figure_of_the_configuration(project: Path) -> None:
    rows = [{"variant": name, "label": name} for name in ("memory", "base")]
    figure = {"kind": "gain", "protocols": list(PROTOCOLS), "metric": "psnr", "against": "overlap"}
    edit_yaml(
        project / "config/experiments.yaml",
        figures__gain_by_overlap=figure | {"rows": rows},
    )
    edit_yaml(project / "config/scales/smoke.yaml", seeds=list(SEEDS))
    write_runs(project / "scores", lambda overlap, seed: overlap)
    paths = map(str, sorted((project / "scores").rglob("*.json")))
    run_stage(
        project, "paper", "figure", "gain_by_overlap", "--scores", *paths,
        *("--pdf", "made.pdf", "--png", "made.png", "--provenance", "made.json"),
    )  # fmt: skip
    assert (project / "made.pdf").read_bytes().startswith(b"%PDF")
    record = read_json(project / "made.json")
    assert record["rank_correlation"]["value"] == pytest.approx(1)
    assert record["provenance"]["settings"]["figure"]["bins"] == 5
    with pytest.raises(SystemExit, match="shows scores: give --scores"):
        run_stage(
            project, "paper", "figure", "gain_by_overlap",
            *("--pdf", "made.pdf", "--png", "made.png", "--provenance", "made.json"),
        )  # fmt: skip


def test_rank_correlation_is_of_ranks_and_undefined_of_constants() -> None:
    x = np.array([1.0, 2, 3, 4, 5, 6])
    found = rank_correlation(x, np.exp(x))
    assert found is not None and found.value == pytest.approx(1) and found.low > 0.99
    # by hand: 1 - 6 * sum(d^2) / (n (n^2 - 1)), d = 0, 0, 0, 0, 1, -1
    swapped = rank_correlation(x, np.array([1.0, 2, 3, 4, 60, 5]))
    assert swapped is not None and swapped.value == pytest.approx(1 - 12 / 210)
    assert swapped.low < swapped.value < swapped.high < 1
    assert rank_correlation(x, np.ones(6)) is None
    short = rank_correlation(x[:3], x[:3] ** 2)
    assert short is not None and np.isnan(short.low) and np.isnan(short.high)
    with pytest.raises(ValueError, match=r"\(6,\) and \(5,\)"):
        rank_correlation(x, x[:5])


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_its_interval_holds_the_true_one_as_often_as_it_says(rho: float) -> None:
    generator, true = np.random.default_rng(0), 6 / np.pi * np.arcsin(rho / 2)
    held = 0
    for _ in range(400):
        x, other = generator.normal(size=(2, 30))
        found = rank_correlation(x, rho * x + np.sqrt(1 - rho**2) * other)
        assert found is not None
        held += found.low <= true <= found.high
    assert 0.92 <= held / 400 <= 0.98
