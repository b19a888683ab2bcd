"""How noisy each frame of a training window is: what tells diffusion baselines apart.

| noise | frames | conditions, which are not in the loss |
| --- | --- | --- |
| `per_frame` | a time each (diffusion forcing) | none; in a share of windows a random part |
| `per_clip` | one time for all (full sequence) | none |
| `prefix` | one time for those after the prefix (fixed context, SD) | one frame, or half a window |
| `dropout` | one time for the others (binary dropout, BD) | each with probability 1/2 |

Conditions are clean, at time 0. With `prefix` and `dropout` all of a window's conditions are noise,
at time 1, in a tenth of windows: then it is generated without history, which guidance needs.
Shape suffixes: B windows, T frames.
"""

import torch
from torch import Tensor

CONDITION_SHARE = 0.5  # of frames, in binary dropout
HISTORY_DROPOUT = 0.1  # of windows that lose all their conditions (DFoT, SD and BD)


def draw_times(shape: tuple[int, int], noise: str, device: torch.device) -> Tensor:
    """Draw noise times (B, T) in [0, 1]: one a frame (diffusion forcing) or one a clip."""
    if noise == "per_frame":
        return torch.rand(shape, device=device)
    return torch.rand(shape[0], 1, device=device).expand(shape).clone()


def draw_conditions(times_BT: Tensor, noise: str, history: float) -> dict[str, Tensor]:
    """Draw which frames of windows are conditions, for the whole global batch.

    Args:
        times_BT: Of `draw_times`.
        noise: As in the table above.
        history: With `per_frame`: share of windows in which a random part of the frames is clean,
            as when a sampler continues a history.

    Returns:
        Nothing where no frame is a condition. Else `times` (B, T) with theirs, `given` (B, T), True
        where a frame is one; with `prefix` and `dropout` also `weights` (B,), by which the mean
        over all frames of the global batch becomes one over those in the loss.
    """
    if noise == "per_clip" or (noise == "per_frame" and not history):
        return {}
    device = times_BT.device
    if noise == "per_frame":
        given = draw_histories(times_BT.shape, history, device)
        # the others of a window share one time
        together = times_BT[:, :1].expand_as(times_BT)
        times = torch.where(given.any(1, keepdim=True), together, times_BT)
        return {"given": given, "times": times.masked_fill(given, 0.0)}
    given = (_prefixes if noise == "prefix" else _scattered)(times_BT.shape, device)
    dropped = torch.rand(len(times_BT), 1, device=device) < HISTORY_DROPOUT
    times = torch.where(given, dropped.to(times_BT), times_BT)
    share = (~given).float().mean()
    return {"given": given, "times": times, "weights": share.reciprocal().expand(len(given))}


def draw_histories(shape: tuple[int, ...], share: float, device: torch.device) -> Tensor:
    """Draw which frames (B, T) are clean: none in most windows, in a share of them a random part,
    of any size that leaves a frame to be made."""
    windows, frames = shape
    order = torch.rand(shape, device=device).argsort(1)
    count = torch.randint(1, frames, (windows, 1), device=device)
    chosen = torch.rand(windows, 1, device=device) < share
    return chosen & (order < count)


def _prefixes(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """The first frame, or the first half: what a rollout in sliding windows begins and goes on
    with."""
    windows, frames = shape
    long = torch.rand(windows, 1, device=device) < 0.5
    count = torch.where(long, max(1, frames // 2), 1)
    return torch.arange(frames, device=device) < count


def _scattered(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Any frames, but never all: a window without a frame to make would teach nothing."""
    windows, frames = shape
    given = torch.rand(shape, device=device) < CONDITION_SHARE
    spared = torch.randint(frames, (windows, 1), device=device)
    every = given.all(1, keepdim=True)
    return given & ~(every & (torch.arange(frames, device=device) == spared))
