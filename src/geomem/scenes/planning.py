"""Paths for a camera that keeps its distance from walls and furniture.

All points are (x, z) of the world frame in metres; arrays are float64.
"""

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from geomem.scenes.layout import FloorPlan, Footprint

CLEARANCE = 0.35  # least distance of a camera from anything that stands on the floor
_MARGIN = 0.03  # what smoothing and sampling may take away
CELL = 0.1  # metres


def clearance(points: np.ndarray, footprints: Sequence[Footprint]) -> np.ndarray:
    """Return the distance (P,) of points (P, 2) to the nearest footprint, 0 inside one."""
    x, z, half_x, half_z, yaw = np.array(footprints).T
    dx, dz = points[:, :1] - x, points[:, 1:] - z
    cos, sin = np.cos(yaw), np.sin(yaw)
    gap_x = np.abs(cos * dx - sin * dz) - half_x
    gap_z = np.abs(sin * dx + cos * dz) - half_z
    return np.hypot(gap_x.clip(0), gap_z.clip(0)).min(1)


class Walkable:
    """Grid over a plan that knows how much space there is around every cell."""

    def __init__(self, plan: FloorPlan) -> None:
        self.plan = plan
        self.footprints = [*plan.walls, *plan.obstacles]
        self.shape = (int(plan.edges_x[-1] / CELL) + 1, int(plan.edges_z[-1] / CELL) + 1)
        self.space = self._measure()

    def _measure(self) -> np.ndarray:
        """Return the clearance (nx, nz) of all cells, room by room against what is near."""
        cells = np.argwhere(np.ones(self.shape)) * CELL
        space = np.full(len(cells), np.inf)
        # Each footprint matters within a metre only; beyond that more space changes nothing.
        for f in self.footprints:
            reach = np.hypot(f.half_x, f.half_z) + 1.0
            near = (np.abs(cells - (f.x, f.z)) < reach).all(1)
            space[near] = np.minimum(space[near], clearance(cells[near], [f]))
        return space.clip(max=1.0).reshape(self.shape)

    def is_free(self, points: np.ndarray) -> bool:
        """Return whether all points (P, 2) keep the clearance, by exact distances."""
        return bool((clearance(points, self.footprints) >= CLEARANCE).all())

    def free_cells(self, room: int) -> np.ndarray:
        """Return the cells (C, 2) of a room where a camera may stand, as grid indices."""
        x0, x1, z0, z1 = self.plan.room_bounds(room)
        low, high = np.ceil(np.array([x0, z0]) / CELL), np.floor(np.array([x1, z1]) / CELL)
        i0, j0, i1, j1 = (int(v) for v in (*low, *high))
        inside = np.argwhere(self.space[i0:i1, j0:j1] >= CLEARANCE + _MARGIN)
        return inside + np.array([i0, j0])

    def pick_spot(
        self, room: int, rng: np.random.Generator, *, tries: int = 6
    ) -> np.ndarray | None:
        """Return the cell (2,) with most space among a few random ones, None if there is none."""
        cells = self.free_cells(room)
        if not len(cells):
            return None
        drawn = cells[rng.integers(len(cells), size=tries)]
        return drawn[self.space[drawn[:, 0], drawn[:, 1]].argmax()]

    def find_path(self, start: np.ndarray, goal: np.ndarray) -> np.ndarray | None:
        """Return the cells (P, 2) of a short path with much space (A*), None if there is none."""
        source, target = (int(start[0]), int(start[1])), (int(goal[0]), int(goal[1]))
        parent = {source: source}
        cost = {source: 0.0}
        queue = [(0.0, source)]
        while queue:
            _, here = heapq.heappop(queue)
            if here == target:
                return _trace_back(parent, target)
            for step, length in _STEPS:
                there = (here[0] + step[0], here[1] + step[1])
                if not (0 <= there[0] < self.shape[0] and 0 <= there[1] < self.shape[1]):
                    continue
                space = self.space[there]
                if space < CLEARANCE + _MARGIN:
                    continue
                total = cost[here] + length * (3.0 - 2.0 * space)
                if total < cost.get(there, np.inf):
                    cost[there], parent[there] = total, here
                    rest = np.hypot(target[0] - there[0], target[1] - there[1])
                    heapq.heappush(queue, (total + rest, there))
        return None

    def smooth(self, cells: np.ndarray) -> np.ndarray:
        """Return a path (P, 2) along `cells` in metres, 5 cm a step, as smooth as space allows."""
        return smooth_path(cells * CELL, self.is_free)


def smooth_path(path: np.ndarray, is_free: Callable[[np.ndarray], bool]) -> np.ndarray:
    """Return a polyline (P, 2) in steps of 5 cm, as round as `is_free` of its points allows."""
    path = resample(path, 0.05)
    for window in (31, 23, 15, 11, 7, 5, 3):
        rounded = moving_average(moving_average(path, window), window)
        if is_free(rounded):
            return resample(rounded, 0.05)
    return path


_STEPS = tuple(((i, j), float(np.hypot(i, j))) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j)


def _trace_back(
    parent: dict[tuple[int, int], tuple[int, int]], cell: tuple[int, int]
) -> np.ndarray:
    path = [cell]
    while parent[path[-1]] != path[-1]:
        path.append(parent[path[-1]])
    return np.array(path[::-1])


def resample(path: np.ndarray, step: float) -> np.ndarray:
    """Return points on the polyline (P, 2) at equal distances of about `step` metres."""
    along = np.r_[0.0, np.cumsum(np.linalg.norm(np.diff(path, axis=0), axis=1))]
    at = np.linspace(0, along[-1], max(2, round(along[-1] / step) + 1))
    return np.stack([np.interp(at, along, c) for c in path.T], axis=1)


def moving_average(values: np.ndarray, window: int) -> np.ndarray:
    """Return the centred mean of (P, ...) values over an odd window; ends are repeated."""
    pad = [(window // 2, window // 2)] + [(0, 0)] * (values.ndim - 1)
    total = np.cumsum(np.pad(values, pad, mode="edge"), axis=0)
    total = np.concatenate([np.zeros_like(total[:1]), total])
    return (total[window:] - total[:-window]) / window
