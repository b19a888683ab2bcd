"""Bundle adjustment of a few frames: poses and inverse depths that explain where cells went.

The layer of DROID-SLAM (Teed and Deng 2021, eq. 4 and 5) with given correspondences: every cell of
a frame has one inverse depth, and the Schur complement takes all of them out of the equations.
Legend: T frames, N cells of a frame, E directed edges between frames. Positions are normalised
(u, v), residuals are in cells (`cells_of`), poses are world-to-camera (3, 4); all float64.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.geometry.cameras import compose_poses, invert_poses

HUBER = 1.0  # cells; beyond it an error counts linearly
STEPS = 12
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-3, 1e-9, 1e6
# Of the mean depth; DROID-SLAM's, whose depths have a mean of about 1.
LEAST_DEPTH = 0.2
# Keeps what no residual speaks of where it is.
REST = 1e-6


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Where cameras stand and how far cells are, in a unit of its own.

    Attributes:
        poses: (T, 3, 4), the first one fixed.
        inverse_depth: (T, N) of planar depth; its mean is 1, which fixes the scale.
        intrinsics: (T, 4), normalised fx fy cx cy, as given.
        places: Positions (N, 2) of the cells in every frame.
    """

    poses: Tensor
    inverse_depth: Tensor
    intrinsics: Tensor
    places: Tensor

    def rays(self, frames: Tensor) -> Tensor:
        """Return directions (E, N, 3) with unit z through the cells of frames (E,)."""
        return rays_through(self.places, self.intrinsics[frames][:, None])

    def scaled(self) -> "Scene":
        """Return the same scene in the unit in which the mean inverse depth is 1."""
        unit = self.inverse_depth.mean()
        poses = torch.cat([self.poses[..., :3], self.poses[..., 3:] * unit], dim=-1)
        return replace(self, poses=poses, inverse_depth=self.inverse_depth / unit)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Where cells of one frame are seen in another.

    Attributes:
        edges: (E, 2) from a frame to another.
        targets: (E, N, 2) positions in the other frame.
        weight: (E, N), how much each counts in the adjustment; 0 where there is none.
    """

    edges: Tensor
    targets: Tensor
    weight: Tensor


def cells_of(height: int, width: int) -> Tensor:
    """Return how many cells (2,) of 8 pixels lie along u and v of the image at an area of 512^2."""
    size = torch.tensor([width, height], dtype=torch.float64)
    return size * (512 / (width * height) ** 0.5) / 8


def rays_through(uv: Tensor, intrinsics: Tensor) -> Tensor:
    """Return directions (..., 3) with unit z through positions (..., 2) of intrinsics (..., 4)."""
    return F.pad((uv - intrinsics[..., 2:]) / intrinsics[..., :2], (0, 1), value=1.0)


def transfer(scene: Scene, edges: Tensor) -> tuple[Tensor, Tensor]:
    """Return where cells of the first frames of edges (E, 2) are in the second ones.

    Returns:
        local: (E, N, 3), the points in the second camera times the inverse depth in the first.
        uv: (E, N, 2) positions; meaningless where local z is not above 0.
    """
    first, second = edges.unbind(1)
    relative = relative_poses(scene.poses, edges)
    turned = scene.rays(first) @ relative[:, :, :3].mT
    local = turned + scene.inverse_depth[first][..., None] * relative[:, None, :, 3]
    z = local[..., 2:].clamp(min=1e-6)
    focal, centre = scene.intrinsics[second][:, None].split(2, dim=-1)
    return local, local[..., :2] / z * focal + centre


def relative_poses(poses: Tensor, edges: Tensor) -> Tensor:
    """Return the transforms (E, 3, 4) from the first frames' axes to the second ones'."""
    first, second = edges.unbind(1)
    return compose_poses(poses[second], invert_poses(poses[first]))


def visible(local: Tensor, inverse_depth: Tensor) -> Tensor:
    """Return which cells (E, N) are farther than `LEAST_DEPTH` in both views of an edge.

    Args:
        local: Of `transfer`.
        inverse_depth: (E, N) of the cells in their first frame.
    """
    # local z is the depth in the second view over that in the first
    near = local[..., 2] > LEAST_DEPTH * inverse_depth
    return near & (inverse_depth * LEAST_DEPTH < 1) & (local[..., 2] > 0)


def reprojection_errors(scene: Scene, flow: Flow, cells: Tensor) -> Tensor:
    """Return the distances, in cells, of all correspondences of depth > 0.2 in both views, (M,).

    Args:
        scene: What explains them.
        flow: The correspondences; those of weight 0 are none.
        cells: Of `cells_of`.
    """
    local, uv = transfer(scene, flow.edges)
    counted = visible(local, scene.inverse_depth[flow.edges[:, 0]]) & (flow.weight > 0)
    return torch.linalg.vector_norm((uv - flow.targets) * cells, dim=-1)[counted]


def adjust(scene: Scene, flow: Flow, cells: Tensor, *, poses: bool = True) -> Scene:
    """Return the scene that explains correspondences best, by Levenberg and Marquardt's steps.

    The first pose stays, and with free poses the unit is that of `Scene.scaled`. The loss is
    Huber's, of distances in cells.

    Args:
        scene: Where to start.
        flow: The correspondences.
        cells: Of `cells_of`.
        poses: Whether poses are free, or inverse depths alone.
    """
    damping, cost = FIRST_DAMPING, _cost(scene, flow, cells)
    for _ in range(STEPS):
        equations = _equations(scene, flow, cells, poses=poses)
        while damping <= MOST_DAMPING:
            tried = _moved(scene, *_solve(*equations, damping=damping))
            found = _cost(tried, flow, cells)
            if found < cost:
                break
            damping *= 10
        else:
            break
        gain, scene, cost = cost - found, tried.scaled() if poses else tried, found
        damping = max(damping / 10, LEAST_DAMPING)
        if gain < 1e-5 * cost:
            break
    return scene


def _cost(scene: Scene, flow: Flow, cells: Tensor) -> float:
    local, uv = transfer(scene, flow.edges)
    size = torch.linalg.vector_norm((uv - flow.targets) * cells, dim=-1)
    loss = torch.where(size < HUBER, size.square() / 2, HUBER * (size - HUBER / 2))
    # what falls behind a camera must not look explained
    return float((flow.weight * loss.where(local[..., 2] > 0, 1e6)).sum())


def _equations(
    scene: Scene, flow: Flow, cells: Tensor, *, poses: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the blocks of the normal equations of all poses (P = 6 T) and depths (T N).

    Returns:
        Of poses (P, P), of poses and depths (P, T N), of depths (T N), and the right sides (P,) and
        (T N,). Those of poses that are fixed are 0.
    """
    first, second = flow.edges.unbind(1)
    frames, count = scene.inverse_depth.shape
    local, uv = transfer(scene, flow.edges)
    residual = (flow.targets - uv) * cells
    size = torch.linalg.vector_norm(residual, dim=-1)
    weight = flow.weight * (local[..., 2] > 0) * HUBER / size.clamp(min=HUBER)
    by_point = _projection_jacobian(local, scene.intrinsics[second], cells)
    relative = relative_poses(scene.poses, flow.edges)
    by_depth = by_point @ relative[:, None, :, 3:]  # (E, N, 2, 1)
    index = first[:, None] * count + torch.arange(count, device=first.device)
    right = (weight[..., None] * by_depth[..., 0] * residual).sum(-1)
    own = (weight * by_depth[..., 0].square().sum(-1)).flatten()
    empty = scene.inverse_depth.new_zeros
    depths = empty(frames * count).index_add(0, index.flatten(), own)
    right_depths = empty(frames * count).index_add(0, index.flatten(), right.flatten())
    poses_poses, right_poses = empty(6 * frames, 6 * frames), empty(6 * frames)
    poses_depths = empty(6 * frames, frames * count)
    if poses:
        moves = _pose_jacobian(local, scene.inverse_depth[first])  # (E, N, 3, 6)
        by_second = by_point @ moves
        by_first = -by_second @ _adjoint(relative)[:, None]
        both = torch.cat([by_first, by_second], dim=-1)  # (E, N, 2, 12)
        weighted = weight[..., None, None] * both
        numbers = torch.arange(6, device=first.device)
        rows = torch.cat([6 * first[:, None] + numbers, 6 * second[:, None] + numbers], dim=1)
        squares = torch.einsum("enrp,enrq->epq", weighted, both)
        poses_poses.index_put_((rows[:, :, None], rows[:, None]), squares, accumulate=True)
        sides = torch.einsum("enrp,enr->ep", weighted, residual)
        right_poses.index_put_((rows,), sides, accumulate=True)
        mixed = torch.einsum("enrp,enr->epn", weighted, by_depth[..., 0])
        places = (rows[:, :, None], index[:, None].expand(-1, 12, -1))
        poses_depths.index_put_(places, mixed, accumulate=True)
        for part in (poses_poses, poses_poses.mT, right_poses, poses_depths):
            part[:6] = 0
    return poses_poses, poses_depths, depths, right_poses, right_depths


def _solve(
    poses: Tensor,
    mixed: Tensor,
    depths: Tensor,
    right: Tensor,
    right_depths: Tensor,
    *,
    damping: float,
) -> tuple[Tensor, Tensor]:
    """Return the damped steps of poses (T, 6) and of inverse depths (T N,)."""
    damped = depths * (1 + damping) + REST
    diagonal = torch.diag(poses.diagonal() * damping + REST)
    shared = mixed / damped
    reduced = poses + diagonal - shared @ mixed.mT
    step = torch.linalg.solve(reduced, right - shared @ right_depths)
    return step.unflatten(0, (-1, 6)), (right_depths - mixed.mT @ step) / damped


def _moved(scene: Scene, step: Tensor, depths: Tensor) -> Scene:
    """Return the scene after steps (T, 6) of the poses and (T N,) of inverse depths."""
    inverse = scene.inverse_depth + depths.view_as(scene.inverse_depth)
    return replace(
        scene,
        poses=compose_poses(exponential(step), scene.poses),
        # a point at infinity may not come back from behind
        inverse_depth=inverse.clamp(min=1e-3),
    )


def exponential(step: Tensor) -> Tensor:
    """Return the rigid transforms (T, 3, 4) of twists (T, 6), translation first."""
    matrix = step.new_zeros(len(step), 4, 4)
    matrix[:, :3, :3], matrix[:, :3, 3] = _cross(step[:, 3:]), step[:, :3]
    return torch.linalg.matrix_exp(matrix)[:, :3]


def _cross(vectors: Tensor) -> Tensor:
    """Return matrices (..., 3, 3) that take x to vector x x."""
    axes = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return torch.linalg.cross(vectors[..., None, :], axes.expand(*vectors.shape, 3)).mT


def _adjoint(poses: Tensor) -> Tensor:
    """Return matrices (E, 6, 6) that bring twists of the first frame to the second's axes."""
    rotation, translation = poses[:, :, :3], poses[:, :, 3]
    upper = torch.cat([rotation, _cross(translation) @ rotation], dim=-1)
    return torch.cat([upper, torch.cat([torch.zeros_like(rotation), rotation], dim=-1)], dim=-2)


def _pose_jacobian(local: Tensor, inverse_depth: Tensor) -> Tensor:
    """Return how points move with a twist of the second camera, (E, N, 3, 6)."""
    eye = torch.eye(3, dtype=local.dtype, device=local.device)
    return torch.cat([inverse_depth[..., None, None] * eye, -_cross(local)], dim=-1)


def _projection_jacobian(local: Tensor, intrinsics: Tensor, cells: Tensor) -> Tensor:
    """Return how positions in cells change with points, (E, N, 2, 3)."""
    x, y, z = local.unbind(-1)
    z = z.clamp(min=1e-3)
    focal = intrinsics[:, None, :2] * cells
    zero = torch.zeros_like(z)
    rows = [torch.stack([1 / z, zero, -x / z**2], -1), torch.stack([zero, 1 / z, -y / z**2], -1)]
    return focal[..., None] * torch.stack(rows, dim=-2)
