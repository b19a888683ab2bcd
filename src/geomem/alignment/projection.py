"""One call from hidden states to the terms of the chosen objective (METHOD section 5)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from geomem.alignment.objectives import (
    angular_alignment,
    as_released_alignment,
    mse_alignment,
    repa_alignment,
    resample_tokens,
    scale_alignment,
    token_cosine,
    token_relation_distillation,
)


@dataclass(frozen=True, kw_only=True)
class AlignmentTerms:
    """Unweighted scalar terms by name, and the mean cosine for the log, in [-1, 1]."""

    losses: dict[str, Tensor]
    cosine: Tensor


def align(
    projector: Any, hidden_BTChw: Tensor, target_BTND: Tensor, *, grid: Any, objective: str
) -> AlignmentTerms:
    """Project hidden states, bring the teacher's tokens to their grid and compare.

    Args:
        projector: `AlignmentProjector`, or `RepaProjector` for `repa`.
        hidden_BTChw: Hidden states of one level.
        target_BTND: The teacher's patch tokens.
        grid: Rows and columns of the teacher's tokens.
        objective: `angular+scale`, `angular`, `mse`, `repa`, `trd` or `as_released`.
    """
    rows, columns = hidden_BTChw.shape[-2:]
    target = resample_tokens(target_BTND, tuple(grid), (rows, columns))
    if objective == "repa":
        pred = projector(hidden_BTChw)
        losses = {"repa": repa_alignment(pred, target)}
    else:
        pred, rescaled = projector(hidden_BTChw)
        if objective in ("angular", "angular+scale"):
            losses = {"angular": angular_alignment(pred, target)}
        else:
            plain: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
                "mse": mse_alignment,
                "trd": token_relation_distillation,
                "as_released": as_released_alignment,
            }
            losses = {objective: plain[objective](pred, target)}
        if objective == "angular+scale":
            losses["scale"] = scale_alignment(rescaled, target)
    return AlignmentTerms(losses=losses, cosine=token_cosine(pred, target).mean())
