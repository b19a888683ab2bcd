"""Rays and their encoding against the golden pair and a per-pixel oracle."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from geomem.geometry.rays import camera_rays, encode_cameras, encode_cameras_apart, encode_rays

GOLDEN = Path(__file__).parents[1] / "fixtures" / "camera_rays.safetensors"
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    return load_file(GOLDEN)


def test_rays_match_golden(golden: dict[str, Tensor]) -> None:
    cameras = golden["input/cameras"]
    torch.testing.assert_close(camera_rays(cameras, 8), golden["output/ray"], **CLOSE)


def test_encoding_matches_golden(golden: dict[str, Tensor]) -> None:
    expected = golden["output/ray_encoding"].movedim(-1, 2)
    torch.testing.assert_close(encode_rays(golden["output/ray"]), expected, **CLOSE)


def test_whole_chain_matches_golden(golden: dict[str, Tensor]) -> None:
    encoded = encode_cameras(golden["input/cameras"], 8)
    expected = golden["output/ray_encoding"].movedim(-1, 2)
    # Frequency 2^14 pi turns one float32 rounding of a coordinate into 0.03.
    slow = torch.arange(180) % 15 < 8
    torch.testing.assert_close(encoded[:, :, slow], expected[:, :, slow], rtol=0, atol=1e-3)
    torch.testing.assert_close(encoded, expected, rtol=0, atol=0.05)


def test_autocast_does_not_touch_the_encoding(golden: dict[str, Tensor]) -> None:
    plain = encode_cameras(golden["input/cameras"], 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(encode_cameras(golden["input/cameras"], 4), plain)


def test_one_encoded_value_by_hand() -> None:
    rays = torch.zeros(1, 1, 1, 1, 6)
    rays[..., 4] = 0.3  # y of the direction
    encoded = encode_rays(rays)[0, 0, :, 0, 0]
    assert encoded.shape == (180,)
    assert encoded[90 + 15 + 2] == pytest.approx(math.sin(math.pi * 4 * 0.3), abs=1e-5)
    assert encoded[90 + 45 + 15 + 2] == pytest.approx(math.cos(math.pi * 4 * 0.3), abs=1e-5)


def test_rays_ignore_the_choice_of_world_frame(golden: dict[str, Tensor]) -> None:
    cameras = golden["input/cameras"].clone()
    before = camera_rays(cameras, 4)
    # A new world: x_old = x_new + shift, so t_new = t + R shift.
    shift = torch.tensor([3.0, -1.0, 2.0])
    w2c = cameras[..., 4:].unflatten(-1, (3, 4))
    w2c[..., 3] += w2c[..., :3] @ shift
    torch.testing.assert_close(camera_rays(cameras, 4), before, rtol=1e-4, atol=1e-5)


def test_origins_and_directions_come_apart(golden: dict[str, Tensor]) -> None:
    cameras = golden["input/cameras"]
    origins, directions = encode_cameras_apart(cameras, 8)
    together = encode_cameras(cameras, 8)
    assert directions.equal(together[:, :, 90:])
    assert origins[..., None, None].expand_as(directions).equal(together[:, :, :90])
