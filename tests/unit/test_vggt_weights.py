"""Strict loading: what the file and the model disagree on is told, never ignored."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_vggt import SMALL, small_vggt

from geomem.networks.vggt.config import VGGTConfig
from geomem.networks.vggt.weights import load_vggt, save_vggt

NORM = "camera_head.token_norm.weight"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "teacher.safetensors"
    save_vggt(small_vggt(), path)
    return path


def change(path: Path, **edits: torch.Tensor | None) -> None:
    state = load_file(path)
    for name, value in edits.items():
        state.pop(name, None)
        if value is not None:
            state[name] = value
    save_file(state, path)


def test_half_precision_round_trip(weights: Path) -> None:
    model, loaded = small_vggt(), load_vggt(weights, SMALL)
    assert not loaded.training
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half().float()), name
    images = torch.rand(1, 2, 3, 32, 32)
    with torch.no_grad():
        expected, found = model(images), loaded(images)
    torch.testing.assert_close(found.depth, expected.depth, rtol=1e-2, atol=1e-3)
    assert weights.stat().st_size < 2.2 * sum(p.numel() for p in model.parameters()) + 20_000


def test_tracker_weights_are_known_and_unused(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(weights, **{"track_head.tracker.x": torch.zeros(1), "track_head.y": torch.zeros(2)})
    with caplog.at_level(logging.INFO):
        load_vggt(weights, SMALL)
    assert "2 tracker tensors are known and unused" in caplog.text


@pytest.mark.parametrize(
    ("edits", "told"),
    [
        ({NORM: None}, f"1 missing: {NORM}"),
        ({"extra.weight": torch.zeros(1)}, "1 unexpected: extra.weight"),
        ({NORM: torch.zeros(3)}, rf"1 wrong shape: {NORM} \(3,\) instead of \(32,\)"),
        ({f"extra.{i}": torch.zeros(1) for i in range(5)}, r"extra.0, extra.1, extra.2, \.\.\."),
    ],
)
def test_disagreements_are_named(
    weights: Path, edits: dict[str, torch.Tensor | None], told: str
) -> None:
    change(weights, **edits)
    with pytest.raises(ValueError, match=rf"teacher.safetensors .*{told}.*give the configuration"):
        load_vggt(weights, SMALL)


def test_another_configuration_is_refused(weights: Path) -> None:
    deeper = VGGTConfig(**{**vars(SMALL), "camera_trunk_depth": 2})
    with pytest.raises(ValueError, match=r"14 missing: camera_head.trunk.1.attn.proj.bias"):
        load_vggt(weights, deeper)


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_truncated_files_are_refused(weights: Path, kept: int) -> None:
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"teacher.safetensors cannot be read.*fetch it again"):
        load_vggt(weights, SMALL)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.safetensors cannot be read"):
        load_vggt(tmp_path / "nowhere.safetensors", SMALL)
