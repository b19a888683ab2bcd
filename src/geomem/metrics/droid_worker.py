"""Run by the interpreter of an installed DROID-SLAM, once a repeat; it imports no geomem.

    python droid_worker.py REPOSITORY WEIGHTS FOLDER

FOLDER has `frames.npy` (uint8 (T, H, W, 3)) and `intrinsics.npy` (float64 (4,), pixels of those
frames); `result.json` is written there: the mean reprojection error over all edges of the last
global graph, in cells of the 1/8 grid at an area of 512^2, and how many edges there were.
"""

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

AREA, CELL = 512**2, 8


def stream(frames: np.ndarray, intrinsics: np.ndarray) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield time, image (1, 3, h, w) of 0 to 255 and intrinsics (4,) in its pixels."""
    height, width = frames.shape[1:3]
    scale = (AREA / (height * width)) ** 0.5
    # sides are multiples of a cell; resized rather than cut, so that the whole frame is seen
    h, w = (round(side * scale / CELL) * CELL for side in (height, width))
    numbers = torch.from_numpy(intrinsics) * torch.tensor(
        [w / width, h / height, w / width, h / height], dtype=torch.float64
    )
    for time, frame in enumerate(frames):
        image = torch.from_numpy(frame.copy()).movedim(-1, 0)[None].float()
        yield time, F.interpolate(image, size=(h, w), mode="bilinear"), numbers.float()


def options(weights: str, size: tuple[int, int], frames: int) -> Namespace:
    """Return the arguments of DROID-SLAM's own demo, without its window."""
    return Namespace(
        **{"weights": weights, "buffer": max(512, frames + 1), "image_size": list(size)},
        **{"disable_vis": True, "stereo": False, "upsample": False, "beta": 0.3},
        **{"filter_thresh": 2.4, "warmup": 8, "keyframe_thresh": 4.0},
        **{"frontend_thresh": 16.0, "frontend_window": 25, "frontend_radius": 2},
        **{"frontend_nms": 1, "backend_thresh": 22.0, "backend_radius": 2, "backend_nms": 3},
    )


def keep_last_graph(factor_graph: Any) -> dict[str, Tensor]:
    """Return where the edges and targets of each graph appear just before it is emptied."""
    kept: dict[str, Tensor] = {}
    emptied = factor_graph.FactorGraph.clear_edges

    def clear_edges(graph: Any) -> None:
        kept.update({name: getattr(graph, name).clone() for name in ("ii", "jj", "target")})
        emptied(graph)

    factor_graph.FactorGraph.clear_edges = clear_edges
    return kept


def measure(repository: str, weights: str, folder: Path) -> dict[str, Any]:
    """Return what one run of DROID-SLAM finds."""
    sys.path[:0] = [str(Path(repository) / "droid_slam"), repository]
    droid_module = importlib.import_module("droid")
    kept = keep_last_graph(importlib.import_module("factor_graph"))
    frames = np.load(folder / "frames.npy", allow_pickle=False)
    intrinsics = np.load(folder / "intrinsics.npy", allow_pickle=False)
    shown = list(stream(frames, intrinsics))
    size = (shown[0][1].shape[-2], shown[0][1].shape[-1])
    with torch.no_grad():
        droid = droid_module.Droid(options(weights, size, len(frames)))
        for time, image, numbers in shown:
            droid.track(time, image, intrinsics=numbers)
        droid.terminate(iter(shown))
        # valid: deeper than 0.2 in both views, as DROID-SLAM projects
        places, valid = droid.video.reproject(kept["ii"], kept["jj"])
        distance = torch.linalg.vector_norm(places - kept["target"], dim=-1)
        seen = valid.reshape(distance.shape) > 0
    return {"error": float(distance[seen].mean()), "edges": len(kept["ii"])}


def main() -> None:
    """Measure and write the result."""
    repository, weights, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    (folder / "result.json").write_text(json.dumps(measure(repository, weights, folder)))


if __name__ == "__main__":
    main()
