"""Alignment objectives against plain loops, closed forms and the released code's scale."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from geomem.alignment.objectives import (
    angular_alignment,
    as_released_alignment,
    mse_alignment,
    repa_alignment,
    resample_tokens,
    scale_alignment,
    token_cosine,
    token_relation_distillation,
    unit_features,
)

Objective = Callable[[Tensor, Tensor], Tensor]


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed))


@pytest.mark.parametrize("objective", [angular_alignment, repa_alignment])
def test_cosine_objectives(objective: Objective) -> None:
    x = tokens(2, 3, 4, 8)
    scales = tokens(2, 3, 4, 1, seed=2).exp()
    assert objective(scales * x, x).item() == pytest.approx(0, abs=1e-6)
    assert objective(-x, x).item() == pytest.approx(2, abs=1e-6)
    y = tokens(2, 3, 4, 8, seed=1)
    cosines = [
        sum(a * b for a, b in zip(u, v, strict=True)) / (math.hypot(*u) * math.hypot(*v))
        for u, v in zip(x.flatten(0, 2).tolist(), y.flatten(0, 2).tolist(), strict=True)
    ]
    assert objective(x, y).item() == pytest.approx(1 - sum(cosines) / 24, abs=1e-6)
    torch.testing.assert_close(token_cosine(x, y).flatten(), torch.tensor(cosines))


def test_mse_and_scale_average_over_all_axes() -> None:
    x = tokens(2, 3, 4, 8)
    offset = torch.zeros(2, 3, 4, 8)
    offset[0, 0, 0, 0] = 3.0
    for objective in (mse_alignment, scale_alignment):
        assert objective(x + offset, x).item() == pytest.approx(9 / (2 * 3 * 4 * 8), rel=1e-5)
        assert objective(x, x).item() == 0


def test_scale_gradients_reach_head_and_direction_only() -> None:
    """The head sees directions: the projected state gets no gradient along itself."""
    projected = tokens(2, 3, 4, 8).requires_grad_()
    target = (2 * tokens(2, 3, 4, 8, seed=1)).requires_grad_()
    head = nn.Linear(8, 8)
    scale_alignment(head(unit_features(projected)), target).backward()
    assert target.grad is None
    assert projected.grad is not None and head.weight.grad is not None
    assert head.weight.grad.norm() > 1e-3 and projected.grad.norm() > 1e-4
    along = (projected.grad * projected.detach()).sum(-1)
    torch.testing.assert_close(along, torch.zeros(2, 3, 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "objective",
    [
        angular_alignment,
        mse_alignment,
        scale_alignment,
        repa_alignment,
        token_relation_distillation,
        as_released_alignment,
    ],
)
def test_teacher_is_a_constant_and_loss_falls_downhill(objective: Objective) -> None:
    pred = tokens(2, 3, 4, 8).requires_grad_()
    target = tokens(2, 3, 4, 8, seed=1).requires_grad_()
    loss = objective(pred, target)
    loss.backward()
    assert target.grad is None and pred.grad is not None
    step = pred.grad / pred.grad.norm()
    with torch.no_grad():
        assert objective(pred - 0.1 * step, target) < loss
    assert objective(pred.detach().bfloat16(), target.bfloat16()).dtype == torch.float32


def full_relation_loss(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Oracle: whole relation matrices, one clip after the other."""
    losses = []
    for s, t in zip(student.flatten(1, 2), teacher.flatten(1, 2), strict=True):
        relations = [F.normalize(x, dim=-1) @ F.normalize(x, dim=-1).T for x in (s, t)]
        losses.append(((relations[0] - relations[1]).abs() - margin).clamp(min=0).mean())
    return torch.stack(losses).mean()


def test_trd_matches_whole_matrices_with_gradient() -> None:
    student = tokens(2, 3, 4, 8).requires_grad_()
    teacher = tokens(2, 3, 4, 5, seed=1)
    loss = token_relation_distillation(student, teacher)
    expected = full_relation_loss(student, teacher, 0.1)
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(x, student)[0] for x in (loss, expected)]
    torch.testing.assert_close(*gradients)


def test_trd_margin() -> None:
    """Two tokens, angle known: relations differ by the cosine alone, in 2 of 4 entries."""
    teacher = torch.eye(2).reshape(1, 1, 2, 2)

    def student(cosine: float) -> Tensor:
        return torch.tensor([[1.0, 0.0], [cosine, math.sqrt(1 - cosine**2)]]).reshape(1, 1, 2, 2)

    assert token_relation_distillation(student(0.09), teacher).item() == 0
    loss = token_relation_distillation(student(0.5), teacher).item()
    assert loss == pytest.approx(0.4 * 2 / 4, abs=1e-6)
    assert token_relation_distillation(student(0.5), teacher, margin=0.0).item() > loss


def test_as_released_scale_is_one_over_the_plane_per_frame() -> None:
    x = tokens(2, 3, 13, 7)
    assert as_released_alignment(x, x).item() == pytest.approx(-2 * 3 / 262144, rel=1e-4)
    assert as_released_alignment(x, x, plane=16).item() == pytest.approx(-2 * 3 / 256, rel=1e-4)
    # One long vector per frame, where a cosine per token would be expected.
    y = tokens(2, 3, 13, 7, seed=1)
    plane_cosines = [
        torch.dot(a, b) / (a.norm() * b.norm())
        for a, b in zip(
            *(
                F.interpolate(t.reshape(6, 1, 13, 7), (512, 512), mode="bilinear").flatten(1)
                for t in (x, y)
            ),
            strict=True,
        )
    ]
    expected = -torch.stack(plane_cosines).sum() / 512**2
    torch.testing.assert_close(as_released_alignment(x, y), expected, rtol=1e-4, atol=1e-10)


def test_resample_keeps_channels_apart_and_finds_the_grid() -> None:
    """Linear ramps stay linear inside the grid; every channel has its own."""
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(4.0), indexing="ij")
    ramps = torch.stack([rows + 0.5, columns + 0.5, torch.full((6, 4), 7.0)], dim=-1)
    source = ramps.reshape(1, 1, 24, 3).repeat(2, 2, 1, 1)
    out = resample_tokens(source, (6, 4), (12, 8)).reshape(2, 2, 12, 8, 3)
    fine_rows = ((torch.arange(12.0) + 0.5) / 2)[:, None].expand(12, 8)
    fine_columns = ((torch.arange(8.0) + 0.5) / 2).expand(12, 8)
    expected = torch.stack([fine_rows, fine_columns, torch.full((12, 8), 7.0)], dim=-1)
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(out[inside], expected[1:-1, 1:-1].expand(2, 2, -1, -1, -1))


def test_resample_each_channel_and_frame_alone() -> None:
    x = tokens(2, 3, 35, 4)
    whole = resample_tokens(x, (5, 7), (4, 3))
    for clip in range(2):
        for frame in range(3):
            for channel in range(4):
                one = x[clip, frame, :, channel].reshape(1, 1, 35, 1)
                alone = resample_tokens(one, (5, 7), (4, 3)).flatten()
                torch.testing.assert_close(whole[clip, frame, :, channel], alone)
    assert torch.equal(resample_tokens(x, (5, 7), (5, 7)), x)


def test_misfits_are_refused() -> None:
    x = tokens(2, 3, 4, 8)
    for objective in (angular_alignment, mse_alignment, scale_alignment, repa_alignment):
        with pytest.raises(ValueError, match=r"\(2, 3, 4, 7\)"):
            objective(x, x[..., :7])
    with pytest.raises(ValueError, match=r"\(2, 3, 3\)"):
        token_relation_distillation(x, x[:, :, :3])
    with pytest.raises(ValueError, match=r"\(2, 2\)"):
        as_released_alignment(x, x[:, :2])
    with pytest.raises(ValueError, match="4 tokens do not fill a 5x7 grid"):
        resample_tokens(x, (5, 7), (4, 4))
