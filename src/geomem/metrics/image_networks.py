"""Networks that describe single images for distances between sets of them, each under its label.

Legend: N images, D feature width. Images are float in [0, 1], (N, 3, H, W).
"""

from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from geomem.metrics.networks import IMAGES_PER_BATCH, EfficientNetVideoFeatures, open_torchscript

RFID = "rfid"
RKID = "rkid"
EFFICIENTNET_FRECHET = "revisit_frechet_efficientnet_lite0"
EFFICIENTNET_KERNEL = "revisit_kernel_efficientnet_lite0"
INCEPTION_WIDTH = 2048


class ImageFeatures(Protocol):
    """An image feature extractor: the labels of its Frechet and kernel distance, the features."""

    label: str
    kernel_label: str
    details: dict[str, str]

    def images(self, images: Tensor) -> Tensor:
        """Return features (N, D) on the CPU of images (N, 3, H, W) in [0, 1]."""


def load_image_features(
    inception: Path | None, *, device: torch.device | str = "cpu"
) -> ImageFeatures:
    """Return Inception-v3 where its torchscript file is given, else the labelled stand-in.

    Raises:
        FileNotFoundError: If a path is given and no file is there: no silent fallback.
        ModuleNotFoundError: If the stand-in's packages are missing.
    """
    if inception is not None:
        return Inception(inception, device=device)
    return EfficientNetImageFeatures(device=device)


class EfficientNetImageFeatures(EfficientNetVideoFeatures):
    """The pooled ImageNet features of `EfficientNetVideoFeatures`, of images by themselves."""

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        super().__init__(device=device)
        self.label, self.kernel_label = EFFICIENTNET_FRECHET, EFFICIENTNET_KERNEL


class Inception:
    """Inception-v3 features as published with StyleGAN: the first FID network, 2048 numbers.

    Its torchscript file takes uint8 images of any size and resizes them by itself, as the first
    TensorFlow code did.
    """

    def __init__(self, path: Path, *, device: torch.device | str = "cpu") -> None:
        self._network, self.details = open_torchscript(path, "Inception", device=device)
        self.label, self.kernel_label = RFID, RKID
        self._device = device

    @torch.no_grad()
    def images(self, images: Tensor) -> Tensor:
        """Return features (N, 2048) of images (N, 3, H, W) in [0, 1].

        Raises:
            ValueError: If the network is not Inception.
        """
        levels = images.mul(255).round().to(torch.uint8)
        batches = [
            self._network(batch.to(self._device), return_features=True).cpu()
            for batch in levels.split(IMAGES_PER_BATCH)
        ]
        features = torch.cat(batches)
        if features.shape != (len(images), INCEPTION_WIDTH):
            raise ValueError(f"Inception gives (N, 2048), this file {tuple(features.shape)}")
        return features
