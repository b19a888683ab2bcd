"""What clips are like: rendered rooms under cameras whose motion is known."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import GONE, ROOT, edit_yaml
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.geometry.cameras import join_cameras
from geomem.metrics.families.regimes import RegimeScorer, RegimeSettings
from geomem.metrics.regimes import camera_motion, overlap_with_given
from geomem.metrics.registry import FAMILIES, ClipVideos
from geomem.metrics.sanity import out_of_order
from geomem.scenes.render import render
from geomem.scenes.trajectories import TrajectoryKind, make_trajectory
from geomem.scenes.worlds import make_world

FRAMES, SIDE = 13, 32


def room(kind: TrajectoryKind) -> tuple[Tensor, Tensor]:
    """Return depth (13, 32, 32) and cameras of a clip."""
    world = make_world("rooms", 3)
    cameras = make_trajectory(world, kind, frames=FRAMES, seed=1)
    return render(world, cameras, resolution=SIDE, supersample=1)[1], cameras


def described(
    depth: Tensor | None, cameras: Tensor, *, context: int = 1, given: int = 64
) -> dict[str, float | None]:
    frames = torch.zeros(len(cameras), 3, SIDE, SIDE)
    clip = ClipVideos(
        generated=frames, truth=frames, cameras=cameras, context=context, depth=depth,
        revisits=torch.zeros(0, 2, dtype=torch.long), coverage=[], partial=[],
    )  # fmt: skip
    return dict(RegimeScorer(RegimeSettings(given=given)).clip(clip).values)


def turned(degrees: list[float], places: list[list[float]]) -> Tensor:
    """Return cameras (T, 16) at places, turned about the vertical axis."""
    poses = []
    for angle, place in zip(map(math.radians, degrees), places, strict=True):
        cos, sin = math.cos(angle), math.sin(angle)
        rotation = torch.tensor([[cos, 0, -sin], [0.0, 1, 0], [sin, 0, cos]])
        centre = torch.tensor(place, dtype=torch.float32)
        poses.append(torch.cat([rotation, -(rotation @ centre)[:, None]], dim=1))
    return join_cameras(torch.tensor([1.0, 1, 0.5, 0.5]).expand(len(poses), 4), torch.stack(poses))


def test_a_clip_that_never_moves_has_no_path_and_all_of_it_was_given() -> None:
    depth, cameras = room("spin")
    found = described(depth[:1].expand(5, -1, -1), cameras[:1].expand(5, -1))
    assert found == {"camera_path": 0, "camera_turn": 0, "overlap": 1, "new_area": 0}


def test_path_and_turn_add_up_every_step_after_the_last_given_frame() -> None:
    # there and back: the ends are one place
    places = [[0.0, 0, 0], [0, 0, 3], [4, 0, 3], [0, 0, 3], [0, 0, 0]]
    cameras = turned([0, 30, 50, 30, 0], places)
    path, turn = camera_motion(cameras, context=1)
    assert path == pytest.approx(14, rel=1e-5) and turn == pytest.approx(100, rel=1e-4)
    path, turn = camera_motion(cameras, context=3)
    assert path == pytest.approx(7, rel=1e-5) and turn == pytest.approx(50, rel=1e-4)


def test_a_full_spin_turns_once_and_goes_nowhere() -> None:
    found = described(*room("spin"))
    assert found["camera_turn"] == pytest.approx(360, abs=0.1)
    assert found["camera_path"] == pytest.approx(0, abs=1e-4)


def test_overlap_falls_as_a_spin_turns_and_does_not_when_it_comes_back() -> None:
    depth, cameras = room("spin")
    shares = []
    for last in range(1, 5):  # 30 degrees a frame
        chosen = [0, last]
        share = overlap_with_given(depth[chosen], cameras[chosen], context=1, given=[0])
        assert share is not None
        shares.append(share)
    assert shares == sorted(shares, reverse=True) and shares[0] > 0.3 > shares[-1] == 0
    back = [0, FRAMES - 1]
    assert overlap_with_given(depth[back], cameras[back], context=1, given=[0]) == pytest.approx(
        1, abs=0.02
    )
    # a longer way of which more was given
    whole, replay = described(depth, cameras), described(depth, cameras, context=9)
    assert whole["overlap"] and replay["overlap"] and whole["overlap"] < replay["overlap"]
    for found in (whole, replay):
        assert found["overlap"] is not None
        assert found["new_area"] == pytest.approx(1 - found["overlap"])


def test_overlap_of_a_slide_along_a_wall_is_what_is_left_of_the_first_view() -> None:
    # a wall at 1 m, of which views of focal length 0.5 show 2 m; 0.5 m a step
    cameras = turned([0] * 4, [[0.5 * step, 0, 0] for step in range(4)])
    cameras[:, :2] = 0.5
    depth = torch.ones(4, SIDE, SIDE)
    found = overlap_with_given(depth, cameras, context=1, given=[0])
    # no pixel's centre beyond the outer ones of the view is seen: one column less at most
    assert found == pytest.approx((0.75 + 0.5 + 0.25) / 3, abs=1 / SIDE)
    # what is no surface does not count, here half of every view
    depth[:, : SIDE // 2] = math.inf
    assert overlap_with_given(depth, cameras, context=1, given=[0]) == pytest.approx(found)
    assert overlap_with_given(depth * math.inf, cameras, context=1, given=[0]) is None


def test_given_frames_are_a_spread_of_them_where_there_are_many() -> None:
    depth, cameras = room("spin")
    # of two: the first and the last given, which a spin's next frames see in part
    few = described(depth, cameras, context=9, given=2)
    chosen = overlap_with_given(depth, cameras, context=9, given=[0, 8])
    assert few["overlap"] == chosen
    assert chosen and chosen <= (described(depth, cameras, context=9)["overlap"] or 0)


def test_without_depth_the_camera_alone_is_described() -> None:
    _, cameras = room("orbit")
    found = described(None, cameras)
    assert found["overlap"] is found["new_area"] is None
    assert found["camera_path"] and found["camera_turn"]


def test_the_family_describes_and_is_asked_for_by_what_shows_it_alone() -> None:
    family = FAMILIES["regimes"]
    same = dict.fromkeys(("truth", "shuffled", "noise"), 1.0)
    assert {metric.better for metric in family.metrics} == {"neither"}
    assert out_of_order(family.metrics, {metric.name: same for metric in family.metrics}) == {}
    config = load_config(ROOT, scale="smoke")
    wanted = {run for run, families in config.scored().items() if "regimes" in families}
    figure = config.figures["gain_by_overlap"]
    shown = {(figure.rows[0].variant, protocol) for protocol in figure.shown_protocols}
    for name in ("regimes_table", "domains_table"):
        table = config.tables[name]
        described = {c.protocol for c in table.columns if c.metric == "new_area"}
        shown |= {(row.variant, protocol) for row in table.rows for protocol in described}
    assert wanted == shown
    records = [job.record for jobs in Dag(config).stages() for job in jobs]
    made = [r for r in records if r.stem == "regimes" and r.parent.name != "sanity"]
    assert len(made) == sum(len(config.seeds_of(variant)) for variant, _ in shown)
    main = load_config(ROOT, scale="smoke", main_job=True)
    assert not any("regimes" in families for families in main.scored().values())


def test_without_the_figure_nothing_else_changes(project: Path) -> None:
    whole = Dag(load_config(project))
    digests = {job.record: job.settings.digest for jobs in whole.stages() for job in jobs}
    edit_yaml(project / "config/experiments.yaml", figures__gain_by_overlap=GONE)
    without = Dag(load_config(project))
    left = {job.record: job.settings.digest for jobs in without.stages() for job in jobs}
    assert left.items() <= digests.items()
    more = digests.keys() - left.keys()
    shown = whole.layout.provenance("gain_by_overlap")
    assert shown in more and all(path == shown or path.stem == "regimes" for path in more)
