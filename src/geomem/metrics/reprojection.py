"""The reprojection error of a clip: what bundle adjustment cannot explain by one rigid scene.

Deterministic, and its own in place of DROID-SLAM's; see docs/metrics.md for what differs.
Legend: T frames, H, W pixels, N cells of a frame, E edges.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.geometry.cameras import relative_to_first, split_cameras
from geomem.geometry.points import pixel_grid
from geomem.metrics.bundle import (
    Flow,
    Scene,
    adjust,
    cells_of,
    reprojection_errors,
    transfer,
    visible,
)
from geomem.metrics.flow import match_cells, swept

# Pixels of the shorter side at which cells are looked for, one after another.
LEVELS = (16, 32, 64)
# Likeness above which a correspondence is more than chance, and how many a frame needs.
ALIKE, LEAST_CELLS = 0.3, 10
# Share of cells of one frame inside another from which two far frames are compared as well.
COVISIBLE = 0.5


@dataclass(frozen=True, kw_only=True)
class Reprojection:
    """What bundle adjustment found.

    Attributes:
        error: Mean distance in cells, over all edges.
        poses: (T, 3, 4) world-to-camera, the first the identity, of a unit of their own.
    """

    error: float
    poses: Tensor


@dataclass(frozen=True, kw_only=True)
class Start:
    """Where bundle adjustment starts.

    Attributes:
        scene: The given cameras, and depths at which cells look alike under them.
        edges: (E, 2), which frames are compared.
        levels: The frames (T, 3, h, w), coarse to fine.
        cells: Of `cells_of`.
    """

    scene: Scene
    edges: Tensor
    levels: list[Tensor]
    cells: Tensor


def started(images: Tensor, cameras: Tensor, depth: Tensor, *, grid: int, reach: int) -> Start:
    """Return where bundle adjustment of frames starts.

    Args:
        images: (T, 3, H, W) in [0, 1].
        cameras: The given ones (T, 16): their intrinsics hold, their poses are the start.
        depth: A first guess of planar depth (T, h, w) in the cameras' unit.
        grid: Cells along either side that are followed.
        reach: Each frame is compared with so many before and after it, and with one farther one.
    """
    scene = first_guess(cameras, depth, grid)
    edges = torch.cat([neighbours(len(images), reach), covisible(scene, reach)])
    edges = edges.to(cameras.device)
    levels = [shown(images, side) for side in LEVELS]
    return Start(
        scene=swept(levels[-1], scene, edges).scaled(),
        edges=edges,
        levels=levels,
        cells=cells_of(*images.shape[-2:]).to(cameras.device),
    )


def reprojection(start: Start, *, poses: bool = True) -> Reprojection | None:
    """Return the reprojection error, or None where the frames cannot be solved.

    They cannot where a frame has too little in common with all others for its pose.

    Args:
        start: Of `started`.
        poses: Whether poses are free; without, the given cameras hold too.
    """
    scene = start.scene
    for level in start.levels:
        flow = match_cells(level, scene, start.edges)
        scene = adjust(scene, flow, start.cells, poses=poses)
    errors = reprojection_errors(scene, flow, start.cells)
    if not (_connected(flow, len(scene.poses)) and len(errors) and errors.isfinite().all()):
        return None
    return Reprojection(error=float(errors.mean()), poses=scene.poses)


def first_guess(cameras: Tensor, depth: Tensor, grid: int) -> Scene:
    """Return the scene of given cameras (T, 16) and depth (T, h, w), with grid^2 cells a frame."""
    intrinsics, w2c = split_cameras(cameras.double())
    inverse = F.interpolate(1 / depth.double()[:, None], size=(grid, grid), mode="area")
    scene = Scene(
        poses=relative_to_first(w2c[None])[0],
        inverse_depth=inverse.flatten(1),
        intrinsics=intrinsics,
        places=pixel_grid(grid, grid, device=cameras.device).double().flatten(0, 1),
    )
    return scene.scaled()


def shown(images: Tensor, side: int) -> Tensor:
    """Return images (T, 3, H, W) with a shorter side of `side` pixels."""
    height, width = images.shape[-2:]
    scale = side / min(height, width)
    if scale == 1:
        return images
    size = (round(height * scale), round(width * scale))
    return F.interpolate(images, size=size, mode="bicubic", antialias=True).clamp(0, 1)


def neighbours(frames: int, reach: int) -> Tensor:
    """Return the edges (E, 2), either way, between frames up to `reach` apart."""
    pairs = [(i, j) for i in range(frames) for j in range(frames) if i != j and abs(i - j) <= reach]
    return torch.tensor(pairs, dtype=torch.long).view(-1, 2)


def covisible(scene: Scene, reach: int) -> Tensor:
    """Return from each frame the edge to that beyond `reach` which shows most of it, (E, 2).

    Frames of which none shows half of the cells have no such edge.
    """
    frames = len(scene.poses)
    device = scene.poses.device
    pairs = torch.cartesian_prod(torch.arange(frames), torch.arange(frames)).to(device)
    local, uv = transfer(scene, pairs)
    inside = visible(local, scene.inverse_depth[pairs[:, 0]]) & ((uv > 0) & (uv < 1)).all(-1)
    share = inside.double().mean(1).where((pairs[:, 0] - pairs[:, 1]).abs() > reach, 0.0)
    best, other = share.view(frames, frames).max(1)
    found = torch.stack([torch.arange(frames, device=device), other], dim=1)
    return found[best >= COVISIBLE].cpu()


def _connected(flow: Flow, frames: int) -> bool:
    """Return whether every frame shares enough with others to have a pose."""
    counts = torch.zeros(frames, dtype=torch.long, device=flow.edges.device)
    alike = (flow.weight > ALIKE).sum(1)
    for side in flow.edges.unbind(1):
        counts.index_add_(0, side, alike)
    return bool((counts >= LEAST_CELLS).all())
