"""Everything that a training step draws, for the global batch at once.

Draws are a function of the seed, the step and the place in the global batch: every process draws
for the whole batch and keeps the rows of its windows, so neither the number of processes nor that
of micro-batches changes what a window sees.
"""

import torch
from torch import Tensor

from geomem.methods.training import TrainedMethod


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step of a run."""
    return (seed * 1_000_003 + step) * 1_009


def draw_step(
    method: TrainedMethod,
    shape_BTCSS: tuple[int, ...],
    *,
    seed: int,
    step: int,
    noise: str,
    history: float,
    memory_dropout: float | None,
    device: torch.device,
) -> dict[str, Tensor]:
    """Draw for all windows of a step; the global generator is left behind seeded by the step.

    Args:
        method: Says what is drawn.
        shape_BTCSS: Shape of the global batch's frames.
        seed: Seed of the run.
        step: Number of the step.
        noise: "per_frame" or "per_clip".
        history: Share of windows with a clean history.
        memory_dropout: Share of windows that lose their memory; None without a memory.
        device: Where the tensors are made.

    Returns:
        A row for each window of what `TrainedMethod.draw` names.
    """
    torch.manual_seed(step_seed(seed, step))
    return method.draw(
        shape_BTCSS, noise=noise, history=history, memory_dropout=memory_dropout, device=device
    )
