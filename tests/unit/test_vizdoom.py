"""Maps of Doom: files, exact depth and paths in them, and what the game shows of them."""

import hashlib
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import told
from geomem.config import load_config
from geomem.dag.graph import Dag
from geomem.geometry.warp import warp_frame
from geomem.scenes.doom_maps import (
    UNIT,
    DoomMap,
    depth_at,
    map_names,
    read_map,
    sector_at,
)
from geomem.scenes.doom_paths import CLEARANCE, EYE, KINDS, draw_path, walls_of
from geomem.scenes.planning import clearance
from geomem.sources.vizdoom import WADS, Player, maps_of_role
from stand_ins import make_first_shard, project_on

A, B, DOOR = 0, 1, 2
SIDE = 512  # of the two rooms; the closed door is beyond the second
# (floor, ceiling, ceiling's looks) of the sectors
PLAIN = ((0, 128, b"CEIL1_1"), (0, 160, b"F_SKY1"), (0, 0, b"CEIL1_1"))
STEP = ((0, 128, b"CEIL1_1"), (48, 160, b"F_SKY1"), (48, 48, b"CEIL1_1"))
OPEN = ((0, 256, b"F_SKY1"), (16, 96, b"F_SKY1"), (0, 0, b"CEIL1_1"))
CORNERS = (
    *((0, 0), (0, SIDE), (SIDE, SIDE), (2 * SIDE, SIDE), (2 * SIDE, 0), (SIDE, 0)),
    *((2 * SIDE, 320), (2 * SIDE, 192), (2 * SIDE + 32, 320), (2 * SIDE + 32, 192)),
)
# (start, end, sector to the right, sector to the left or none)
LINES = (
    *((0, 1, A, None), (1, 2, A, None), (2, 3, B, None), (3, 6, B, None), (6, 7, B, DOOR)),
    *((7, 4, B, None), (4, 5, B, None), (5, 0, A, None), (2, 5, A, B)),
    *((6, 8, DOOR, None), (8, 9, DOOR, None), (9, 7, DOOR, None)),
)


def lumps_of(sectors: Any) -> dict[str, bytes]:
    """The lumps of a map of two rooms and a closed door, with monsters, switches and gratings."""
    sides: list[bytes] = []

    def side(sector: int | None, middle: bytes) -> int:
        if sector is None:
            return 0xFFFF
        sides.append(struct.pack("<hh8s8s8sH", 0, 0, b"STONE", b"STONE", middle, sector))
        return len(sides) - 1

    lines = b""
    for start, end, right, left in LINES:
        middle = b"STONE" if left is None else b"MIDGRATE"
        flags, special = (1, 0) if left is None else (4, 1)
        numbers = (side(right, middle), side(left, middle))
        lines += struct.pack("<7H", start, end, flags, special, 7, *numbers)
    things = [(128, 128, 90, 3004, 7), (96, 200, 0, 1, 7), (300, 300, 0, 2001, 7)]
    lumps = dict.fromkeys(("SEGS", "SSECTORS", "NODES", "REJECT", "BLOCKMAP"), b"")
    return {
        "THINGS": b"".join(struct.pack("<5h", *thing) for thing in things),
        "LINEDEFS": lines,
        "SIDEDEFS": b"".join(sides),
        "VERTEXES": b"".join(struct.pack("<hh", *corner) for corner in CORNERS),
        **{name: lumps[name] for name in ("SEGS", "SSECTORS", "NODES")},
        "SECTORS": b"".join(
            struct.pack("<hh8s8shHH", low, high, b"FLOOR4_8", looks, 90, 8, 7)
            for low, high, looks in sectors
        ),
        **{name: lumps[name] for name in ("REJECT", "BLOCKMAP")},
    }


def write_wad(path: Path, maps: dict[str, Any]) -> Path:
    parts: list[tuple[str, bytes]] = []
    for name, sectors in maps.items():
        parts += [(name, b""), *lumps_of(sectors).items()]
    directory, data = b"", b""
    for name, content in parts:
        directory += struct.pack("<ii8s", 12 + len(data), len(content), name.encode())
        data += content
    path.write_bytes(struct.pack("<4sii", b"IWAD", len(parts), 12 + len(data)) + data + directory)
    return path


@pytest.fixture
def plans(tmp_path: Path) -> dict[str, DoomMap]:
    wad = write_wad(tmp_path / "game.wad", {"MAP01": PLAIN, "MAP02": STEP, "MAP03": OPEN})
    return {name: read_map(wad, name) for name in map_names(wad)}


# --- files -------------------------------------------------------------------------------------


def test_a_map_is_read_and_made_static(plans: dict[str, DoomMap], tmp_path: Path) -> None:
    assert list(plans) == ["MAP01", "MAP02", "MAP03"]
    plan = plans["MAP01"]
    assert plan.floors.tolist() == [0, 0, 0] and plan.sky.tolist() == [False, True, False]
    assert plan.ceilings.tolist() == [128, 160, 156]  # the door is open
    assert [sector_at(plan, np.array(p)) for p in ((9.0, 9.0), (900.0, 9.0), (-9.0, 9.0))] == [
        *(A, B, -1)
    ]
    doors = (plan.right >= 0) & (plan.left >= 0)
    assert plan.blocks.tolist() == (~doors).tolist()
    assert plans["MAP02"].blocks[[4, 8]].tolist() == [False, True]  # a door, a step
    things = np.frombuffer(plan.lumps["THINGS"], "<i2").reshape(-1, 5)
    assert things[:, [0, 1, 3]].tolist() == [[96, 200, 1]]
    assert b"MIDGRATE" not in plan.lumps["SIDEDEFS"] and b"STONE" in plan.lumps["SIDEDEFS"]
    lines = np.frombuffer(plan.lumps["LINEDEFS"], "<u2").reshape(-1, 7)
    assert (lines[:, 3:5] == 0).all()
    own = tmp_path / "own.wad"
    own.write_bytes(plan.wad())
    assert map_names(own) == ["MAP01"]
    assert read_map(own, "MAP01").lumps == plan.lumps


def test_what_is_no_map_is_told(tmp_path: Path) -> None:
    wad = write_wad(tmp_path / "game.wad", {"MAP01": PLAIN})
    with pytest.raises(ValueError, match="MAP09"):
        read_map(wad, "MAP09")
    (tmp_path / "other.wad").write_bytes(b"RIFF" + bytes(20))
    with pytest.raises(ValueError, match="RIFF"):
        map_names(tmp_path / "other.wad")


def test_no_map_is_in_two_roles(tmp_path: Path) -> None:
    for wad in WADS:
        write_wad(tmp_path / wad, {f"MAP{i:02d}": PLAIN for i in range(1, 8)})
    found = [
        {(path.name, name) for path, name in maps_of_role(tmp_path, role)}
        for role in ("train", "validation", "test")
    ]
    assert len(set.union(*found)) == sum(map(len, found)) == 14 and min(map(len, found)) >= 3


# --- depth -------------------------------------------------------------------------------------


def first_solid(plan: DoomMap, eye: np.ndarray, ray: np.ndarray, step: float) -> float:
    """Go along a ray in small steps until it is out of all open space."""
    for d in np.arange(step, 2000, step):
        x, y, z = eye + d * ray
        inside = [
            s
            for s, (x0, x1, y0, y1) in enumerate(
                ((0, SIDE, 0, SIDE), (SIDE, 2 * SIDE, 0, SIDE), (2 * SIDE, 2 * SIDE + 32, 192, 320))
            )
            if x0 <= x <= x1 and y0 <= y <= y1
        ]
        if not inside:
            return float(d)
        sector = inside[0]
        if z < plan.floors[sector]:
            return float(d)
        if z > plan.ceilings[sector]:
            return np.inf if plan.sky[sector] else float(d)
    raise AssertionError("the map has no end")


@pytest.mark.parametrize("name", ["MAP01", "MAP02", "MAP03"])
def test_depth_is_where_a_ray_leaves_open_space(plans: dict[str, DoomMap], name: str) -> None:
    plan, kinds = plans[name], set()
    for eye, angle in (((200.0, 300.0, 41.0), 0.1), ((700.0, 250.0, 89.0), 2.9)):
        across, up = np.linspace(-0.9, 0.9, 13) + 0.003, np.linspace(0.7, -0.7, 12)
        depth = depth_at(plan, np.array(eye), angle, across, up)
        assert depth.shape == (12, 13) and not np.isnan(depth).any()
        ahead, right = np.array([np.cos(angle), np.sin(angle)]), [np.sin(angle), -np.cos(angle)]
        for i, v in enumerate(up):
            for j, u in enumerate(across):
                ray = np.r_[ahead + u * np.array(right), v]
                truth = first_solid(plan, np.array(eye), ray, 0.2)
                kinds.add(np.isinf(truth))
                assert depth[i, j] == truth or abs(depth[i, j] - truth) < 0.3, (i, j)
    assert kinds == {True, False}


# --- paths -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_cameras_keep_from_walls_and_ledges(plans: dict[str, DoomMap], kind: Any) -> None:
    for plan in plans.values():
        for seed in range(3):
            flat, yaw, height = draw_path(plan, kind, frames=24, seed=seed)
            again, _, _ = draw_path(plan, kind, frames=24, seed=seed)
            assert flat.shape == (24, 2) and yaw.shape == (24,) and np.array_equal(flat, again)
            assert (clearance(flat, walls_of(plan)) > CLEARANCE - 1e-6).all()
            floors = {plan.floors[sector_at(plan, p / UNIT)] for p in flat}
            assert {floor * UNIT + EYE for floor in floors} == {height}


def test_paths_return_and_move(plans: dict[str, DoomMap]) -> None:
    plan = plans["MAP01"]
    flat, yaw, _ = draw_path(plan, "out_and_back", frames=17, seed=1)
    assert np.array_equal(flat, flat[::-1]) and np.array_equal(yaw, yaw[::-1])
    assert np.hypot(*(flat[8] - flat[0])) > 0.3
    for kind in ("spin", "orbit", "loop"):
        flat, yaw, _ = draw_path(plan, kind, frames=17, seed=1)
        assert np.allclose(flat[0], flat[-1]) and abs(abs(yaw[-1] - yaw[0]) - 2 * np.pi) < 1e-9
        assert (np.hypot(*(flat[8] - flat[0])) > 0.3) == (kind != "spin")
    flat, yaw, _ = draw_path(plan, "walk", frames=32, seed=2)
    ahead = np.stack([np.sin(yaw[:-1]), np.cos(yaw[:-1])], axis=1)
    assert (np.diff(flat, axis=0) * ahead).sum() > 1.5
    with pytest.raises(ValueError, match="swim"):
        draw_path(plan, "swim", frames=4, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0"):
        draw_path(plan, "walk", frames=0, seed=0)


# --- the source --------------------------------------------------------------------------------


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    told(lambda: Player(resolution=64, fov=90), ".[renderers]")


def test_the_workflow_takes_maps(tmp_path: Path) -> None:
    kinds = {name: name for name in ("spin", "orbit", "out_and_back", "loop")}
    dag = Dag(load_config(project_on(tmp_path, "vizdoom", kinds), scale="smoke"))
    jobs = [job for group in dag.stages() for job in group]
    assert {job.stage for job in jobs} >= {"clips", "features", "training", "rollouts", "scores"}
    assert {dag.dataset(split) for split in dag.config.settings.splits} == {"vizdoom"}


# --- the game ----------------------------------------------------------------------------------


@pytest.fixture
def player() -> Player:
    pytest.importorskip("vizdoom", reason="needs the extra `renderers`")
    return Player(resolution=64, fov=90)


def filmed(player: Player, number: int, kind: Any, frames: int) -> tuple[torch.Tensor, ...]:
    plan = read_map(*maps_of_role(player.folder, "test")[number])
    return player.film(plan, *draw_path(plan, kind, frames=frames, seed=number))


def test_frames_agree_under_warping(player: Player) -> None:
    values = []
    for number in range(4):
        cameras, rgb, depth = filmed(player, number, "walk", 13)
        image = rgb.permute(0, 3, 1, 2) / 255
        for i in (0, 8):
            warped, seen = warp_frame(
                image[i], depth[i], cameras[i], depth[i + 4], cameras[i + 4], tolerance=0.01
            )
            assert seen.float().mean() > 0.3
            error = (warped - image[i + 4]).square()[:, seen].mean()
            values.append(float(-10 * torch.log10(error)))
    assert np.mean(values) > 31


def test_the_game_stands_where_it_is_told_to_and_repeats_itself(player: Player) -> None:
    plan = read_map(*maps_of_role(player.folder, "test")[1])
    flat, yaw, height = draw_path(plan, "spin", frames=5, seed=1)
    cameras, rgb, depth = player.film(plan, flat, yaw, height)
    pose = cameras[:, 4:].double().numpy().reshape(-1, 3, 4)
    eye = -np.einsum("tji,tj->ti", pose[..., :3], pose[..., 3])
    assert np.abs(eye - np.c_[flat[:, 0], np.full(5, -height), flat[:, 1]]).max() < 1e-3
    assert np.abs(pose[:, 2, [0, 2]] - np.stack([np.sin(yaw), np.cos(yaw)], 1)).max() < 1e-4
    assert torch.equal(rgb[0], rgb[-1]) and not torch.equal(rgb[0], rgb[2])
    assert torch.equal(cameras[0], cameras[-1])
    digests = {
        hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
        for parts in ((cameras, rgb, depth), player.film(plan, flat, yaw, height))
    }
    assert len(digests) == 1


def test_a_shard_for_the_smoke_workflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vizdoom", reason="needs the extra `renderers`")
    monkeypatch.chdir(tmp_path)
    root = project_on(tmp_path, "vizdoom", {"orbit": "orbit"})
    store = make_first_shard(root, "orbit", monkeypatch)
    assert store.has_depth and [clip.trajectory for clip in store.clips] == ["orbit"] * 2
    assert all(0.3 < np.median(store.depth(clip)) < 30 for clip in range(2))
    assert all(store.rgb(clip)[0].std() > 3 for clip in range(2))
    assert np.array_equal(store.cameras(0)[0], store.cameras(0)[-1])
    assert not [*root.glob("_vizdoom*")]
