"""Frames, curves and points as pages can show them from a disk, without a server.

A page of `file://` may not read files by script, but may show pictures: the frames of a video lie
in one picture, a sprite, so that a slider steps exactly. Points are in the page.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from markupsafe import Markup, escape
from numpy.typing import NDArray
from PIL import Image

from geomem.geometry.cameras import camera_centres, split_cameras
from geomem.geometry.points import unproject
from geomem.site.scenes import Frames

LOSSLESS_UP_TO = 64  # pixels: larger frames take too much room
QUALITY = 90
POINTS = 20_000
WIDTH, HEIGHT = 640.0, 240.0  # of curves, user units of SVG
LEFT, RIGHT, TOP, BOTTOM = 48.0, 12.0, 12.0, 28.0
# Okabe and Ito's, without black and yellow: they stand out from white and from black
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
DASHES = ("", "6 3", "2 3", "8 3 2 3")
TO_THREE = (1.0, -1.0, -1.0)  # OpenCV's axes (y down, z forward) to those of OpenGL


def columns_of(length: int) -> int:
    """Return how many frames stand side by side in a sprite of `length` frames."""
    return int(np.ceil(np.sqrt(length)))


def write_sprite(path: Path, frames: Frames) -> None:
    """Write frames (T, H, W, 3) as one WebP picture, row by row, `columns_of(T)` in a row."""
    length, height, width = frames.shape[:3]
    columns = columns_of(length)
    rows = -(-length // columns)
    sheet = np.zeros((rows * columns, height, width, 3), np.uint8)
    sheet[:length] = frames
    sheet = sheet.reshape(rows, columns, height, width, 3).swapaxes(1, 2)
    picture = Image.fromarray(sheet.reshape(rows * height, columns * width, 3))
    lossless = max(height, width) <= LOSSLESS_UP_TO
    picture.save(path, lossless=lossless, quality=QUALITY, method=4)


def style_of(index: int) -> tuple[str, str]:
    """Return colour and dashes of a curve."""
    return COLOURS[index % len(COLOURS)], DASHES[index // len(COLOURS) % len(DASHES)]


def draw_curves(
    curves: Mapping[int, Sequence[float | None]],
    *,
    label: str,
    frames: range,
    cap: float | None = None,
) -> Markup:
    """Return curves over frames as SVG, with a line that a script moves to the frame shown.

    Args:
        curves: Index of a video (its style) -> value of each frame.
        label: Of the vertical axis, with its unit.
        frames: That are drawn, the generated ones.
        cap: Value of a perfect copy; it is drawn at the upper edge, wherever that is.
    """
    known = [v for values in curves.values() for v in values if v is not None]
    first, last = frames[0], frames[-1]
    # a copy would press all others together
    scaled = [value for value in known if cap is None or value < cap] or known
    low, high = min(scaled), max(scaled)
    high = high if high > low else low + 1

    def x(frame: float) -> float:
        return LEFT + (frame - first) / max(last - first, 1) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (min(value, high) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for share in (0.0, 0.5, 1.0):
        value, at = low + share * (high - low), y(low + share * (high - low))
        parts.append(f'<path class="grid" d="M{LEFT:.1f} {at:.1f}H{WIDTH - RIGHT:.1f}"/>')
        parts.append(
            f'<text x="{LEFT - 6:.1f}" y="{at + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        )
    for frame in sorted({first, (first + last) // 2, last}):
        parts.append(
            f'<text x="{x(frame):.1f}" y="{HEIGHT - 8:.1f}" text-anchor="middle">{frame}</text>'
        )
    for index, values in curves.items():
        colour, dashes = style_of(index)
        points = " ".join(
            f"{x(frame):.1f},{y(value):.1f}"
            for frame, value in enumerate(values)
            if value is not None
        )
        parts.append(
            f'<polyline data-video="{index}" points="{points}" fill="none" stroke="{colour}" '
            f'stroke-width="2" stroke-dasharray="{dashes}"/>'
        )
    parts.append(
        f'<line class="now" data-first="{first}" data-last="{last}" '
        f'data-left="{LEFT:.1f}" data-right="{WIDTH - RIGHT:.1f}" '
        f'x1="{LEFT:.1f}" x2="{LEFT:.1f}" y1="{TOP:.1f}" y2="{HEIGHT - BOTTOM:.1f}"/>'
    )
    return Markup(
        f'<svg class="curves" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" '
        f'aria-label="{escape(label)} by frame">{"".join(parts)}</svg>'
    )


def scene_cloud(
    rgb: Frames, depth: NDArray[np.float32], cameras: NDArray[np.float32]
) -> dict[str, Any]:
    """Return a clip's true surfaces as points in the frame of its first camera, for the page.

    Args:
        rgb: (T, H, W, 3).
        depth: (T, H, W), metres; not finite where there is no surface.
        cameras: (T, 16).
    """
    lifted = unproject(torch.from_numpy(np.array(depth)), torch.from_numpy(np.array(cameras)))
    _, w2c = split_cameras(torch.from_numpy(np.array(cameras)))
    points = _in_first(lifted.numpy().reshape(-1, 3), w2c)
    centres = _in_first(camera_centres(w2c).numpy(), w2c)
    [seen] = np.nonzero(np.isfinite(points).all(1))
    kept = seen[np.linspace(0, len(seen) - 1, min(POINTS, len(seen))).astype(int)]
    per_frame = points.shape[0] // len(rgb)
    ends = np.searchsorted(kept, np.arange(1, len(rgb) + 1) * per_frame)
    cloud = packed_cloud("true depth", points[kept], rgb.reshape(-1, 3)[kept], path=centres)
    return {**cloud, "ends": ends.tolist()}


def _in_first(points: NDArray[np.float32], w2c: torch.Tensor) -> NDArray[np.float32]:
    """Return world points (N, 3) in the axes of the first of cameras (T, 3, 4)."""
    rotation, shift = w2c[0, :, :3].numpy(), w2c[0, :, 3].numpy()
    moved: NDArray[np.float32] = points @ rotation.T + shift
    return moved


def packed_cloud(
    label: str,
    points: NDArray[np.float32],
    colours: Frames,
    *,
    path: NDArray[np.float32] | None = None,
) -> dict[str, Any]:
    """Return points as JSON: 16-bit steps of `step`, in base64, with OpenGL's axes.

    Args:
        label: Of the cloud.
        points: (N, 3), OpenCV axes, world units.
        colours: (N, 3).
        path: (T, 3) places of cameras.
    """
    path = np.zeros((0, 3), np.float32) if path is None else path
    both = np.concatenate([points, path]) * np.array(TO_THREE, np.float32)
    step = max(float(np.abs(both).max(initial=0)), 1e-6) / 32767
    steps = np.round(both / step).astype("<i2")
    return {
        "label": label,
        "step": step,
        "points": base64.b64encode(steps[: len(points)].tobytes()).decode(),
        "colours": base64.b64encode(np.ascontiguousarray(colours).tobytes()).decode(),
        "path": (steps[len(points) :].astype(float) * step).round(4).tolist(),
    }
