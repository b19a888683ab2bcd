"""Alignment and REPA projectors: token order, locality, scale head, round trip."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from geomem.networks.projectors import AlignmentProjector, RepaProjector


@pytest.fixture
def states() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 6, 4, 5)


def test_alignment_projector_equals_a_naive_one(states: torch.Tensor) -> None:
    projector = AlignmentProjector(6, 7, hidden=8)
    f, g = projector(states)
    assert f.shape == g.shape == (2, 3, 20, 7)
    padded = F.pad(states[1, 2], (1, 1, 1, 1))
    for row, column in ((0, 0), (2, 3), (3, 4)):
        window = padded[:, row : row + 3, column : column + 3]
        hidden = (projector.conv.weight * window).sum((1, 2, 3)) + projector.conv.bias
        expected = projector.project(hidden * hidden.sigmoid())
        torch.testing.assert_close(f[1, 2, 5 * row + column], expected)
        first, _, last = projector.scale_head
        direction = first(expected / expected.norm())
        expected_g = last(direction * direction.sigmoid())
        torch.testing.assert_close(g[1, 2, 5 * row + column], expected_g)


def test_scale_head_sees_the_direction_alone(states: torch.Tensor) -> None:
    projector = AlignmentProjector(6, 7, hidden=8)
    f, g = projector(states)
    with torch.no_grad():
        projector.project.weight.mul_(3.0)
        projector.project.bias.mul_(3.0)
    f_scaled, g_same = projector(states)
    torch.testing.assert_close(f_scaled, 3 * f)
    torch.testing.assert_close(g_same, g)


def test_both_losses_reach_projector_and_states(states: torch.Tensor) -> None:
    projector = AlignmentProjector(6, 7, hidden=8)
    states.requires_grad_()
    projector(states)[1].square().mean().backward()
    assert states.grad is not None
    assert states.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in projector.parameters())


def test_repa_projector_works_token_by_token(states: torch.Tensor) -> None:
    projector = RepaProjector(6, 7, hidden=8)
    tokens = projector(states)
    assert tokens.shape == (2, 3, 20, 7)
    assert sum(isinstance(m, torch.nn.Linear) for m in projector.modules()) == 3
    torch.testing.assert_close(tokens[1, 2, 5 * 2 + 3], projector.mlp(states[1, 2, :, 2, 3]))


@pytest.mark.parametrize("kind", [AlignmentProjector, RepaProjector])
def test_save_and_load_round_trip(kind: type, states: torch.Tensor, tmp_path: Path) -> None:
    projector = kind(6, 7, hidden=8)
    projector.save_pretrained(tmp_path)
    loaded = kind.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded.state_dict(), projector.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(loaded(states), projector(states))
