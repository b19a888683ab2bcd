"""A drawing of a camera's path from above, and the same in words.

Legend: T frames. Cameras are as in `geomem.geometry.cameras`. The drawing is in the frame of the
first camera: its right is right, its forward is up; lengths are in the world's unit.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from geomem.geometry.cameras import camera_centres, relative_to_first, split_cameras

SIDE, MARGIN = 240.0, 30.0  # of the drawing, user units of SVG
ARROWS, STROKE = 8, 0.12  # strokes that point, and their length as a share of the path's extent
STILL = 0.05  # world units: below that the path is a place
LEAST_TURN = 5.0  # degrees worth a word
GIVEN, NEW = "#8a8a8a", "#0b57a4"


def top_view(cameras: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return places and viewing directions (T, 2), right and forward, of cameras (T, 16)."""
    _, w2c = split_cameras(torch.from_numpy(np.array(cameras)).double())
    w2c = relative_to_first(w2c[None])[0]
    # the third row of the rotation is where the camera looks
    return camera_centres(w2c)[:, [0, 2]].numpy(), w2c[:, 2, [0, 2]].numpy()


def path_marks(cameras: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return where the cameras (T, 16) stand on the drawing and the ends of strokes that point
    where they look, (T, 2, 2): x right, y down, user units."""
    places, looks = top_view(cameras)
    low, high = places.min(0), places.max(0)
    extent = max(float((high - low).max()), STILL)
    sizes = np.maximum(np.linalg.norm(looks, axis=-1, keepdims=True), 1e-9)
    ends = places + looks / sizes * STROKE * extent
    offsets = (np.stack([places, ends], axis=1) - (low + high) / 2) / extent
    marks: NDArray[np.float64] = SIDE / 2 + offsets * (SIDE - 2 * MARGIN) * [1, -1]
    return marks


def draw_path(cameras: NDArray[np.float32], *, context: int) -> str:
    """Return an SVG: the way of the given frames grey, of the generated ones blue; a disc where it
    starts, a square where it ends, and strokes that point where the camera looks.

    Args:
        cameras: (T, 16).
        context: Given frames, the first ones.
    """
    places, ends = (
        [f"{x:.1f},{y:.1f}" for x, y in points] for points in path_marks(cameras).swapaxes(0, 1)
    )

    def line(points: list[str], colour: str, width: int) -> str:
        return (
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour}" '
            f'stroke-width="{width}" stroke-linejoin="round" stroke-linecap="round"/>'
        )

    parts = [line(places[:context], GIVEN, 4), line(places[context - 1 :], NEW, 4)]
    shown = np.unique(np.linspace(0, len(places) - 1, ARROWS).round().astype(int)).tolist()
    for t in shown:
        parts.append(line([places[t], ends[t]], GIVEN if t < context else NEW, 2))
    (x, y), (u, v) = places[0].split(","), places[-1].split(",")
    parts.append(f'<circle cx="{x}" cy="{y}" r="6" fill="{GIVEN}"/>')
    parts.append(
        f'<rect x="{float(u) - 5:.1f}" y="{float(v) - 5:.1f}" width="10" height="10" fill="{NEW}"/>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE:.0f} {SIDE:.0f}" '
        f'width="{SIDE:.0f}" height="{SIDE:.0f}"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def describe_path(cameras: NDArray[np.float32]) -> str:
    """Return the path in words, for those who do not see the drawing."""
    places, looks = top_view(cameras)
    right, forward = places[-1]
    angles = np.degrees(np.unwrap(np.arctan2(looks[:, 0], looks[:, 1])))
    words = []
    if abs(forward) >= STILL:
        words.append(f"{abs(forward):.1f} {'forward' if forward > 0 else 'back'}")
    if abs(right) >= STILL:
        words.append(f"{abs(right):.1f} to the {'right' if right > 0 else 'left'}")
    moved = float(np.linalg.norm(np.diff(places, axis=0), axis=1).sum())
    if words:
        told = f"It ends {' and '.join(words)} of where it starts"
    else:
        told = "It ends where it starts" if moved >= STILL else "It stays in its place"
    told += f", after a way of {moved:.1f}" if moved >= STILL else ""
    turn = float(angles[-1] - angles[0])
    span = float(np.ptp(angles))
    if abs(turn) >= LEAST_TURN:
        told += f"; it turns {abs(turn):.0f} degrees to the {'right' if turn > 0 else 'left'}"
    elif span >= LEAST_TURN:
        told += f"; it turns by {span:.0f} degrees and back"
    else:
        told += "; it looks the same way"
    return told + "."
