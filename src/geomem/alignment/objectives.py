"""Alignment objectives between video-model states and frozen VGGT features.

Shape legend: B clips, T frames, N tokens per frame, D feature width. Targets come from a frozen
teacher and are constants: no gradient reaches them. All losses are computed in float32.
"""

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

RELEASED_PLANE = 512  # side of the plane to which the public GF code resizes tokens x channels


def token_cosine(pred_BTND: Tensor, target_BTND: Tensor) -> Tensor:
    """Cosine between projected states and teacher tokens.

    Args:
        pred_BTND: Projected states, any scale.
        target_BTND: Teacher tokens, treated as a constant.

    Returns:
        (B,T,N) in [-1, 1].

    Raises:
        ValueError: If the shapes differ.
    """
    _check_same_shape(pred_BTND, target_BTND)
    return F.cosine_similarity(pred_BTND.float(), target_BTND.detach().float(), dim=-1)


def angular_alignment(pred_BTND: Tensor, target_BTND: Tensor) -> Tensor:
    """Mean of 1 - cos(pred, target) over clips, frames and tokens (GF, eq. 5).

    GF writes -cos; the constant makes 0 the best value and changes no gradient.

    Args:
        pred_BTND: f(h), projected states, any scale.
        target_BTND: VGGT tokens.

    Returns:
        Scalar in [0, 2]; 0 means parallel.

    Raises:
        ValueError: If the shapes differ.
    """
    return 1 - token_cosine(pred_BTND, target_BTND).mean()


def unit_features(pred_BTND: Tensor) -> Tensor:
    """h_hat = f(h) / |f(h)| per token, the input of the scale head (GF, scale alignment)."""
    return F.normalize(pred_BTND.float(), dim=-1)


def scale_alignment(rescaled_BTND: Tensor, target_BTND: Tensor) -> Tensor:
    """Squared error of features whose scale a head has restored (GF, scale alignment).

    |g(h_hat) - y|^2 is averaged over channels as well as tokens, so that the weight of the term
    does not depend on the teacher's width.

    Args:
        rescaled_BTND: g(h_hat), the head applied to `unit_features` of the projected states.
        target_BTND: VGGT tokens.

    Returns:
        Scalar, not negative.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_same_shape(rescaled_BTND, target_BTND)
    return F.mse_loss(rescaled_BTND.float(), target_BTND.detach().float())


def mse_alignment(pred_BTND: Tensor, target_BTND: Tensor) -> Tensor:
    """Plain regression of the teacher's features, GF's ablation; not negative.

    Args:
        pred_BTND: Projected states.
        target_BTND: VGGT tokens.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_same_shape(pred_BTND, target_BTND)
    return F.mse_loss(pred_BTND.float(), target_BTND.detach().float())


def repa_alignment(pred_BTND: Tensor, target_BTND: Tensor) -> Tensor:
    """REPA with cosine similarity (REPA, plus the constant 1), in [0, 2].

    The number is that of `angular_alignment`; what makes it REPA is the projector in front of it,
    an MLP per token, and no scale term beside it.

    Args:
        pred_BTND: Output of the REPA projector.
        target_BTND: Teacher tokens (DINOv2 for the 2D baseline).

    Raises:
        ValueError: If the shapes differ.
    """
    return angular_alignment(pred_BTND, target_BTND)


def token_relation_distillation(
    pred_BTND: Tensor, target_BTED: Tensor, *, margin: float = 0.1
) -> Tensor:
    """Distance of token-relation matrices beyond a margin (VideoREPA, TRD).

    mean relu(|S_student - S_teacher| - margin), S the cosines between all pairs of the T N tokens
    of a clip: relations within a frame and between frames.

    Args:
        pred_BTND: Student tokens, any width.
        target_BTED: Teacher tokens, any width E, same clips, frames and tokens.
        margin: Differences up to here cost nothing.

    Returns:
        Scalar in [0, 2].

    Raises:
        ValueError: If clips, frames or tokens differ.
    """
    if pred_BTND.shape[:3] != target_BTED.shape[:3]:
        raise ValueError(
            f"clips, frames and tokens differ: {tuple(pred_BTND.shape[:3])} of the student, "
            f"{tuple(target_BTED.shape[:3])} of the teacher"
        )
    student, teacher = unit_features(pred_BTND), unit_features(target_BTED.detach())
    # The full (T N)^2 matrix takes gigabytes a clip at paper scale: one frame's rows at a time,
    # recomputed in the backward pass.
    per_frame = [
        checkpoint(_frame_relations, student, teacher, frame, margin, use_reentrant=False)
        for frame in range(student.shape[1])
    ]
    return torch.stack(per_frame).mean()


def _frame_relations(student: Tensor, teacher: Tensor, frame: int, margin: float) -> Tensor:
    """Mean excess over the margin in the rows of the relation matrices that belong to one frame."""
    student_rows, teacher_rows = (
        torch.einsum("bnd,btmd->bntm", tokens[:, frame], tokens) for tokens in (student, teacher)
    )
    return F.relu((student_rows - teacher_rows).abs() - margin).mean()


def as_released_alignment(
    pred_BTND: Tensor, target_BTND: Tensor, *, plane: int = RELEASED_PLANE
) -> Tensor:
    """What the public GF code computes, for comparison only.

    Tokens x channels are treated as an image, resized to plane x plane (bilinear) and normalised
    over the flattened plane instead of per token; the product is then *averaged* over the plane, so
    that a frame counts -cos / plane^2 (1/262144), and frames are summed.

    Args:
        pred_BTND: Projected states; tokens and channels may differ from the target's.
        target_BTND: VGGT tokens of one layer.
        plane: Side of the plane.

    Returns:
        Scalar in [-B T / plane^2, B T / plane^2].

    Raises:
        ValueError: If clips or frames differ.
    """
    if pred_BTND.shape[:2] != target_BTND.shape[:2]:
        raise ValueError(
            f"clips and frames differ: {tuple(pred_BTND.shape[:2])} of the student, "
            f"{tuple(target_BTND.shape[:2])} of the teacher"
        )
    pred, target = _released_plane(pred_BTND, plane), _released_plane(target_BTND.detach(), plane)
    return -(pred * target).mean(dim=-1).sum()


def _released_plane(tokens_BTND: Tensor, plane: int) -> Tensor:
    """Unit vectors (B T, plane^2) of resized token x channel images."""
    images = rearrange(tokens_BTND.float(), "b t n d -> (b t) 1 n d")
    resized = F.interpolate(images, size=(plane, plane), mode="bilinear", align_corners=False)
    return F.normalize(resized.flatten(1), dim=-1)


def resample_tokens(
    tokens_BTND: Tensor, grid_in: tuple[int, int], grid_out: tuple[int, int]
) -> Tensor:
    """Move patch tokens to another spatial grid, each channel by itself.

    Bilinear over the same field of view, with antialiasing where the grid gets coarser.

    Args:
        tokens_BTND: Patch tokens row by row, special tokens already dropped.
        grid_in: (rows, columns) of the tokens.
        grid_out: (rows, columns) wanted.

    Returns:
        (B,T,rows*columns,D), dtype of the input.

    Raises:
        ValueError: If the tokens do not fill `grid_in`.
    """
    rows, columns = grid_in
    clips, _, tokens, _ = tokens_BTND.shape
    if tokens != rows * columns:
        raise ValueError(f"{tokens} tokens do not fill a {rows}x{columns} grid: drop special ones")
    if grid_in == grid_out:
        return tokens_BTND
    maps = rearrange(tokens_BTND.float(), "b t (h w) d -> (b t) d h w", h=rows)
    resized = F.interpolate(maps, size=grid_out, mode="bilinear", antialias=True)
    return rearrange(resized, "(b t) d h w -> b t (h w) d", b=clips).to(tokens_BTND.dtype)


def _check_same_shape(pred: Tensor, target: Tensor) -> None:
    if pred.shape != target.shape:
        raise ValueError(f"shapes differ: {tuple(pred.shape)} and {tuple(target.shape)}")
