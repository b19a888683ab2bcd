"""VBench's networks as it shows frames to them: each gives a dimension's value of a video.

Legend: T frames, H, W pixels. Frames are (T, 3, H, W) in [0, 1]. Pictures are resized without
antialiasing, as in the environment that VBench pins.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomem.metrics import vbench
from geomem.metrics.networks import import_torchvision
from geomem.networks import amt
from geomem.networks.amt import load_amt
from geomem.networks.clip import SIDE, VIT_B_32, VIT_L_14, load_clip
from geomem.networks.dino import load_dino
from geomem.networks.musiq import load_musiq
from geomem.networks.published import fill, read_tensors

FRAMES_PER_BATCH = 16
LONGEST = 512  # pixels of a side of what MUSIQ is shown
# RAFT: updates of the flow, the multiple of its sides, the smallest side that it can be shown
UPDATES = 20
MULTIPLE = 8
SMALLEST = 128

Files = Mapping[str, Path]
# A dimension's value of frames (T, 3, H, W) at some frames a second; None where it has none.
Dimension = Callable[[Tensor, int], float | None]


def temporal_flickering(files: Files, device: torch.device) -> Dimension:
    """Return the dimension that needs no network."""
    return lambda frames, fps: vbench.flickering(frames)


def subject_consistency(files: Files, device: torch.device) -> Dimension:
    """Return the dimension of DINO ViT-B/16: shorter side 224, bilinear."""
    network = load_dino(files["dino"]).to(device)

    def score(frames: Tensor, fps: int) -> float:
        features = _each(frames, lambda batch: network(shorter_side(batch, SIDE, "bilinear")))
        return vbench.consistency(features)

    return score


def background_consistency(files: Files, device: torch.device) -> Dimension:
    """Return the dimension of CLIP ViT-B/32: shorter side 224, bicubic, the square inside."""
    network = load_clip(files["clip_b32"], VIT_B_32).to(device)

    def score(frames: Tensor, fps: int) -> float:
        return vbench.consistency(_each(frames, lambda batch: network(clip_view(batch))))

    return score


def aesthetic_quality(files: Files, device: torch.device) -> Dimension:
    """Return the dimension of LAION's linear layer (0 to 10, here over 10) on CLIP ViT-L/14."""
    network = load_clip(files["clip_l14"], VIT_L_14).to(device)
    path, head = files["aesthetic"], nn.Linear(VIT_L_14.out, 1)
    fill(head, read_tensors(path), path=path, name="LAION's linear layer on CLIP ViT-L/14")
    head.requires_grad_(False).to(device)

    def score(frames: Tensor, fps: int) -> float:
        rated = _each(frames, lambda x: head(F.normalize(network(clip_view(x)), dim=1)))
        return float(rated.double().mean()) / 10

    return score


def imaging_quality(files: Files, device: torch.device) -> Dimension:
    """Return the dimension of MUSIQ trained on SPAQ (0 to 100, here over 100)."""
    network = load_musiq(files["musiq"]).to(device)

    def score(frames: Tensor, fps: int) -> float:
        rated = _each(frames, lambda batch: network(at_most(batch, LONGEST)))
        return float(rated.double().mean()) / 100

    return score


def motion_smoothness(files: Files, device: torch.device) -> Dimension:
    """Return the dimension of AMT-S, which makes odd frames from even ones."""
    network = load_amt(files["amt"]).to(device)

    @torch.no_grad()
    def between(first: Tensor, second: Tensor) -> Tensor:
        pair = F.pad(torch.stack([first, second]), filling(first, amt.MULTIPLE), mode="replicate")
        left, _, top, _ = filling(first, amt.MULTIPLE)
        height, width = first.shape[-2:]
        made: Tensor = network(pair[:1], pair[1:])[0]
        return made[:, top : top + height, left : left + width]

    return lambda frames, fps: vbench.smoothness(at_least(frames, amt.SMALLEST), between)


def dynamic_degree(files: Files, device: torch.device) -> Dimension:
    """Return the dimension of RAFT, trained on FlyingChairs and FlyingThings3D."""
    flow = RaftFlow(files["raft"], device=device)
    return lambda frames, fps: vbench.dynamic_degree(frames, fps, flow)


DIMENSIONS: Mapping[str, Callable[[Files, torch.device], Dimension]] = {
    found.__name__: found
    for found in (
        *(subject_consistency, background_consistency, temporal_flickering),
        *(motion_smoothness, dynamic_degree, aesthetic_quality, imaging_quality),
    )
}


class RaftFlow:
    """RAFT (Teed & Deng 2020) by torchvision, with the authors' weights in its names.

    `raft_large_C_T_V1` is torchvision's port of the `raft-things.pth` that VBench names.
    """

    def __init__(self, path: Path, *, device: torch.device) -> None:
        """Load the network.

        Raises:
            ModuleNotFoundError: If torchvision is not installed.
            ValueError: If the file differs in any name or shape.
        """
        import_torchvision()
        from torchvision.models.optical_flow import raft_large

        network = raft_large(weights=None, progress=False)
        fill(network, read_tensors(path), path=path, name="torchvision's raft_large")
        self._network = network.eval().requires_grad_(False).to(device)

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the flow (2, h, w) between frames (3, H, W), in shorter sides of the frame.

        Frames of less than 128 pixels are enlarged to that; sides are filled up to multiples of 8
        by the border, which counts, as it does in VBench.
        """
        shown = at_least(torch.stack([first, second]), SMALLEST)
        one, other = 2 * F.pad(shown, filling(shown, MULTIPLE), mode="replicate") - 1
        flow: Tensor = self._network(one[None], other[None], num_flow_updates=UPDATES)[-1][0]
        return flow / min(shown.shape[-2:])


def shorter_side(images: Tensor, side: int, mode: str) -> Tensor:
    """Return images (T, 3, H, W) with a shorter side of `side` pixels; bicubic is not clipped."""
    shortest = min(images.shape[-2:])
    size = [int(side * pixels / shortest) for pixels in images.shape[-2:]]
    return images if size == [*images.shape[-2:]] else F.interpolate(images, size, mode=mode)


def at_least(images: Tensor, shortest: int) -> Tensor:
    """Return images (T, 3, H, W), enlarged where their shorter side has fewer pixels."""
    small = min(images.shape[-2:]) < shortest
    return shorter_side(images, shortest, "bilinear") if small else images


def filling(images: Tensor, multiple: int) -> list[int]:
    """Return what fills sides up to a multiple: pixels left, right, above and below."""
    over = [-side % multiple for side in (images.shape[-1], images.shape[-2])]
    return [part for total in over for part in (total // 2, total - total // 2)]


def clip_view(images: Tensor) -> Tensor:
    """Return the square (T, 3, 224, 224) inside images, their shorter side."""
    shown = shorter_side(images, SIDE, "bicubic")
    top, left = (round((pixels - SIDE) / 2) for pixels in shown.shape[-2:])
    return shown[..., top : top + SIDE, left : left + SIDE]


def at_most(images: Tensor, longest: int) -> Tensor:
    """Return images (T, 3, H, W), made smaller where their longer side has more pixels."""
    scale = longest / max(images.shape[-2:])
    if scale >= 1:
        return images
    return F.interpolate(images, [int(scale * s) for s in images.shape[-2:]], mode="bilinear")


@torch.no_grad()
def _each(frames: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what a network makes of frames (T, ...), a few at a time."""
    return torch.cat([network(batch) for batch in frames.split(FRAMES_PER_BATCH)])
