"""The VGGT score: one scene, mixtures of several, and whether its probabilities hold."""

import itertools
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from scipy.special import expit
from torch import Tensor

from conftest import GONE, edit_yaml, run_stage, told, write_fake_clips
from geomem.config.load import load_config
from geomem.dag.graph import Dag
from geomem.errors import InputError
from geomem.formats import ClipInfo, read_json, sha256_file
from geomem.geometry.warp import warp_frame
from geomem.metrics.calibration import fit_logistic, reliability
from geomem.metrics.families.vggt_score import (
    VggtScore,
    VggtScorer,
    VggtScoreSettings,
    judged_frames,
)
from geomem.metrics.mixtures import REPEATED_SEES, Mixture, mixtures
from geomem.metrics.registry import ClipVideos
from geomem.metrics.sanity import out_of_order
from geomem.metrics.scene_calibration import read_calibration
from geomem.metrics.scene_features import FEATURES, agreement, scene_features, strongest_chains
from geomem.paper.figures import save_figure
from geomem.paper.reliability import reliability_figure
from geomem.scenes.render import render
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import make_world
from geomem.scores.calibrate import strangers
from geomem.settings.jobs import CalibrationJob
from geomem.sources.embedded import pinhole

ROOT = Path(__file__).parents[2]
PLAIN = ROOT / "weights/vggt_plain/calibration.json"
FRAMES, CONTEXT = 8, 1
# scenes of the role `test`, which no teacher and no calibration has seen; two of a kind, each of
# which is the other's stranger
CLIPS: list[tuple[int, TrajectoryKind]] = [
    (20_000_000 + 100 + i, kind) for i, kind in enumerate(("walk", "walk", "spin", "spin"))
]
Array = NDArray[np.float64]


@cache
def room(clip: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return frames (8, 3, 32, 32), depth and cameras of a clip, as `tiny` would spread them."""
    scene, kind = CLIPS[clip]
    world = make_world("rooms_plain", scene)
    made = make_trajectory(world, kind, frames=63, seed=scene, intrinsics=pinhole(80.0))
    cameras = made[::2]
    chosen = judged_frames(1, len(cameras), FRAMES)
    assert chosen is not None
    rgb, depth = render(world, cameras[chosen], resolution=32, supersample=2)
    return rgb.permute(0, 3, 1, 2).float() / 255, depth, cameras[chosen]


@cache
def scorer() -> VggtScorer:
    opened = VggtScore().open(VggtScoreSettings(calibration=str(PLAIN)), torch.device("cpu"))
    assert isinstance(opened, VggtScorer)
    return opened


def made_of(clip: int) -> list[Mixture]:
    generator = np.random.default_rng(clip)
    others = strangers([ClipInfo(clip_id="", scene=f"{i}", trajectory=k) for i, k in CLIPS], clip)
    images, depth, cameras = room(clip)
    return list(
        mixtures(
            images,
            depth,
            cameras,
            other=lambda: room(int(generator.choice(others)))[0],
            generator=generator,
        )
    )


@cache
def judged() -> list[tuple[Mixture, Array]]:
    """Return the mixtures of a walk and of a spin with the probabilities of their frames."""
    return [
        (made, scorer().probabilities(made.images, room(clip)[2]).numpy())
        for clip in (0, 2)
        for made in made_of(clip)
    ]


def mean_of(kind: str) -> float:
    return float(np.mean([found.mean() for made, found in judged() if made.kind == kind]))


def clip_of(generated: Tensor, clip: int = 0, **changes: Any) -> ClipVideos:
    truth, depth, cameras = room(clip)
    given: dict[str, Any] = {
        "generated": torch.cat([truth[:CONTEXT], generated[CONTEXT:]]),
        "truth": truth,
        "cameras": cameras,
        "context": CONTEXT,
        "revisits": torch.zeros(0, 2, dtype=torch.long),
        "coverage": [],
        "partial": [],
        "depth": depth,
    }
    return ClipVideos(**given | changes)


def test_fakes_are_caught() -> None:
    truth = mean_of("true")
    assert truth > 0.9
    for kind in ("spliced", "several", "cut", "noise", "patches"):
        assert mean_of(kind) < truth - 0.1, kind
    # geometry is consistent in a frozen clip, but the cameras have moved
    assert mean_of("repeated") < 0.2


def test_a_clip_is_scored_beside_its_truth() -> None:
    truth = room(0)[0]
    order = torch.tensor([0, 4, 6, 1, 7, 2, 5, 3])
    fakes = {
        "other": room(1)[0],
        "noise": torch.rand(truth.shape, generator=torch.Generator().manual_seed(0)),
        "shuffled": truth[order],
    }
    found = {name: scorer().clip(clip_of(made)).values for name, made in fakes.items()}
    own = scorer().clip(clip_of(truth)).values
    assert own["vggt_score"] == own["truth_vggt_score"]
    for name, values in found.items():
        assert values["truth_vggt_score"] == own["truth_vggt_score"]
        # another scene along a like path is the hardest: 0.45
        score, true = values["vggt_score"], own["vggt_score"]
        assert score is not None and true is not None
        assert score < 0.55 < 0.85 < true, name
    # as a table asks before it shows the score
    fakes_of = {"truth": own, "shuffled": found["shuffled"], "noise": found["noise"]}
    told_apart = {"vggt_score": {name: of["vggt_score"] for name, of in fakes_of.items()}}
    assert out_of_order(VggtScore.metrics, told_apart) == {}
    short = clip_of(truth, context=2)
    assert set(scorer().clip(short).values.values()) == {None}


def test_score_falls_in_proportion_to_spliced_frames() -> None:
    by_number: dict[int, list[float]] = {}
    for made, found in judged():
        if made.kind in ("true", "spliced"):
            by_number.setdefault(made.spliced, []).append(float(found.mean()))
    means = [float(np.mean(by_number[number])) for number in range(FRAMES)]
    # of one clip a number, many of whose strangers pass: the mean of many is the record's
    for number, mean in enumerate(means):
        assert mean == pytest.approx(1 - number / (FRAMES - 1), abs=0.35)
    assert np.corrcoef(range(FRAMES), means)[0, 1] < -0.95
    record = read_calibration(PLAIN)
    assert record.spliced == sorted(record.spliced, reverse=True)
    for number, mean in enumerate(record.spliced):
        assert mean == pytest.approx(1 - number / (FRAMES - 1), abs=0.15)


def test_probabilities_hold_on_scenes_of_the_test() -> None:
    pairs = sorted(
        (probability, label)
        for made, found in judged()
        for probability, label in zip(found.tolist(), made.labels.tolist(), strict=True)
        if not math.isnan(label)
    )
    assert len(pairs) > 150
    # by hand: ten bins of equal mass
    error, bins = 0.0, 10
    for number in range(bins):
        part = pairs[number * len(pairs) // bins : (number + 1) * len(pairs) // bins]
        gap = sum(probability - label for probability, label in part)
        error += abs(gap) / len(pairs)
    columns = np.array(pairs).T
    assert reliability(columns[0], columns[1], bins=bins).error == pytest.approx(error, abs=5e-3)
    # of two clips; the record's own is of 33
    assert error < 0.12


def test_tracked_calibration_is_of_its_teacher() -> None:
    record = read_calibration(PLAIN)
    assert record.teacher.name == "vggt_plain"
    assert record.teacher.sha256 == sha256_file(PLAIN.with_name("model.safetensors"))
    total = sum(part.count for part in record.bins)
    told = sum(part.count * abs(part.predicted - part.observed) for part in record.bins) / total
    assert record.error == pytest.approx(told, abs=1e-5)
    low, high = record.error_interval
    assert low <= record.error <= high < 0.05
    assert record.kinds["true"].predicted > 0.9
    assert (record.fit_clips, record.test_clips) == (66, 33)
    assert total == sum(kind.count for kind in record.kinds.values()) > 1500
    assert (np.diff(record.spliced) < 0).all()
    for scenes, role in (("fit", "train"), ("test", "validation")):
        assert record.provenance["settings"][scenes]["role"] == role
    config = load_config(ROOT, scale="tiny")
    assert config.settings.teacher.sha256 == record.teacher.sha256
    named = config.settings.scores.families["vggt_score"]
    assert named.calibration == str(PLAIN.relative_to(ROOT))
    assert named.sha256 == sha256_file(PLAIN)


def test_logistic_model_learns_shares() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4000, 3)) * [1, 5, 0.1] + [0, 2, 0]
    truth = expit(0.5 + features @ [1.0, -0.2, 4.0])
    model = fit_logistic(features, truth)
    assert np.abs(model.probability(features) - truth).max() < 0.02
    drawn = fit_logistic(features, (rng.random(4000) < truth).astype(float))
    slopes = drawn.weights / drawn.deviation
    assert slopes == pytest.approx([1.0, -0.2, 4.0], rel=0.25)
    with pytest.raises(ValueError, match="cannot be fitted"):
        fit_logistic(features, np.ones(4000))


def test_labels_say_what_was_mixed() -> None:
    images, depth, cameras = room(2)
    made = made_of(2)
    assert [m.kind for m in made] == [
        *("true", *["spliced"] * (FRAMES - 1), "several", "cut", "noise", "repeated", "patches"),
    ]
    assert [m.spliced for m in made[:FRAMES]] == list(range(FRAMES))
    for mixture in made:
        assert torch.equal(mixture.images[0], images[0])
        changed = (mixture.images != images).any(1).double().mean((1, 2))[1:]
        known = ~mixture.labels.isnan()
        if mixture.kind != "patches":
            assert torch.equal(mixture.labels[known] == 0, changed[known] > 0)
        else:  # flat colours may be equal by chance
            share = 1 - mixture.labels
            assert (changed <= share + 1e-9).all()
            assert torch.equal(changed > 0, share > 0)
    repeated = next(m for m in made if m.kind == "repeated")
    for number in range(1, FRAMES):
        seen = warp_frame(images[0], depth[0], cameras[0], depth[number], cameras[number])[1]
        wrong = float(seen.double().mean()) < REPEATED_SEES
        assert math.isnan(repeated.labels[number - 1]) != wrong


def test_agreement_of_true_depth_is_that_of_a_warp() -> None:
    images, depth, cameras = room(0)
    in_view, inliers, colours = agreement(depth, images, cameras, tolerance=0.03)
    assert torch.equal(inliers, inliers.mT)
    for i, j in [(0, 1), (2, 3), (5, 2)]:
        ways = [
            warp_frame(images[a], depth[a], cameras[a], depth[b], cameras[b])
            for a, b in ((i, j), (j, i))
        ]
        # which asks for half a pixel's distance to the border as well
        share = sum(float(seen.double().mean()) for _, seen in ways) / 2
        assert float(inliers[i, j]) == pytest.approx(share, abs=0.04)
        off = sum(
            float((warped - images[b]).abs().mean(0)[seen].sum()) / seen.numel() / 2
            for (warped, seen), b in zip(ways, (j, i), strict=True)
        )
        assert float(colours[i, j]) == pytest.approx(off, abs=0.01)
    assert (in_view >= inliers).all()


def test_chains_are_as_strong_as_their_weakest_link() -> None:
    links = torch.rand(7, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    links = (links + links.mT) / 2
    found = strongest_chains(links)
    for last in range(1, 7):
        between = [i for i in range(1, 7) if i != last]
        chains = (
            (0, *way, last) for size in range(6) for way in itertools.permutations(between, size)
        )
        best = max(min(float(links[a, b]) for a, b in itertools.pairwise(c)) for c in chains)
        assert float(found[last]) == pytest.approx(best)


def test_features_do_not_depend_on_the_unit_of_the_cameras() -> None:
    images, _, cameras = room(0)
    given = {"prior_weight": 0.05, "tolerance": 0.1}
    first = scene_features(scorer().teacher, images, cameras, scale_prior=3.0, **given)
    assert first.shape == (FRAMES - 1, len(FEATURES))
    larger = cameras.clone()
    larger[:, [7, 11, 15]] *= 5
    again = scene_features(scorer().teacher, images, larger, scale_prior=15.0, **given)
    assert torch.allclose(first, again, atol=1e-3)
    with pytest.raises(ValueError, match="3 frames are needed, got 2"):
        scene_features(scorer().teacher, images[:2], cameras[:2], scale_prior=3.0, **given)


def test_frames_are_spread_over_what_was_generated() -> None:
    assert judged_frames(1, 8, 8) == list(range(8))
    assert judged_frames(4, 32, 8) == [3, 7, 11, 15, 19, 23, 27, 31]
    assert judged_frames(4, 10, 8) is None
    assert judged_frames(4, 11, 8) == list(range(3, 11))


def test_calibrations_are_read_strictly(tmp_path: Path) -> None:
    record = json.loads(PLAIN.read_text())
    weights = PLAIN.with_name("model.safetensors")
    path = tmp_path / "calibration.json"

    def opens(content: object, *words: str, **settings: Any) -> None:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        chosen: dict[str, Any] = {"calibration": str(path), "weights": str(weights)} | settings
        told(
            lambda: VggtScore().open(VggtScoreSettings(**chosen), torch.device("cpu")),
            *words,
        )

    command = "snakemake results/SCALE/calibration.json"
    opens(record, "scores.families.vggt_score.calibration is not set", calibration="")
    opens(record, "gone.json is missing", command, calibration=str(tmp_path / "gone.json"))
    opens(record | {"more": 1}, "more: Extra inputs", command)
    opens("{", "is damaged", command)
    opens({k: v for k, v in record.items() if k != "bias"}, "bias: Field required", command)
    fewer = {k: v for k, v in record["features"].items() if k != "rotation"}
    opens(record | {"features": fewer}, "rotation", command)
    opens(record | {"bias": "NaN"}, "bias")
    opens(record, "frames=8", "frames=6", command, frames=6)
    opens(record, "is not the record", sha256="0" * 64)
    other = ROOT / "weights/vggt_tiny/model.safetensors"
    opens(record, "is not of the teacher", command, weights=str(other))
    opens(record, "nowhere is missing", "vggt_plain", weights="nowhere")


def test_family_is_off_unless_it_is_asked_for() -> None:
    config = load_config(ROOT)
    assert not any("vggt_score" in families for families in config.scores().values())
    names = [str(job.record) for jobs in Dag(config).stages() for job in jobs]
    assert not any("vggt_score" in name for name in names)


def asked_for(project: Path, **values: object) -> Dag:
    """Return the jobs where a table shows the score."""
    experiments = project / "config/experiments.yaml"
    columns = yaml.safe_load(experiments.read_text())["tables"]["main_table"]["columns"]
    columns.append({"metric": "vggt_score", "protocol": columns[0]["protocol"]})
    edit_yaml(experiments, tables__main_table__columns=columns)
    edit_yaml(project / "config/scales/smoke.yaml", **values)
    return Dag(load_config(project))


def test_a_scale_makes_its_own_calibration_where_none_is_named(project: Path) -> None:
    edit_yaml(project / "config/experiments.yaml", figures__reliability=GONE)
    without = Dag(load_config(project))
    digests = {job.record: job.settings.digest for jobs in without.stages() for job in jobs}
    assert without.layout.calibration not in digests
    graph = asked_for(project)
    jobs = {job.record: job for made in graph.stages() for job in made}
    own, order = graph.layout.calibration, list(jobs)
    readers = [job for job in jobs.values() if "vggt_score" in job.record.stem]
    assert {job.record.parts[2] for job in readers} == {"scores", "sanity"}
    for job in readers:
        assert job.inputs["calibration"] == job.options["calibration"] == own
        assert job.inputs["weights"] == graph.weights
        assert order.index(own) < order.index(job.record)
    others = [job for job in jobs.values() if job not in readers]
    assert not any("calibration" in job.inputs for job in others)
    # nothing that was there before changes, but for the table that has one column more
    changed = {path for path in digests if jobs[path].settings.digest != digests[path]}
    assert changed == {graph.layout.provenance("main_table")}
    told = jobs[own].settings
    assert isinstance(told, CalibrationJob)
    assert (told.fit.role, told.test.role) == ("train", "validation")
    assert jobs[own].inputs["weights"] == graph.weights


def test_a_calibration_that_is_named_is_used(project: Path) -> None:
    graph = asked_for(project, scores__families__vggt_score={"calibration": "weights/x.json"})
    jobs = [job for made in graph.stages() for job in made]
    assert graph.layout.calibration not in [job.record for job in jobs]
    # but for its diagram
    shown = [job for job in jobs if "calibration" in job.inputs]
    assert [job.inputs["calibration"] for job in shown] == [Path("weights/x.json")]
    assert shown[0].record == graph.layout.provenance("reliability")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"fit_split": "films"}, "scores.calibration.fit_split.name: 'films' is none of"),
        ({"test_split": "train"}, "train and train have the same role"),
    ],
)
def test_splits_that_cannot_be_calibrated_on_are_refused(
    project: Path, values: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        asked_for(project, scores__calibration=values)


def test_strangers_go_along_the_same_kind_of_path(project: Path) -> None:
    kinds = ["spin", "walk", "spin", "orbit"]
    clips = [ClipInfo(clip_id=f"c{i}", scene=f"s{i}", trajectory=k) for i, k in enumerate(kinds)]
    clips.append(ClipInfo(clip_id="again", scene="s0", trajectory="spin"))
    assert strangers(clips, 0) == [2]
    assert strangers(clips, 2) == [0, 4]
    assert strangers(clips, 3) == [0, 1, 2, 4]  # none is alike


def test_calibration_and_diagram_are_made_by_the_stages(project: Path) -> None:
    edit_yaml(
        project / "config/scales/smoke.yaml",
        scores__families__vggt_score={"frames": 4},
        scores__calibration={"clips": 2},
    )
    folders = {
        name: write_fake_clips(project / name, clips=4, frames=4, size=32, seed=seed, prefix=name)
        for seed, name in enumerate(("fit", "test"))
    }
    weights, output = ROOT / "weights/vggt_tiny/model.safetensors", project / "made.json"

    def run(test: Path) -> None:
        run_stage(
            project, "scores", "calibrate", str(output), "--scale", "smoke",
            *("--fit-clips", str(folders["fit"]), "--test-clips", str(test)),
            *("--weights", str(weights), "--device", "cpu"),
        )  # fmt: skip

    run(folders["test"])
    record = read_calibration(output)
    assert (record.fit_clips, record.test_clips, record.settings.frames) == (2, 2, 4)
    assert record.teacher.sha256 == sha256_file(weights)
    assert "cut" in record.kinds
    run_stage(
        project, "paper", "figure", "reliability", "--calibration", str(output),
        *("--pdf", "made.pdf", "--png", "made.png", "--provenance", "made.json"),
    )  # fmt: skip
    assert (project / "made.pdf").read_bytes().startswith(b"%PDF")
    assert read_json(project / "made.json")["error"] == record.error
    with pytest.raises(SystemExit, match="share fit-0; take splits of different roles"):
        run(folders["fit"])


def test_diagram_shows_bins_and_error(tmp_path: Path) -> None:
    record = read_calibration(PLAIN)
    figure = reliability_figure(record)
    left, right = figure.axes
    drawn = np.array(left.lines[-1].get_xydata())
    assert drawn == pytest.approx(np.array([[b.predicted, b.observed] for b in record.bins]))
    assert f"{record.error:.3f}" in left.get_title()
    assert np.array(right.lines[-1].get_ydata()) == pytest.approx(np.array(record.spliced))
    for name in ("first.png", "second.png"):
        save_figure(reliability_figure(record), tmp_path / name)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
